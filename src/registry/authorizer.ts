// Authorization of requests to one registry: anonymous, basic or bearer tokens by scope. A token is renewed before it
// ends and fetched once however many requests wait. Source: distribution spec "token", "scope".
import type { Logger } from '../base/log.ts';
import { chooseChallenge } from './challenge.ts';
import type { TokenSource } from './challenge.ts';
import type { Credentials, CredentialSource } from './credentials.ts';
import type { HttpClient } from './http.ts';
import { getToken, postForToken } from './token.ts';
import type { TokenRequest } from './token.ts';

/** Life of a token whose server does not say. Source: distribution spec "token", expires_in. */
const DEFAULT_TTL_MS = 60_000;
/** A token is renewed this long before its end, or after three quarters of a short life. */
const EARLY_MS = 20_000;

export interface AuthorizerOptions {
  /** as references name it */
  host: string;
  http: HttpClient;
  credentials: CredentialSource;
  clientId: string;
  clock: () => number;
  logger: Logger;
}

interface Kept {
  header: string;
  renewAt: number;
  endsAt: number;
}

/** Scopes that a request needs, such as `repository:library/ubuntu:pull`. */
export type Scopes = readonly string[];

function basic(credentials: Credentials | undefined): string | undefined {
  if (credentials === undefined || 'identityToken' in credentials) return undefined;
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`;
}

/** Remembers how one registry authorises. */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  /** false: plain HTTP to a host where nobody asked for it; credentials stay here */
  sendsCredentials = true;
  #way: 'basic' | TokenSource | undefined;
  readonly #kept = new Map<string, Kept>();
  readonly #pending = new Map<string, Promise<Kept>>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** Header for a request, or undefined while the registry has not asked for any. */
  async header(scopes: Scopes, signal?: AbortSignal): Promise<string | undefined> {
    if (this.#way === undefined) return undefined;
    if (this.#way === 'basic') return basic(await this.#credentials());
    return (await this.#token(this.#way, scopes.toSorted().join(' '), signal)).header;
  }

  /**
   * The registry answered 401.
   *
   * @param sent header that it refused, if any
   * @returns true when the request is worth sending again
   */
  async challenged(challenge: string, scopes: Scopes, sent: string | undefined): Promise<boolean> {
    const way = chooseChallenge(challenge);
    if (way === undefined) return false;
    const key = scopes.toSorted().join(' ');
    const kept = this.#kept.get(key);
    if (kept !== undefined && kept.header === sent) this.#kept.delete(key);
    this.#way = way;
    if (way === 'basic') {
      const header = basic(await this.#credentials());
      return header !== undefined && header !== sent;
    }
    return true;
  }

  /** True when the configuration has credentials for this registry. */
  async hasCredentials(): Promise<boolean> {
    return (await this.#credentials()) !== undefined;
  }

  #credentials(): Promise<Credentials | undefined> {
    if (!this.sendsCredentials) return Promise.resolve(undefined);
    return this.#options.credentials.lookup(this.#options.host);
  }

  async #token(source: TokenSource, scope: string, signal?: AbortSignal): Promise<Kept> {
    const kept = this.#kept.get(scope);
    const now = this.#options.clock();
    if (kept !== undefined && now < kept.renewAt) return kept;
    const renewed = this.#fetch(source, scope);
    if (kept !== undefined && now < kept.endsAt) {
      // still good: go on with it, and try again only at its end
      kept.renewAt = kept.endsAt;
      renewed.catch(() => this.#options.logger.debug('a token could not be renewed ahead of time'));
      return kept;
    }
    const token = await renewed;
    signal?.throwIfAborted();
    return token;
  }

  #fetch(source: TokenSource, scope: string): Promise<Kept> {
    let pending = this.#pending.get(scope);
    if (pending === undefined) {
      pending = this.#request(source, scope)
        .then((kept) => {
          this.#kept.set(scope, kept);
          return kept;
        })
        .finally(() => this.#pending.delete(scope));
      this.#pending.set(scope, pending);
    }
    return pending;
  }

  async #request(source: TokenSource, scope: string): Promise<Kept> {
    const { http, clientId, clock } = this.#options;
    const credentials = await this.#credentials();
    const wanted = scope === '' ? source.scope : scope;
    const request: TokenRequest = { source, scope: wanted, clientId, totalTimeoutMs: 60_000 };
    const asked = clock();
    const token =
      credentials !== undefined && 'identityToken' in credentials
        ? await postForToken(http, { ...request, identityToken: credentials.identityToken })
        : await getToken(http, { ...request, authorization: basic(credentials) });
    const ttl = token.ttlSeconds === undefined ? DEFAULT_TTL_MS : token.ttlSeconds * 1000;
    const renewAt = asked + Math.max((ttl * 3) / 4, ttl - EARLY_MS);
    return { header: `Bearer ${token.value}`, renewAt, endsAt: asked + ttl };
  }
}
