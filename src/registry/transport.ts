// Requests to one registry: authorised, redirected without leaking credentials, retried with patience, over HTTPS or,
// where the server speaks nothing else, HTTP. Source: OCI distribution spec 1.1; nydus-image-and-nydusify.md 8.1.
import { messageOf, RegistryError } from '../base/errors.ts';
import { MAX_REDIRECTS } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { silentLogger } from '../base/log.ts';
import { answerError } from './answer-error.ts';
import { Authorizer } from './authorizer.ts';
import type { Scopes } from './authorizer.ts';
import { anonymous } from './credentials.ts';
import type { CredentialSource } from './credentials.ts';
import { HttpClient } from './http.ts';
import type { HttpAnswer, RequestBody } from './http.ts';
import { redactUrl } from './redact.ts';
import { apiHost } from './reference.ts';
import { backoff, pause } from './retry.ts';

export interface TransportOptions {
  /** as references name it */
  host: string;
  credentials?: CredentialSource;
  /** accept any certificate, and HTTP where HTTPS is refused */
  insecure?: boolean;
  /** HTTP from the start */
  plainHttp?: boolean;
  /** PEM certificates trusted beside those of the system */
  ca?: readonly string[];
  /** trust what the system trusts, too */
  systemCa?: boolean;
  /** tries of one request, default 5 */
  attempts?: number;
  connectTimeoutMs?: number;
  headersTimeoutMs?: number;
  idleTimeoutMs?: number;
  userAgent?: string;
  /** the proxy of a URL, undefined = none */
  proxyFor?: (url: URL) => string | undefined;
  logger?: Logger;
  clock?: () => number;
  random?: () => number;
  /** first wait between tries, milliseconds; doubles up to 30 s */
  firstWaitMs?: number;
}

export interface TransportRequest {
  method: string;
  /** path and query on the registry, or an absolute URL that it gave */
  target: string | URL;
  scopes: Scopes;
  headers?: Record<string, string>;
  /** a new body for every try */
  body?: () => RequestBody;
  /** statuses that are no error beside 200 to 299 */
  accept?: readonly number[];
  /** false: send once, but for the answer to a challenge */
  retry?: boolean;
  signal?: AbortSignal | undefined;
}

/** An answer, and the URL that gave it. */
export interface Answered {
  answer: HttpAnswer;
  url: URL;
}

const LONGEST_WAIT_MS = 30_000;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/;

/** The way to one registry. Close it when done. */
export class RegistryTransport {
  readonly host: string;
  readonly authorizer: Authorizer;
  readonly #http: HttpClient;
  readonly #options: TransportOptions;
  readonly #logger: Logger;
  #scheme: 'http' | 'https';

  constructor(options: TransportOptions) {
    this.#options = options;
    this.host = options.host;
    this.#logger = options.logger ?? silentLogger;
    this.#scheme = options.plainHttp === true ? 'http' : 'https';
    this.#http = new HttpClient({
      skipVerify: options.insecure === true,
      ca: options.ca ?? [],
      systemCa: options.systemCa === true,
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      headersTimeoutMs: options.headersTimeoutMs ?? 60_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 30_000,
      userAgent: options.userAgent ?? 'nydus-ts',
      proxyFor: options.proxyFor,
    });
    this.authorizer = new Authorizer({
      host: options.host,
      http: this.#http,
      credentials: options.credentials ?? anonymous,
      clientId: 'nydus-ts',
      clock: options.clock ?? Date.now,
      logger: this.#logger,
    });
  }

  /** Scheme in use; it changes from https to http when the server speaks no TLS. */
  get scheme(): 'http' | 'https' {
    return this.#scheme;
  }

  get #origin(): string {
    return `${this.#scheme}://${apiHost(this.host)}`;
  }

  /** Absolute URL of a path, or of a `Location` seen at `base`. @throws RegistryError when it is no HTTP URL */
  resolve(target: string | URL, base?: URL): URL {
    const url = URL.parse(String(target), base ?? this.#origin);
    if (url !== null && /^https?:$/.test(url.protocol)) return url;
    const place = { method: 'GET', url: this.#origin, status: 0, codes: [] };
    throw new RegistryError(place, 'the registry named a place that is no HTTP URL');
  }

  /**
   * Send a request and judge its status.
   *
   * @throws RegistryError EIO  refused, or failed as often as it may; the reason of `signal` when that was aborted
   */
  async send(request: TransportRequest): Promise<Answered> {
    const attempts = request.retry === false ? 1 : (this.#options.attempts ?? 5);
    const { signal } = request;
    let fell = false;
    for (let failed = 1; ; failed++) {
      try {
        return await this.#once(request);
      } catch (error) {
        signal?.throwIfAborted();
        if (!fell && this.#fallsBack(error)) {
          fell = true;
          failed--;
          continue;
        }
        if (!(error instanceof RegistryError) || !error.retryable || failed >= attempts) throw error;
        const random = (this.#options.random ?? Math.random)();
        const wait =
          error.retryAfterMs ?? backoff(failed, this.#options.firstWaitMs ?? 500, LONGEST_WAIT_MS, random);
        this.#logger.debug(
          `${error.message}; attempt ${failed} of ${attempts}, again in ${Math.round(wait)} ms`,
        );
        await pause(wait, signal);
      }
    }
  }

  #fallsBack(error: unknown): boolean {
    if (!(error instanceof RegistryError) || !error.speaksHttp) return false;
    if (!error.answer.url.startsWith(`https://${apiHost(this.host)}/`)) return false;
    // another request found it out meanwhile
    if (this.#scheme === 'http') return true;
    const trusted = this.#options.insecure === true || LOOPBACK.test(this.host);
    // a refused connection says nothing about the port's protocol: only where the user asked for less security
    if (error.retryable && !trusted) return false;
    this.#scheme = 'http';
    // who can answer for the server could otherwise collect passwords
    this.authorizer.sendsCredentials = trusted;
    this.#logger.warn(`${this.host} does not speak HTTPS, going on with HTTP: ${messageOf(error)}`);
    return true;
  }

  async #once(request: TransportRequest): Promise<Answered> {
    const { method, scopes, signal, accept = [] } = request;
    let url = this.resolve(request.target);
    for (let hops = 0; ; hops++) {
      const answer = await this.#authorised(request, url, scopes, signal);
      const { status } = answer;
      if ((status >= 200 && status <= 299) || accept.includes(status)) return { answer, url };
      const location = answer.header('location');
      const follows =
        (method === 'GET' || method === 'HEAD' || status === 307 || status === 308) && location !== '';
      if (status < 300 || status > 399 || !follows) throw await this.#refusal(answer, method, url);
      await answer.discard();
      if (hops >= MAX_REDIRECTS) {
        const place = { method, url: redactUrl(url), status, codes: [] };
        throw new RegistryError(place, `more than ${MAX_REDIRECTS} redirects`);
      }
      url = this.resolve(location, url);
    }
  }

  async #refusal(answer: HttpAnswer, method: string, url: URL): Promise<RegistryError> {
    const error = await answerError(answer, method, url);
    if (error.status !== 401 || (await this.authorizer.hasCredentials())) return error;
    const why = this.authorizer.sendsCredentials
      ? ''
      : ' (credentials are not sent over plain HTTP: ask for it)';
    return new RegistryError(
      error.answer,
      `status 401, and there are no credentials for ${this.host}${why}`,
      {
        cause: error,
        hint: `docker login ${this.host}`,
      },
    );
  }

  async #authorised(
    request: TransportRequest,
    url: URL,
    scopes: Scopes,
    signal?: AbortSignal,
  ): Promise<HttpAnswer> {
    const { method, headers = {}, body } = request;
    const own = url.origin === new URL(this.#origin).origin;
    for (let tries = 0; ; tries++) {
      const authorization = own ? await this.authorizer.header(scopes, signal) : undefined;
      const answer = await this.#http.send({
        method,
        url,
        headers: authorization === undefined ? headers : { ...headers, authorization },
        body: body?.(),
        signal,
      });
      if (answer.status !== 401 || !own || tries >= 2) return answer;
      const again = await this.authorizer.challenged(
        answer.header('www-authenticate'),
        scopes,
        authorization,
      );
      if (!again || (tries === 1 && authorization !== undefined && request.retry === false)) return answer;
      await answer.discard();
    }
  }

  async close(): Promise<void> {
    await this.#http.close();
  }
}
