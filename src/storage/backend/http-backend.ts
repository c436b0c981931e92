// The request path that all HTTP backends share: retries, outages, proxy and mirrors, metrics. What differs is an origin:
// the URL of a blob and how a request for it is authorised. Source: blob-and-cache.md 19, 21.1 to 21.5.
import { BackendError, messageOf, NydusError, RegistryError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { answerError } from '../../registry/answer-error.ts';
import { HttpClient } from '../../registry/http.ts';
import type { HttpAnswer } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import { backoff, pause } from '../../registry/retry.ts';
import type { Backend, BackendSetting, BlobReader, ReadHow } from './backend.ts';
import { readCaFiles, type HttpConfig } from './http-config.ts';
import { readHedged } from './hedged-body.ts';
import { readRange, sizeByHead, type Ask, type Asked, type RangeTarget } from './http-range.ts';
import { HttpRoute, USER_AGENT } from './http-route.ts';
import { acquireHost, releaseHost, type HostState } from './host-state.ts';
import type { Link } from './link.ts';
import { BackendMeter } from './meter.ts';
import { isOutage, type OutageGate } from './outage.ts';

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
/** An attempt that brought this much counts as none: the link is slow, not broken. */
const PROGRESS = 64 * 1024;

/** What tests and the environment may replace. */
export interface HttpSeams {
  clock?: () => number;
  random?: () => number;
  env?: NodeJS.ProcessEnv;
}

/** One try of a request. */
export interface Attempt {
  prefetch: boolean;
  /** around the proxy */
  direct: boolean;
  /** the same request stalls: go over another mirror */
  second?: boolean;
  signal?: AbortSignal | undefined;
}

/** How an origin sends. */
export interface HttpLine {
  readonly http: HttpClient;
  readonly logger: Logger;
  readonly clock: () => number;
  readonly random: () => number;
  /**
   * Send one request over whatever is well; redirects and statuses are the caller's.
   *
   * @param own true for a URL of the origin itself: mirrors may answer it
   * @throws RegistryError EIO  nobody answered
   */
  send(
    method: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
    own: boolean,
  ): Promise<HttpAnswer>;
}

/** What one kind of HTTP backend adds. */
export interface HttpOrigin {
  /** Ask for a blob, with what authorises the request. Any status that is no redirect. */
  ask(
    method: 'GET' | 'HEAD',
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<Asked>;
  configure?(setting: BackendSetting, value: string): void;
  /** next step for a user who sees this error */
  hint?(error: unknown): string | undefined;
}

export interface HttpBackendOptions {
  /** `backend_type` of the metrics */
  type: string;
  /** what messages call the backend, such as `registry http://host` */
  name: string;
  /** scheme, host and port of the requests: backends of one host share what is known of it */
  host: string;
  config: HttpConfig;
  logger: Logger;
  seams: HttpSeams;
  origin: (line: HttpLine) => HttpOrigin;
  /** every request goes to this Unix socket */
  socketPath?: string | undefined;
  /** answers of a proxy from this status on are asked for again without it */
  fallbackFrom: 400 | 500;
}

/** The proxy asks for another way (blob-and-cache 19.1). */
class ProxySignal extends Error {
  readonly kind: 'rate limited' | 'forbidden';

  constructor(kind: 'rate limited' | 'forbidden', url: URL) {
    super(`GET ${redactUrl(url)}: the proxy says ${kind}`);
    this.kind = kind;
  }
}

interface Work<T> {
  what: string;
  prefetch: boolean;
  signal?: AbortSignal | undefined;
  /** bytes that have arrived so far */
  progress?: () => number;
  run: (attempt: Attempt) => Promise<T>;
}

class HttpReader implements BlobReader {
  readonly blobId: string;
  readonly fd = -1;
  readonly #backend: HttpBackend;
  #size: number | undefined;

  constructor(blobId: string, backend: HttpBackend) {
    this.blobId = blobId;
    this.#backend = backend;
  }

  get link(): Link {
    return this.#backend.link;
  }

  async size(): Promise<number> {
    this.#size ??= await this.#backend.sizeOf(this.blobId);
    return this.#size;
  }

  async read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array> {
    signal?.throwIfAborted();
    const bytes = how?.into?.subarray(0, length) ?? new Uint8Array(Math.max(0, length));
    const target: RangeTarget = { start: offset, bytes, done: 0, progress: how?.progress };
    if (length > 0) await this.#backend.fill(this.blobId, target, signal, how);
    return bytes.subarray(0, target.done);
  }

  note(_offset: number, got: number, millis: number): void {
    this.#backend.meter.record(got, millis);
  }

  close(): void {
    this.#backend.forget(this.blobId);
  }
}

export class HttpBackend implements Backend {
  readonly type: string;
  readonly meter = new BackendMeter();
  readonly link: Link;
  readonly #options: HttpBackendOptions;
  readonly #random: () => number;
  readonly #clock: () => number;
  readonly #http: HttpClient;
  readonly #route: HttpRoute;
  readonly #gate: OutageGate;
  readonly #host: HostState;
  readonly #hostKey: string;
  readonly #origin: HttpOrigin;
  readonly #readers = new Map<string, HttpReader>();
  readonly #closing = new AbortController();
  #nextDirect = 0;

  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(options: HttpBackendOptions) {
    const { config, logger, seams, type, name } = options;
    this.#options = options;
    this.type = type;
    this.#clock = seams.clock ?? Date.now;
    this.#random = seams.random ?? Math.random;
    const timeoutMs = config.timeout * 1000;
    this.#http = new HttpClient({
      skipVerify: config.skip_verify,
      ca: readCaFiles(config.ca_cert_files),
      connectTimeoutMs: config.connect_timeout * 1000,
      headersTimeoutMs: timeoutMs,
      idleTimeoutMs: timeoutMs,
      userAgent: USER_AGENT,
      socketPath: options.socketPath,
    });
    this.#route = new HttpRoute({
      http: this.#http,
      config,
      fallbackFrom: options.fallbackFrom,
      logger,
      clock: this.#clock,
      env: seams.env ?? process.env,
    });
    const mirrors = config.mirrors.map(({ host }) => host);
    this.#hostKey = JSON.stringify([options.host, config.proxy?.url ?? '', mirrors]);
    this.#host = acquireHost(this.#hostKey, name, logger);
    this.#gate = this.#host.gate;
    this.link = this.#host.link;
    this.meter.hedge = () => this.#host.hedge.metrics();
    this.meter.outage = () => this.#gate.metrics();
    this.#origin = options.origin({
      http: this.#http,
      logger,
      clock: this.#clock,
      random: this.#random,
      send: (method, url, headers, attempt, own) => this.#send(method, url, headers, attempt, own),
    });
  }

  open(blobId: string): Promise<BlobReader> {
    // it becomes part of a URL and comes from the image
    if (!/^[A-Za-z0-9._-]{1,255}$/.test(blobId) || blobId === '.' || blobId === '..') {
      return Promise.reject(new BackendError(`blob id ${JSON.stringify(blobId)} cannot be asked for`));
    }
    let reader = this.#readers.get(blobId);
    if (reader === undefined) {
      reader = new HttpReader(blobId, this);
      this.#readers.set(blobId, reader);
    }
    return Promise.resolve(reader);
  }

  /** A reader is used no longer. */
  forget(blobId: string): void {
    this.#readers.delete(blobId);
  }

  get isDown(): boolean {
    return this.#gate.isDown;
  }

  configure(setting: BackendSetting, value: string): void {
    if (setting === 'proxy_url') this.#route.setProxyUrl(value);
    this.#origin.configure?.(setting, value);
  }

  /** Bytes of a blob. @throws BackendError EIO */
  sizeOf(blobId: string): Promise<number> {
    return this.#retry({
      what: `cannot find the size of blob ${blobId}`,
      prefetch: false,
      run: (attempt) => sizeByHead((method, headers) => this.#origin.ask(method, blobId, headers, attempt)),
    });
  }

  /**
   * Fill a range; it stays short only where the blob ends.
   *
   * @throws BackendError EIO, the reason of `signal` when that was aborted
   */
  fill(
    blobId: string,
    target: RangeTarget,
    signal: AbortSignal | undefined,
    how: ReadHow | undefined,
  ): Promise<void> {
    const { start, bytes } = target;
    return this.#retry({
      what: `cannot read bytes ${start} to ${start + bytes.length} of blob ${blobId}`,
      prefetch: how?.prefetch === true,
      signal,
      progress: () => target.done,
      run: async (attempt) => {
        const started = performance.now();
        let got = -1;
        const before = target.done;
        const transfer = this.link.start(bytes.length - before);
        const { progress } = target;
        target.progress = (done) => {
          transfer.progress(done - before);
          progress?.(done);
        };
        try {
          await this.#readRange(blobId, target, attempt, () => transfer.answered());
          got = target.done;
        } finally {
          target.progress = progress;
          transfer.end(got >= 0);
          const millis = performance.now() - started;
          this.meter.record(got, millis);
          how?.counted?.record(got, millis);
          if (millis > (bytes.length > LARGE ? SLOW_LARGE_MS : SLOW_MS)) {
            this.#options.logger.warn(
              `slow request: ${bytes.length} bytes of blob ${blobId} in ${Math.round(millis)} ms`,
            );
          }
        }
      },
    });
  }

  /** One attempt, with a second request for what stalls: before the headers, or in the body. */
  #readRange(blobId: string, target: RangeTarget, attempt: Attempt, answered: () => void): Promise<void> {
    const askWith =
      (one: Attempt): Ask =>
      (method, headers) =>
        this.#askRange(method, blobId, headers, one);
    if (attempt.direct || this.#gate.isDown) return readRange(askWith(attempt), target, { answered });
    return readHedged(target, {
      hedge: this.#host.hedge,
      link: this.link,
      ask: (signal, second) => askWith({ ...attempt, second, signal }),
      // what nobody waits for leaves one for those who wait
      reserve: attempt.prefetch ? 1 : 0,
      signal: attempt.signal ?? this.#closing.signal,
      answered,
    });
  }

  /** Ask for a range; twice when nothing comes and somebody waits for it. */
  #askRange(
    method: 'GET' | 'HEAD',
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<Asked> {
    const origin = this.#origin;
    if (attempt.prefetch || attempt.direct || attempt.second === true || this.#gate.isDown)
      return origin.ask(method, blobId, headers, attempt);
    return this.#host.hedge.run(
      (signal, second) => origin.ask(method, blobId, headers, { ...attempt, second, signal }),
      ({ answer }) => answer.status < 500 && answer.status !== 429,
      ({ answer }) => void answer.discard(),
      attempt.signal,
    );
  }

  /** Attempts until it works, the error is final, or the backend was down for too long. */
  async #retry<T>(work: Work<T>): Promise<T> {
    const { config } = this.#options;
    const until = performance.now() + config.outage_wait * 1000;
    for (;;) {
      const urgent = !work.prefetch;
      const turn = await this.#gate
        .enter({ until, urgent, signal: this.#endOf(work) })
        .catch((error: unknown) => {
          work.signal?.throwIfAborted();
          throw this.#wrap(work.what, error);
        });
      try {
        const value = await this.#attempts(work, turn.probing && config.outage_wait > 0 ? 1 : undefined);
        this.#gate.answered(turn);
        return value;
      } catch (error) {
        if (work.signal?.aborted === true || this.#closing.signal.aborted) this.#gate.dropped(turn);
        else if (isOutage(error)) this.#gate.failed(turn, error);
        else this.#gate.answered(turn);
        work.signal?.throwIfAborted();
        if (!isOutage(error) || performance.now() >= until || this.#closing.signal.aborted)
          throw this.#wrap(work.what, error);
      }
    }
  }

  /** What ends a wait for the host, which other backends may go on to wait for. */
  #endOf({ signal }: Pick<Work<unknown>, 'signal'>): AbortSignal | undefined {
    if (!this.#gate.isDown) return signal;
    return signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
  }

  async #attempts<T>(work: Work<T>, limit: number | undefined): Promise<T> {
    const { signal, prefetch, what } = work;
    const { config, logger } = this.#options;
    const attempts = limit ?? 1 + (prefetch ? PREFETCH_RETRIES : Math.max(RETRIES, config.retry_limit));
    let direct = false;
    for (let failed = 1; ; failed++) {
      const before = work.progress?.() ?? 0;
      try {
        return await work.run({ prefetch, direct, signal });
      } catch (error) {
        signal?.throwIfAborted();
        if ((work.progress?.() ?? 0) - before >= PROGRESS) failed = 0;
        const final = failed >= attempts || !this.#mayRetry(error, prefetch) || this.#closing.signal.aborted;
        // with an outage policy the others wait for the one who probes
        const others = limit === undefined && config.outage_wait > 0 && this.#gate.isDown && isOutage(error);
        if (final || others) throw error;
        logger.debug(`${what}: attempt ${failed} of ${attempts}: ${messageOf(error)}`);
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
    if (asked !== undefined) return Math.min(asked, (this.#options.config.timeout || 5) * 1000);
    if (prefetch) return 100 + this.#random() * 900;
    return failed <= 1 ? 0 : backoff(failed - 1, FIRST_WAIT_MS, LONGEST_WAIT_MS, this.#random());
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
    const hint = this.#origin.hint?.(error) ?? inner;
    return new BackendError(`${what}: ${messageOf(error)}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
      retryable: this.#mayRetry(error, false),
    });
  }

  async #send(
    method: string,
    url: URL,
    headers: Record<string, string>,
    attempt: Attempt,
    own: boolean,
  ): Promise<HttpAnswer> {
    const { prefetch, direct, signal, second = false } = attempt;
    this.#closing.signal.throwIfAborted();
    const answer = await this.#route.send({
      method,
      url,
      headers,
      prefetch,
      direct,
      mirrored: own,
      second,
      // what nobody can cancel ends with the backend
      signal: signal ?? this.#closing.signal,
    });
    if (answer.header('x-dragonfly-error-type') === 'proxy' && answer.status >= 400) {
      if (answer.status !== 429 && answer.status !== 403) throw await answerError(answer, method, url);
      await answer.discard();
      throw new ProxySignal(answer.status === 429 ? 'rate limited' : 'forbidden', url);
    }
    return answer;
  }

  giveUp(): void {
    const reason = new BackendError('the backend is closed');
    this.#closing.abort(reason);
  }

  async close(): Promise<void> {
    this.giveUp();
    this.#route.close();
    this.#readers.clear();
    releaseHost(this.#hostKey, this.#host);
    await this.#http.close();
  }
}
