// Blobs of an OCI registry. Source: blob-and-cache.md 21.10.
import { BackendError, messageOf, RegistryError } from '../../base/errors.ts';
import { MAX_REDIRECTS } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { answerError } from '../../registry/answer-error.ts';
import type { HttpAnswer } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import type { BackendSetting } from './backend.ts';
import { HttpBackend, type Attempt, type HttpLine, type HttpOrigin, type HttpSeams } from './http-backend.ts';
import type { Asked } from './http-range.ts';
import { RegistryAuth } from './registry-auth.ts';
import type { RegistryConfig } from './registry-config.ts';
import { RedirectCache } from './registry-redirects.ts';

/** What tests and the environment may replace. */
export type RegistrySeams = HttpSeams;

const isRedirect = (status: number): boolean => status >= 300 && status <= 399;
const isSuccess = (status: number): boolean => status >= 200 && status <= 299;

/** Blob URLs, tokens and redirects of one repository. */
class RegistryOrigin implements HttpOrigin {
  readonly #config: RegistryConfig;
  readonly #line: HttpLine;
  readonly #auth: RegistryAuth;
  readonly #redirects: RedirectCache;
  #scheme: string;
  /** the first request runs alone, so that the others find a token */
  #first: Promise<void> | undefined;
  #warm = false;

  constructor(config: RegistryConfig, line: HttpLine) {
    this.#config = config;
    this.#line = line;
    this.#scheme = config.scheme === 'http' ? 'http' : 'https';
    this.#auth = new RegistryAuth({
      http: line.http,
      logger: line.logger,
      clock: line.clock,
      random: line.random,
      timeoutSeconds: config.timeout,
      auth: config.auth,
      registryToken: config.registry_token,
      insecure: config.scheme === 'http' || config.skip_verify,
    });
    this.#redirects = new RedirectCache(line.clock);
  }

  configure(setting: BackendSetting, value: string): void {
    if (setting === 'registry_auth') this.#auth.setCredentials(value);
  }

  hint(error: unknown): string | undefined {
    return error instanceof RegistryError && error.status === 401 && !this.#auth.hasCredentials
      ? 'the registry wants credentials: set backend.registry.auth or IMAGE_PULL_AUTH'
      : undefined;
  }

  /** Until one request was answered, one runs alone and those that come meanwhile wait for its end. */
  async ask(
    method: 'GET' | 'HEAD',
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<Asked> {
    if (!this.#warm && this.#first !== undefined) await this.#first;
    else if (!this.#warm) {
      const asking = this.#ask(method, blobId, headers, attempt);
      this.#first = asking.then(
        () => void (this.#warm = true),
        () => undefined,
      );
      try {
        return await asking;
      } finally {
        this.#first = undefined;
      }
    }
    return this.#ask(method, blobId, headers, attempt);
  }

  #blobUrl(blobId: string): URL {
    const { host, repo } = this.#config;
    return new URL(`${this.#scheme}://${host}/v2/${repo}/blobs/sha256:${blobId}`);
  }

  /** One request, redirects followed: any status that is none. */
  async #ask(
    method: 'GET' | 'HEAD',
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<Asked> {
    const known = this.#redirects.get(blobId);
    if (known !== undefined && method === 'GET') {
      const answer = await this.#askTarget(blobId, known, headers, attempt);
      if (answer !== undefined) return { answer, url: known };
    }
    const origin = this.#blobUrl(blobId).origin;
    let url = this.#blobUrl(blobId);
    let answer = await this.#authenticated(method, url, headers, attempt);
    url = this.#blobUrl(blobId);
    for (let hops = 0; isRedirect(answer.status); hops++) {
      const target = this.#target(answer.header('location'), url);
      await answer.discard();
      if (target === undefined || hops >= MAX_REDIRECTS) {
        const why = target === undefined ? 'without a usable Location' : `after ${hops} redirects`;
        throw new BackendError(`${method} ${redactUrl(url)}: status ${answer.status} ${why}`);
      }
      url = target;
      answer =
        target.origin === origin
          ? await this.#authenticated(method, target, headers, attempt)
          : await this.#line.send(method, target, headers, attempt, false);
      if (method === 'GET' && target.origin !== origin && isSuccess(answer.status))
        this.#redirects.set(blobId, target);
    }
    return { answer, url };
  }

  /** Read from where the registry sent us before. @returns undefined when that is over */
  async #askTarget(
    blobId: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<HttpAnswer | undefined> {
    let answer: HttpAnswer;
    try {
      answer = await this.#line.send('GET', url, headers, attempt, false);
    } catch (error) {
      // the host may be gone for good: the next attempt asks the registry
      if (attempt.signal?.aborted !== true) this.#redirects.drop(blobId, url);
      throw error;
    }
    if (isSuccess(answer.status) || answer.status === 416) return answer;
    this.#redirects.drop(blobId, url);
    if (answer.status !== 401 && answer.status !== 403 && !isRedirect(answer.status)) {
      throw await answerError(answer, 'GET', url);
    }
    await answer.discard();
    return undefined;
  }

  #target(location: string, from: URL): URL | undefined {
    const url = URL.parse(location, from);
    if (location === '' || url === null || !/^https?:$/.test(url.protocol)) return undefined;
    const { blob_url_scheme: scheme, blob_redirected_host: host } = this.#config;
    if (scheme !== '') url.protocol = scheme;
    // `host` keeps the port that the registry named unless it has one itself
    if (host !== '') url.host = host;
    return url;
  }

  /** Blob-and-cache 21.10 "Authenticated request", with the way back to HTTP of "Start-up and fallback". */
  async #authenticated(
    method: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<HttpAnswer> {
    try {
      return await this.#login(method, url, headers, attempt);
    } catch (error) {
      const plain = error instanceof RegistryError && error.speaksHttp && this.#config.skip_verify;
      if (!plain || url.protocol !== 'https:') throw error;
      this.#line.logger.warn(`${url.host} does not speak HTTPS, going on with HTTP: ${messageOf(error)}`);
      this.#scheme = 'http';
      const insecure = new URL(url);
      insecure.protocol = 'http:';
      return this.#login(method, insecure, headers, attempt);
    }
  }

  async #login(
    method: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<HttpAnswer> {
    const send = (authorization: string | undefined): Promise<HttpAnswer> =>
      this.#line.send(
        method,
        url,
        authorization === undefined ? headers : { ...headers, authorization },
        attempt,
        true,
      );
    const sent = await this.#auth.current();
    let answer = await send(sent);
    if (answer.status !== 401) return answer;
    if (sent !== undefined) {
      // stale credentials can produce misleading challenges: ask with newer ones, or with none
      await answer.discard();
      this.#auth.refused(sent);
      const newer = await this.#auth.current();
      answer = await send(newer);
      if (answer.status !== 401) return answer;
      if (newer !== undefined) this.#auth.refused(newer);
    }
    const header = await this.#auth.answer(answer.header('www-authenticate'));
    if (header === undefined) return answer;
    await answer.discard();
    answer = await send(header);
    if (answer.status < 400) this.#auth.accepted(header);
    else if (answer.status === 401) this.#auth.refused(header);
    return answer;
  }
}

export class RegistryBackend extends HttpBackend {
  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(config: RegistryConfig, logger: Logger, seams: RegistrySeams = {}) {
    super({
      type: 'registry',
      name: `registry ${config.host}`,
      host: `${config.scheme}://${config.host}`,
      config,
      logger,
      seams,
      fallbackFrom: 500,
      origin: (line) => new RegistryOrigin(config, line),
    });
  }
}
