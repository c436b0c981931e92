// The way of one request: P2P proxy, then mirrors, then the origin. Source: blob-and-cache.md 19.1, 21.1, 21.3, 21.5.
import { messageOf, RegistryError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { HttpAnswer, HttpClient } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import type { Breaker } from './breaker.ts';
import type { Health } from './health.ts';
import type { HttpConfig } from './http-config.ts';
import { leaseBreaker, leaseMirror, leaseProxyHealth, type Lease, type Mirror } from './peers.ts';

export const USER_AGENT = 'nydusd/1.0.0';
const HEADER_VARIABLE = 'NYDUS_HEADER_';

export interface RouteOptions {
  http: HttpClient;
  config: HttpConfig;
  /** answers of the proxy from this status on are asked for again without it */
  fallbackFrom: 400 | 500;
  logger: Logger;
  clock: () => number;
  env: NodeJS.ProcessEnv;
}

export interface RouteRequest {
  method: string;
  url: URL;
  headers: Record<string, string>;
  prefetch: boolean;
  /** leave the peers of the proxy out: the last retry, or the proxy asked for it */
  direct: boolean;
  /** URL of the registry itself: mirrors may answer it */
  mirrored: boolean;
  /** the same request stalls where it went first */
  second?: boolean;
  signal?: AbortSignal | undefined;
}

interface MirrorWay {
  headers: Record<string, string>;
  lease: Lease<Mirror>;
}

/** Headers that the environment adds to every request. */
export function environmentHeaders(env: NodeJS.ProcessEnv): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    const header = name.startsWith(HEADER_VARIABLE) ? name.slice(HEADER_VARIABLE.length) : '';
    if (/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(header) && value !== undefined && !/[\r\n\0]/.test(value)) {
      out[header.toLowerCase()] = value;
    }
  }
  return out;
}

/** Sends requests over whatever is well. */
export class HttpRoute {
  readonly #options: RouteOptions;
  readonly #environment: Record<string, string>;
  readonly #mirrors: MirrorWay[];
  #proxyUrl: string;
  readonly #proxyHealth: Lease<Health> | undefined;
  #proxyBreaker: Lease<Breaker>;
  /** `use_http`: decided by the first URL, then kept */
  #rewrites: boolean | undefined;

  constructor(options: RouteOptions) {
    const { config, clock, logger } = options;
    const { proxy } = config;
    this.#options = options;
    this.#environment = environmentHeaders(options.env);
    this.#proxyUrl = proxy?.url ?? '';
    this.#proxyBreaker = leaseBreaker(this.#proxyUrl, clock);
    if (proxy !== null) {
      this.#proxyHealth = leaseProxyHealth(proxy, options);
      if (proxy.dragonfly_scheduler_endpoint !== '') {
        logger.warn('dragonfly_scheduler_endpoint is not used: requests go to the HTTP proxy of Dragonfly');
      }
    }
    this.#mirrors = config.mirrors.map((mirror) => ({
      headers: mirror.headers,
      lease: leaseMirror(mirror, options),
    }));
  }

  /** True when there is a proxy whose rules apply. */
  get hasProxy(): boolean {
    return this.#proxyUrl !== '';
  }

  /** Change the proxy for requests to come; '' = none. Kept only where a proxy section says how to use it. */
  setProxyUrl(url: string): void {
    if (url !== '' && URL.parse(url) === null) {
      this.#options.logger.warn(`proxy_url is no URL, it is ignored`);
      return;
    }
    this.#proxyUrl = url;
    this.#proxyBreaker.release();
    this.#proxyBreaker = leaseBreaker(url, this.#options.clock);
  }

  /**
   * Send one request; redirects and statuses are the caller's.
   *
   * @throws RegistryError EIO  nobody answered
   */
  async send(request: RouteRequest): Promise<HttpAnswer> {
    const { config, logger, fallbackFrom } = this.#options;
    const fallback = config.proxy?.fallback ?? true;
    if (this.hasProxy && !(request.direct && fallback)) {
      const health = this.#proxyHealth?.state;
      const breaker = this.#proxyBreaker.state;
      health?.use();
      if (health?.healthy !== false && (!fallback || breaker.allows())) {
        try {
          const answer = await this.#through(request);
          breaker.succeeded();
          if (answer.status < fallbackFrom || !fallback) return answer;
          await answer.discard();
          logger.debug(`the proxy answered ${answer.status}, asking the origin`);
        } catch (error) {
          request.signal?.throwIfAborted();
          if (!fallback) throw error;
          const out = breaker.failed() ? `, it is left out for a while` : '';
          logger.warn(`the proxy failed, asking the origin${out}: ${messageOf(error)}`);
        }
      } else if (!fallback) {
        const place = { method: request.method, url: redactUrl(request.url), status: 0, codes: [] };
        throw new RegistryError(place, 'the proxy is not well and `fallback` is off', { retryable: true });
      }
    }
    return (request.mirrored ? await this.#mirrored(request) : undefined) ?? this.#to(request, request.url);
  }

  #headers(request: RouteRequest, more: Record<string, string> = {}): Record<string, string> {
    const p2p =
      this.hasProxy && !request.direct
        ? {
            'x-dragonfly-prefetch': 'true',
            'x-dragonfly-priority': request.prefetch ? '3' : '6',
            'x-dragonfly-use-p2p': 'true',
          }
        : {};
    return { ...request.headers, ...p2p, ...more, 'user-agent': USER_AGENT, ...this.#environment };
  }

  #to(request: RouteRequest, url: URL, more?: Record<string, string>): Promise<HttpAnswer> {
    const { http, config } = this.#options;
    const { method, signal } = request;
    return http.send({
      method,
      url,
      headers: this.#headers(request, more),
      signal,
      totalTimeoutMs: config.timeout * 1000,
    });
  }

  #through(request: RouteRequest): Promise<HttpAnswer> {
    const { http, config } = this.#options;
    const { method, signal } = request;
    this.#rewrites ??= config.proxy?.use_http === true && request.url.protocol === 'https:';
    const url = this.#rewrites ? new URL(request.url.href.replace('https', 'http')) : request.url;
    const headers = this.#headers(request);
    return http.send({
      method,
      url,
      headers,
      signal,
      totalTimeoutMs: config.timeout * 1000,
      proxy: this.#proxyUrl,
    });
  }

  async #mirrored(request: RouteRequest): Promise<HttpAnswer | undefined> {
    let skip = request.second === true;
    for (const { lease, headers } of this.#mirrors) {
      const mirror = lease.state;
      if (!mirror.use()) continue;
      if (skip) {
        skip = false;
        continue;
      }
      const url = new URL(request.url);
      url.protocol = mirror.url.protocol;
      url.hostname = mirror.url.hostname;
      url.port = mirror.url.port;
      try {
        const answer = await this.#to(request, url, headers);
        if (answer.status < 500) {
          mirror.succeeded();
          return answer;
        }
        await answer.discard();
      } catch (error) {
        request.signal?.throwIfAborted();
        mirror.failed(error);
      }
    }
    return undefined;
  }

  close(): void {
    this.#proxyHealth?.release();
    this.#proxyBreaker.release();
    for (const { lease } of this.#mirrors) lease.release();
  }
}
