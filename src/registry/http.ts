// One HTTP request with limits of time and size, over pools of connections. undici is loaded at the first request:
// it costs 65 ms that a run without a registry does not need. Failures become RegistryErrors that say how far it got.
import type { SecureContext } from 'node:tls';
import type { Agent, Dispatcher } from 'undici';
import { FormatError, messageOf, NydusError, RegistryError } from '../base/errors.ts';
import { redactUrl } from './redact.ts';

/** Body of a request. An iterable is read once. */
export type RequestBody = Uint8Array | string | AsyncIterable<Uint8Array>;

export interface HttpRequest {
  method: string;
  url: URL;
  headers?: Record<string, string>;
  body?: RequestBody | undefined;
  signal?: AbortSignal | undefined;
  /** whole request including its body, 0 = no limit */
  totalTimeoutMs?: number;
  /** URL of an HTTP proxy; undefined = what the client's options say, else direct */
  proxy?: string | undefined;
}

export interface HttpOptions {
  skipVerify?: boolean;
  /** PEM certificates that are trusted beside those that come with Node */
  ca?: readonly string[];
  /** trust what the system trusts, too: its store, or what SSL_CERT_FILE and SSL_CERT_DIR name */
  systemCa?: boolean;
  /** until a connection stands, 0 = no limit */
  connectTimeoutMs?: number;
  /** from the request to the headers of the answer, 0 = no limit */
  headersTimeoutMs?: number;
  /** between two pieces of a body, 0 = no limit */
  idleTimeoutMs?: number;
  /** connections per host */
  connections?: number;
  userAgent?: string;
  /** every request goes to this Unix socket */
  socketPath?: string | undefined;
  /** proxy of requests that name none */
  proxyFor?: ((url: URL) => string | undefined) | undefined;
}

const DEFAULTS: Required<HttpOptions> = {
  socketPath: undefined,
  proxyFor: undefined,
  skipVerify: false,
  ca: [],
  systemCa: false,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  idleTimeoutMs: 30_000,
  connections: 64,
  userAgent: 'nydus-ts',
};

const CERTIFICATE =
  /^(CERT_|ERR_TLS_CERT|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET_ISSUER))/;

interface Failure {
  problem: string;
  hint?: string;
  retryable: boolean;
  speaksHttp: boolean;
}

function codeOf(error: unknown): string {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : '';
}

/** The error that tells most: undici wraps what the socket said. */
function innermost(error: unknown): unknown {
  for (let at = error; at instanceof Error;) {
    const first: unknown = at instanceof AggregateError ? at.errors[0] : undefined;
    const next: unknown = first ?? at.cause;
    if (!(next instanceof Error)) return at;
    at = next;
  }
  return error;
}

function seconds(ms: number): string {
  return `${ms / 1000} s`;
}

function explain(error: unknown, secure: boolean, options: Required<HttpOptions>, got: number): Failure {
  const inner = innermost(error);
  const code = codeOf(inner) || codeOf(error);
  const failure = (problem: string, hint?: string): Failure => ({
    problem,
    ...(hint === undefined ? {} : { hint }),
    retryable: true,
    speaksHttp: false,
  });
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT')
    return failure(
      `no connection within ${seconds(options.connectTimeoutMs)}`,
      'check the host, the port and the firewall',
    );
  if (code === 'UND_ERR_HEADERS_TIMEOUT')
    return failure(
      `connected, but no answer within ${seconds(options.headersTimeoutMs)}: the server is slow or stuck`,
    );
  if (code === 'UND_ERR_BODY_TIMEOUT')
    return failure(`the answer stalled for ${seconds(options.idleTimeoutMs)} after ${got} bytes`);
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return failure(
      'the host name cannot be resolved',
      'check the host of the reference and the name service',
    );
  if (code === 'ECONNREFUSED')
    return {
      ...failure('connection refused', 'check the port and that the registry runs'),
      speaksHttp: secure,
    };
  const text = messageOf(inner);
  if (CERTIFICATE.test(code)) {
    return {
      ...failure(
        `the TLS certificate is not trusted (${code})`,
        'name the CA certificate (nydusify: SSL_CERT_FILE, nydusd: ca_cert_files), or skip verification',
      ),
      retryable: false,
    };
  }
  if (secure && /wrong version number|ssl|packet length too long/i.test(`${code} ${text}`)) {
    return {
      ...failure(`no TLS: ${text}`, 'the server seems to answer plain HTTP: ask for http'),
      retryable: false,
      speaksHttp: true,
    };
  }
  return failure(`the connection broke after ${got} bytes of the answer: ${text}`);
}

/** Named exports are not there once undici is bundled: it is CommonJS. */
async function loadUndici(): Promise<typeof import('undici').default> {
  return (await import('undici')).default;
}

/** The answer to one request. The body is read once, or discarded. */
export class HttpAnswer {
  readonly status: number;
  readonly #headers: Record<string, string | string[] | undefined>;
  readonly #body: Dispatcher.ResponseData['body'];
  readonly #done: () => void;
  readonly #fail: (error: unknown, got: number) => unknown;

  constructor(
    data: Dispatcher.ResponseData,
    done: () => void,
    fail: (error: unknown, got: number) => unknown,
  ) {
    this.status = data.statusCode;
    this.#headers = data.headers;
    this.#body = data.body;
    this.#done = done;
    this.#fail = fail;
  }

  /** Value of a header, '' when absent. @param name lower case */
  header(name: string): string {
    const value = this.#headers[name];
    return Array.isArray(value) ? value.join(', ') : (value ?? '');
  }

  /** Content-Length, or undefined when it is absent or no number. */
  get contentLength(): number | undefined {
    const text = this.header('content-length');
    const value = /^[0-9]+$/.test(text) ? Number(text) : undefined;
    return Number.isSafeInteger(value) ? value : undefined;
  }

  /** Pieces of the body. @throws RegistryError EIO  the connection broke or a limit of time passed */
  async *body(): AsyncGenerator<Uint8Array> {
    let got = 0;
    try {
      for await (const piece of this.#body) {
        got += (piece as Uint8Array).length;
        yield piece as Uint8Array;
      }
    } catch (error) {
      throw this.#fail(error, got);
    } finally {
      this.#done();
      this.#body.destroy();
    }
  }

  /** Whole body. @throws RegistryError EIO  it is longer than `limit` bytes */
  async bytes(limit: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    let size = 0;
    for await (const piece of this.body()) {
      size += piece.length;
      if (size > limit)
        throw new FormatError({ struct: 'answer' }, `is longer than the limit of ${limit} bytes`);
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  /** Give the connection back: small rests are read, large ones cost the connection. */
  async discard(): Promise<void> {
    try {
      await this.#body.dump({ limit: 64 * 1024 });
    } catch {
      // the connection is gone: nothing to give back
    }
    this.#done();
  }
}

/** Pools of connections with one set of TLS and time options. */
export class HttpClient {
  readonly #options: Required<HttpOptions>;
  /** by whether they speak TLS: certificates are read for those alone */
  readonly #direct = new Map<boolean, Promise<Agent>>();
  readonly #tunnels = new Map<string, Promise<Dispatcher>>();
  #context: SecureContext | undefined;
  #closed = false;

  constructor(options: HttpOptions = {}) {
    this.#options = { ...DEFAULTS, ...options };
  }

  /**
   * Send one request. Redirects are not followed, statuses are not judged.
   *
   * @throws RegistryError EIO  no answer; the reason of `signal` when that was aborted
   */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    request.signal?.throwIfAborted();
    const { url, method, body, totalTimeoutMs = 0 } = request;
    const abort = new AbortController();
    const onAbort = (): void => abort.abort(request.signal?.reason);
    request.signal?.addEventListener('abort', onAbort, { once: true });
    const late = new Error(`not complete within ${seconds(totalTimeoutMs)}`);
    const timer = totalTimeoutMs > 0 ? setTimeout(() => abort.abort(late), totalTimeoutMs) : undefined;
    let answered = false;
    const done = (): void => {
      clearTimeout(timer);
      request.signal?.removeEventListener('abort', onAbort);
    };
    const fail = (error: unknown, got: number): unknown => {
      done();
      if (request.signal?.aborted === true) return request.signal.reason;
      // the source of the request's own body failed
      if (error instanceof NydusError) return error;
      const timedOut = abort.signal.aborted;
      const stage = answered ? `${got} bytes of the answer came` : 'no answer came';
      const failure = timedOut
        ? { problem: `${late.message}: ${stage}`, retryable: true, speaksHttp: false }
        : explain(error, url.protocol === 'https:', this.#options, got);
      return new RegistryError({ method, url: redactUrl(url), status: 0, codes: [] }, failure.problem, {
        ...failure,
        cause: error,
      });
    };
    try {
      const data = await this.#dispatch(request, {
        method: method as Dispatcher.HttpMethod,
        headers: { accept: '*/*', 'user-agent': this.#options.userAgent, ...request.headers },
        body: body === undefined ? null : (body as Buffer),
        signal: abort.signal,
        headersTimeout: this.#options.headersTimeoutMs,
        bodyTimeout: this.#options.idleTimeoutMs,
      });
      answered = true;
      return new HttpAnswer(data, done, fail);
    } catch (error) {
      throw fail(error, 0);
    }
  }

  async #dispatch(
    request: HttpRequest,
    options: Omit<Dispatcher.RequestOptions, 'origin' | 'path'>,
  ): Promise<Dispatcher.ResponseData> {
    const { url } = request;
    const proxy = request.proxy ?? this.#options.proxyFor?.(url);
    const path = url.pathname + url.search;
    if (proxy === undefined)
      return (await this.#agent(url.protocol)).request({ ...options, origin: url.origin, path });
    if (url.protocol === 'https:') {
      return (await this.#tunnel(proxy)).request({ ...options, origin: url.origin, path });
    }
    // absolute form through the pool of the proxy: undici's own proxy agent has one connection per host
    const at = new URL(proxy);
    const headers: Record<string, string> = {
      ...(options.headers as Record<string, string>),
      host: url.host,
    };
    if (at.username !== '') {
      const pair = `${decodeURIComponent(at.username)}:${decodeURIComponent(at.password)}`;
      headers['proxy-authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
    }
    return (await this.#agent(at.protocol)).request({
      ...options,
      headers,
      origin: at.origin,
      path: url.origin + path,
    });
  }

  #agent(protocol: string): Promise<Agent> {
    if (this.#closed) return Promise.reject(new Error('the connections are closed'));
    const secure = protocol === 'https:';
    let agent = this.#direct.get(secure);
    if (agent === undefined) {
      agent = loadUndici().then(({ Agent }) => new Agent(this.#pool(secure)));
      this.#direct.set(secure, agent);
    }
    return agent;
  }

  #tunnel(proxy: string): Promise<Dispatcher> {
    let tunnel = this.#tunnels.get(proxy);
    if (tunnel === undefined) {
      tunnel = loadUndici().then(
        ({ ProxyAgent }) =>
          new ProxyAgent({
            ...this.#pool(true),
            uri: proxy,
            requestTls: this.#tls(true),
            proxyTls: this.#tls(true),
          }),
      );
      this.#tunnels.set(proxy, tunnel);
    }
    return tunnel;
  }

  /** What is trusted, read once for all connections; undefined: what Node trusts. */
  #trusted(): SecureContext | undefined {
    const { ca, systemCa } = this.#options;
    if (ca.length === 0 && !systemCa) return undefined;
    if (this.#context !== undefined) return this.#context;
    const tls = process.getBuiltinModule('node:tls');
    const system = systemCa ? tls.getCACertificates('system') : [];
    // the default ones hold those of NODE_EXTRA_CA_CERTS
    const all = new Set([...tls.getCACertificates('default'), ...system, ...ca]);
    return (this.#context = tls.createSecureContext({ ca: [...all] }));
  }

  #tls(secure: boolean): { secureContext?: SecureContext; rejectUnauthorized: boolean; timeout: number } {
    const { skipVerify, connectTimeoutMs } = this.#options;
    const secureContext = secure && !skipVerify ? this.#trusted() : undefined;
    return {
      ...(secureContext === undefined ? {} : { secureContext }),
      rejectUnauthorized: !skipVerify,
      timeout: connectTimeoutMs,
    };
  }

  #pool(secure: boolean): Agent.Options {
    const { connections, headersTimeoutMs, idleTimeoutMs, socketPath } = this.#options;
    return {
      connect: socketPath === undefined ? this.#tls(secure) : { ...this.#tls(secure), socketPath },
      connections,
      pipelining: 1,
      keepAliveTimeout: 30_000,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: idleTimeoutMs,
      maxRedirections: 0,
    } as Agent.Options;
  }

  /** End every connection; requests that are under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = [...this.#direct.values(), ...this.#tunnels.values()];
    await Promise.all(all.map(async (one) => (await one).destroy()));
  }
}
