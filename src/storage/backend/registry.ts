// Blobs of an OCI registry, read by ranges. Source: blob-and-cache.md 19, 21.1 to 21.5, 21.10.
import { BackendError, messageOf, NydusError, RegistryError } from '../../base/errors.ts';
import { MAX_BLOB_COMPRESSED, MAX_REDIRECTS } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { answerError } from '../../registry/answer-error.ts';
import { HttpClient } from '../../registry/http.ts';
import type { HttpAnswer } from '../../registry/http.ts';
import { parseContentRange, parseUnsatisfied } from '../../registry/ranges.ts';
import { redactUrl } from '../../registry/redact.ts';
import { backoff, pause } from '../../registry/retry.ts';
import type { Backend, BackendSetting, BlobReader, ReadHow } from './backend.ts';
import { HttpRoute, USER_AGENT } from './http-route.ts';
import { BackendMeter } from './meter.ts';
import { RegistryAuth } from './registry-auth.ts';
import { readCaFiles } from './registry-config.ts';
import type { RegistryConfig } from './registry-config.ts';
import { RedirectCache } from './registry-redirects.ts';

/** Retries after the first failure (blob-and-cache 19); `retry_limit` may raise the first. */
const RETRIES = 3;
const PREFETCH_RETRIES = 1;
/** Waits between retries of a read that somebody waits for; the first retry comes at once. */
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2000;
/** Reads that go around the proxy, one in this time (blob-and-cache 19). */
const DIRECT_INTERVAL_MS = 1000;
/** "Slow request" is logged above these (blob-and-cache 19). */
const SLOW_MS = 250;
const SLOW_LARGE_MS = 1000;
const LARGE = 4 * 1024 * 1024;

/** What tests and the environment may replace. */
export interface RegistrySeams {
  clock?: () => number;
  random?: () => number;
  env?: NodeJS.ProcessEnv;
}

interface Attempt {
  prefetch: boolean;
  direct: boolean;
  signal?: AbortSignal | undefined;
}

interface Range {
  start: number;
  /** exclusive */
  end: number;
}

/** The proxy asks for another way (blob-and-cache 19.1). */
class ProxySignal extends Error {
  readonly kind: 'rate limited' | 'forbidden';

  constructor(kind: 'rate limited' | 'forbidden', url: URL) {
    super(`GET ${redactUrl(url)}: the proxy says ${kind}`);
    this.kind = kind;
  }
}

const isRedirect = (status: number): boolean => status >= 300 && status <= 399;
const isSuccess = (status: number): boolean => status >= 200 && status <= 299;

class RegistryReader implements BlobReader {
  readonly blobId: string;
  readonly fd = -1;
  readonly #backend: RegistryBackend;
  #size: number | undefined;

  constructor(blobId: string, backend: RegistryBackend) {
    this.blobId = blobId;
    this.#backend = backend;
  }

  async size(): Promise<number> {
    this.#size ??= await this.#backend.sizeOf(this.blobId);
    return this.#size;
  }

  read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array> {
    return this.#backend.readRange(this.blobId, { start: offset, end: offset + length }, signal, how);
  }

  note(_offset: number, got: number, millis: number): void {
    this.#backend.meter.record(got, millis);
  }

  close(): void {}
}

export class RegistryBackend implements Backend {
  readonly type = 'registry';
  readonly meter = new BackendMeter();
  readonly #config: RegistryConfig;
  readonly #logger: Logger;
  readonly #clock: () => number;
  readonly #random: () => number;
  readonly #http: HttpClient;
  readonly #route: HttpRoute;
  readonly #auth: RegistryAuth;
  readonly #redirects: RedirectCache;
  readonly #readers = new Map<string, RegistryReader>();
  readonly #closing = new AbortController();
  #scheme: string;
  /** the first request runs alone, so that the others find a token */
  #first: Promise<void> | undefined;
  #warm = false;
  #nextDirect = 0;

  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(config: RegistryConfig, logger: Logger, seams: RegistrySeams = {}) {
    this.#config = config;
    this.#logger = logger;
    this.#clock = seams.clock ?? Date.now;
    this.#random = seams.random ?? Math.random;
    this.#scheme = config.scheme === 'http' ? 'http' : 'https';
    const timeoutMs = config.timeout * 1000;
    this.#http = new HttpClient({
      skipVerify: config.skip_verify,
      ca: readCaFiles(config.ca_cert_files),
      connectTimeoutMs: config.connect_timeout * 1000,
      headersTimeoutMs: timeoutMs,
      idleTimeoutMs: timeoutMs,
      userAgent: USER_AGENT,
    });
    const common = { http: this.#http, logger, clock: this.#clock, timeoutSeconds: config.timeout };
    this.#route = new HttpRoute({
      ...common,
      proxy: config.proxy,
      mirrors: config.mirrors,
      connectTimeoutSeconds: config.connect_timeout,
      env: seams.env ?? process.env,
    });
    this.#auth = new RegistryAuth({
      ...common,
      auth: config.auth,
      registryToken: config.registry_token,
      insecure: config.scheme === 'http' || config.skip_verify,
      random: this.#random,
    });
    this.#redirects = new RedirectCache(this.#clock);
  }

  open(blobId: string): Promise<BlobReader> {
    // it becomes part of a URL and comes from the image
    if (!/^[A-Za-z0-9._-]{1,255}$/.test(blobId)) {
      return Promise.reject(new BackendError(`blob id ${JSON.stringify(blobId)} cannot be asked for`));
    }
    let reader = this.#readers.get(blobId);
    if (reader === undefined) {
      reader = new RegistryReader(blobId, this);
      this.#readers.set(blobId, reader);
    }
    return Promise.resolve(reader);
  }

  configure(setting: BackendSetting, value: string): void {
    if (setting === 'registry_auth') this.#auth.setCredentials(value);
    if (setting === 'proxy_url') this.#route.setProxyUrl(value);
  }

  /** Bytes of a blob. @throws BackendError EIO */
  sizeOf(blobId: string): Promise<number> {
    return this.#retry(`cannot find the size of blob ${blobId}`, { prefetch: false }, (attempt) =>
      this.#sizeOnce(blobId, attempt),
    );
  }

  /** @throws BackendError EIO, the reason of `signal` when that was aborted */
  async readRange(
    blobId: string,
    range: Range,
    signal?: AbortSignal,
    how: ReadHow = {},
  ): Promise<Uint8Array> {
    signal?.throwIfAborted();
    if (range.end <= range.start) return new Uint8Array(0);
    const what = `cannot read bytes ${range.start} to ${range.end} of blob ${blobId}`;
    return this.#retry(what, { prefetch: how.prefetch === true, signal }, async (attempt) => {
      const started = performance.now();
      let got = -1;
      try {
        const bytes = await this.#readOnce(blobId, range, attempt);
        got = bytes.length;
        return bytes;
      } finally {
        const millis = performance.now() - started;
        this.meter.record(got, millis);
        if (millis > (range.end - range.start > LARGE ? SLOW_LARGE_MS : SLOW_MS)) {
          this.#logger.warn(
            `slow request: ${range.end - range.start} bytes of blob ${blobId} in ${Math.round(millis)} ms`,
          );
        }
      }
    });
  }

  async #retry<T>(
    what: string,
    how: { prefetch: boolean; signal?: AbortSignal | undefined },
    work: (attempt: Attempt) => Promise<T>,
  ): Promise<T> {
    const { signal, prefetch } = how;
    const attempts = 1 + (prefetch ? PREFETCH_RETRIES : Math.max(RETRIES, this.#config.retry_limit));
    let direct = false;
    for (let failed = 1; ; failed++) {
      try {
        const attempt = { prefetch, direct, signal };
        return await this.#inTurn(() => work(attempt));
      } catch (error) {
        signal?.throwIfAborted();
        const final = failed >= attempts || !this.#mayRetry(error, prefetch) || this.#closing.signal.aborted;
        if (final) throw this.#wrap(what, error);
        this.#logger.debug(`${what}: attempt ${failed} of ${attempts}: ${messageOf(error)}`);
        direct =
          !prefetch && this.#route.hasProxy && (error instanceof ProxySignal || failed === attempts - 1);
        await pause(
          direct ? this.#directWait() : this.#wait(error, failed, prefetch),
          signal ?? this.#closing.signal,
        );
      }
    }
  }

  #mayRetry(error: unknown, prefetch: boolean): boolean {
    if (error instanceof ProxySignal) return error.kind === 'rate limited' && !prefetch;
    if (error instanceof RegistryError || error instanceof BackendError) return error.retryable;
    return !(error instanceof NydusError);
  }

  #wait(error: unknown, failed: number, prefetch: boolean): number {
    const asked = error instanceof RegistryError ? error.retryAfterMs : undefined;
    // a reader waits: no longer than one request may take
    if (asked !== undefined) return Math.min(asked, (this.#config.timeout || 5) * 1000);
    if (prefetch) return 100 + this.#random() * 900;
    return failed === 1 ? 0 : backoff(failed - 1, FIRST_WAIT_MS, LONGEST_WAIT_MS, this.#random());
  }

  /** Milliseconds until the next read may go around the proxy. */
  #directWait(): number {
    const now = this.#clock();
    const at = Math.max(now, this.#nextDirect);
    this.#nextDirect = at + DIRECT_INTERVAL_MS;
    return at - now;
  }

  #wrap(what: string, error: unknown): Error {
    const inner = error instanceof NydusError ? error.hint : undefined;
    const noCredentials =
      error instanceof RegistryError && error.status === 401 && !this.#auth.hasCredentials;
    const hint = noCredentials
      ? 'the registry wants credentials: set backend.registry.auth or IMAGE_PULL_AUTH'
      : inner;
    return new BackendError(`${what}: ${messageOf(error)}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
      retryable: this.#mayRetry(error, false),
    });
  }

  /** Until one request succeeded, one runs alone and those that come meanwhile wait for its end. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#warm) return work();
    if (this.#first !== undefined) {
      await this.#first;
      return work();
    }
    const running = work();
    this.#first = running.then(
      () => void (this.#warm = true),
      () => undefined,
    );
    try {
      return await running;
    } finally {
      this.#first = undefined;
    }
  }

  #blobUrl(blobId: string): URL {
    const { host, repo } = this.#config;
    return new URL(`${this.#scheme}://${host}/v2/${repo}/blobs/sha256:${blobId}`);
  }

  async #sizeOnce(blobId: string, attempt: Attempt): Promise<number> {
    const { answer, url } = await this.#ask('HEAD', blobId, {}, attempt);
    await answer.discard();
    if (isSuccess(answer.status) && answer.contentLength !== undefined) return answer.contentLength;
    if (answer.status === 404) throw await answerError(answer, 'HEAD', url);
    // signed targets may take GET only, and some answers lack the length: ask for the first byte
    const first = await this.#ask('GET', blobId, { range: 'bytes=0-0' }, attempt);
    const { total } = parseContentRange(first.answer.header('content-range')) ?? {};
    if (first.answer.status === 206 && total !== undefined) {
      await first.answer.discard();
      return total;
    }
    if (first.answer.status >= 400) throw await answerError(first.answer, 'GET', first.url);
    await first.answer.discard();
    throw new BackendError(`HEAD ${redactUrl(url)}: status ${answer.status} without a length`);
  }

  async #readOnce(blobId: string, range: Range, attempt: Attempt): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let { start } = range;
    // a server may cut a range short as long as it says so
    while (start < range.end) {
      const { bytes, total } = await this.#readPart(blobId, { start, end: range.end }, attempt);
      if (bytes.length > 0) parts.push(bytes);
      start += bytes.length;
      if (bytes.length === 0 || (total !== undefined && start >= total)) break;
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  async #readPart(
    blobId: string,
    range: Range,
    attempt: Attempt,
  ): Promise<{ bytes: Uint8Array; total: number | undefined }> {
    const { start, end } = range;
    const { answer, url } = await this.#ask('GET', blobId, { range: `bytes=${start}-${end - 1}` }, attempt);
    const refuse = async (problem: string): Promise<BackendError> => {
      await answer.discard();
      return new BackendError(`GET ${redactUrl(url)}: ${problem}`, { retryable: true });
    };
    if (answer.status === 416) {
      const total = parseUnsatisfied(answer.header('content-range'));
      if (total === undefined || start < total) throw await answerError(answer, 'GET', url);
      await answer.discard();
      return { bytes: new Uint8Array(0), total };
    }
    if (answer.status >= 400) throw await answerError(answer, 'GET', url);
    if (answer.status === 200) {
      const whole = answer.contentLength;
      if (start === 0 && whole !== undefined && whole <= end) {
        return { bytes: await this.#fill(answer, whole, url), total: whole };
      }
      throw await refuse(
        `status 200 with ${whole ?? 'unknown'} bytes, bytes ${start} to ${end} were asked for`,
      );
    }
    const got = parseContentRange(answer.header('content-range'));
    if (answer.status !== 206 || got === undefined || got.start !== start || got.end > end) {
      const shown = JSON.stringify(answer.header('content-range').slice(0, 80));
      throw await refuse(
        `status ${answer.status} with Content-Range ${shown}, bytes ${start} to ${end} were asked for`,
      );
    }
    return { bytes: await this.#fill(answer, got.end - got.start, url), total: got.total };
  }

  /** Body of exactly `length` bytes. */
  async #fill(answer: HttpAnswer, length: number, url: URL): Promise<Uint8Array> {
    const wrong = (problem: string): BackendError =>
      new BackendError(
        `GET ${redactUrl(url)}: the body has ${problem} than the ${length} bytes it announced`,
        {
          retryable: true,
        },
      );
    if (length > MAX_BLOB_COMPRESSED) throw wrong('no more');
    const out = new Uint8Array(length);
    let done = 0;
    for await (const piece of answer.body()) {
      if (done + piece.length > length) throw wrong('more');
      out.set(piece, done);
      done += piece.length;
    }
    if (done < length) throw wrong(`less (${done})`);
    return out;
  }

  /** One request, redirects followed: any status that is none. */
  async #ask(
    method: string,
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<{ answer: HttpAnswer; url: URL }> {
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
          : await this.#send(method, target, headers, attempt, false);
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
      answer = await this.#send('GET', url, headers, attempt, false);
    } catch (error) {
      // the host may be gone for good: the next attempt asks the registry
      this.#redirects.drop(blobId, url);
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

  async #send(
    method: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
    mirrored: boolean,
  ): Promise<HttpAnswer> {
    const { prefetch, direct, signal } = attempt;
    this.#closing.signal.throwIfAborted();
    const answer = await this.#route.send({ method, url, headers, prefetch, direct, mirrored, signal });
    if (answer.header('x-dragonfly-error-type') === 'proxy' && answer.status >= 400) {
      if (answer.status !== 429 && answer.status !== 403) throw await answerError(answer, method, url);
      await answer.discard();
      throw new ProxySignal(answer.status === 429 ? 'rate limited' : 'forbidden', url);
    }
    return answer;
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
      this.#logger.warn(`${url.host} does not speak HTTPS, going on with HTTP: ${messageOf(error)}`);
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
      this.#send(
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

  async close(): Promise<void> {
    this.#closing.abort(new BackendError('the backend is closed'));
    this.#route.close();
    this.#readers.clear();
    await this.#http.close();
  }
}
