// The Authorization header of a registry backend: found by its challenge, refreshed before it expires, fetched once
// however many reads wait. Source: blob-and-cache.md 21.10 "Authenticated request", "Token refresh".
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { chooseChallenge } from '../../registry/challenge.ts';
import type { TokenSource } from '../../registry/challenge.ts';
import type { HttpClient } from '../../registry/http.ts';
import { getToken, postForToken } from '../../registry/token.ts';
import type { Token, TokenRequest } from '../../registry/token.ts';

const CLIENT_ID = 'nydus-registry-client';
/** Life of a token whose server does not say (blob-and-cache 21.10). */
const DEFAULT_TTL_SECONDS = 600;
/** A failed refresh ahead of time is not tried again for this long. */
const REFRESH_PAUSE_MS = 5000;

export interface RegistryAuthOptions {
  http: HttpClient;
  /** base64 of user:password */
  auth: string | null;
  registryToken: string | null;
  /** credentials go to token servers over plain HTTP too */
  insecure: boolean;
  timeoutSeconds: number;
  clock: () => number;
  random: () => number;
  logger: Logger;
}

interface Bearer {
  source: TokenSource;
  /** milliseconds of the clock */
  refreshAt: number;
  expiresAt: number;
}

/** Credentials of one backend. */
export class RegistryAuth {
  readonly #options: RegistryAuthOptions;
  #auth: string | null;
  #header: string | undefined;
  #bearer: Bearer | undefined;
  readonly #pending = new Map<string, Promise<string>>();
  /** hosts whose token server takes GET only */
  readonly #getOnly = new Set<string>();

  constructor(options: RegistryAuthOptions) {
    this.#options = options;
    this.#auth = options.auth;
    if (options.registryToken !== null) this.#header = `Bearer ${options.registryToken}`;
  }

  get hasCredentials(): boolean {
    return this.#auth !== null;
  }

  /** Replace user and password; '' = none. What was cached with the old ones is forgotten. */
  setCredentials(auth: string): void {
    const value = auth.trim() === '' ? null : auth.trim();
    if (value === this.#auth) return;
    this.#auth = value;
    this.#header = undefined;
    this.#bearer = undefined;
    this.#pending.clear();
  }

  /** Header to send, if any. A token that is nearly over is renewed meanwhile, one that is over before. */
  async current(): Promise<string | undefined> {
    const bearer = this.#bearer;
    if (bearer === undefined || this.#header === undefined) return this.#header;
    const now = this.#options.clock();
    if (now < bearer.refreshAt) return this.#header;
    const renewed = this.#fetch(bearer.source);
    if (now >= bearer.expiresAt) return renewed.catch(() => undefined);
    bearer.refreshAt = Math.min(now + REFRESH_PAUSE_MS, bearer.expiresAt);
    renewed.catch((error: unknown) =>
      this.#options.logger.warn(`cannot renew the token: ${messageOf(error)}`),
    );
    return this.#header;
  }

  /** The registry refused this header: forget it, unless another read replaced it already. */
  refused(header: string): void {
    if (this.#header === header) this.#header = undefined;
  }

  /** This header was accepted: send it from now on. */
  accepted(header: string): void {
    this.#header = header;
  }

  /**
   * Header that answers a challenge.
   *
   * @returns undefined when the challenge or the configuration gives none
   * @throws RegistryError EIO  the token server failed
   */
  async answer(challenge: string): Promise<string | undefined> {
    if (this.#header !== undefined) return this.#header;
    const chosen = chooseChallenge(challenge);
    if (chosen === 'basic') return this.#auth === null ? undefined : `Basic ${this.#auth}`;
    return chosen === undefined ? undefined : this.#fetch(chosen);
  }

  #fetch(source: TokenSource): Promise<string> {
    const key = `${source.realm} ${source.service} ${source.scope}`;
    let pending = this.#pending.get(key);
    if (pending === undefined) {
      pending = this.#request(source).finally(() => {
        if (this.#pending.get(key) === pending) this.#pending.delete(key);
      });
      this.#pending.set(key, pending);
    }
    return pending;
  }

  async #request(source: TokenSource): Promise<string> {
    const { clock, random } = this.#options;
    const asked = clock();
    const auth = this.#auth;
    const token = await this.#ask(source, auth);
    const ttl = (token.ttlSeconds ?? DEFAULT_TTL_SECONDS) * 1000;
    const early = 20_000 + random() * Math.min(ttl / 10, 300_000);
    const header = `Bearer ${token.value}`;
    // reads that were refused with the old token find this one, and ask for no other
    if (auth === this.#auth) {
      this.#header = header;
      // a token that lives for seconds is used for half of them
      this.#bearer = { source, expiresAt: asked + ttl, refreshAt: asked + Math.max(ttl / 2, ttl - early) };
    }
    return header;
  }

  async #ask(source: TokenSource, auth: string | null): Promise<Token> {
    const { http, timeoutSeconds, logger, insecure } = this.#options;
    const realm = new URL(source.realm);
    const safe = realm.protocol === 'https:' || insecure;
    if (auth !== null && !safe)
      logger.warn(`no credentials for ${realm.origin}: it is plain HTTP, the registry is not`);
    const request: TokenRequest = {
      source,
      scope: source.scope,
      clientId: CLIENT_ID,
      authorization: auth !== null && safe ? `Basic ${auth}` : undefined,
      totalTimeoutMs: timeoutSeconds * 1000,
    };
    if (this.#getOnly.has(realm.host)) return getToken(http, request);
    try {
      return await postForToken(http, request);
    } catch (error) {
      logger.debug(`token by POST: ${messageOf(error)}; asking by GET`);
      const token = await getToken(http, request);
      this.#getOnly.add(realm.host);
      return token;
    }
  }
}
