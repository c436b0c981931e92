// Proxies and mirrors as this process knows them, whichever images ask them: whether they are well, and how often they have failed. One
// that is gone is found out once, left out for all, and tried or pinged for all. Source: blob-and-cache.md 21.3, 21.5; the breaker is ours.
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { HttpClient } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import type { ProxyConfig } from '../config.ts';
import { Breaker } from './breaker.ts';
import { Health, type HealthOptions } from './health.ts';
import { readCaFiles, type HttpConfig, type MirrorConfig } from './http-config.ts';
import { SharedStates } from './shared-states.ts';

/** What pings of a peer need beside its own settings. */
export interface PeerContext {
  config: HttpConfig;
  logger: Logger;
  clock: () => number;
}

/** What is shared, and how to give it back. */
export interface Lease<T> {
  state: T;
  release: () => void;
}

const breakers = new SharedStates<Breaker>();
const healths = new SharedStates<{ health: Health; http: HttpClient }>();
const mirrors = new SharedStates<Mirror>();

/** The breaker of a proxy: one that nobody pings and that is gone is left out for a while. */
export function leaseBreaker(proxyUrl: string, clock: () => number): Lease<Breaker> {
  const state = breakers.acquire(proxyUrl, () => new Breaker(clock));
  return { state, release: () => void breakers.release(proxyUrl, state) };
}

type PingOptions = Omit<HealthOptions, 'http' | 'clock'>;

function leaseHealth(context: PeerContext, name: string, options: PingOptions, said: string): Lease<Health> {
  const { config, clock, logger } = context;
  const { skip_verify: skipVerify, ca_cert_files: caFiles } = config;
  const key = JSON.stringify([name, options, skipVerify, caFiles]);
  const entry = healths.acquire(key, () => {
    const http = new HttpClient({ skipVerify, ca: readCaFiles(caFiles) });
    const health = new Health({ ...options, http, clock });
    health.onChange = (well) => logger.warn(`${name} is ${well ? 'well' : said}`);
    return { health, http };
  });
  const release = (): void => {
    if (!healths.release(key, entry)) return;
    entry.health.close();
    void entry.http.close();
  };
  return { state: entry.health, release };
}

/** Is the proxy of a configuration well, by its ping? */
export function leaseProxyHealth(proxy: ProxyConfig, context: PeerContext): Lease<Health> {
  const options = {
    pingUrl: proxy.ping_url,
    intervalSeconds: proxy.check_interval,
    pauseSeconds: proxy.check_pause_elapsed,
    timeoutSeconds: context.config.connect_timeout,
    belowStatus: 400,
    onlyWhenUnwell: false,
  };
  return leaseHealth(context, `proxy ${redactUrl(proxy.url)}`, options, 'not well');
}

/** A mirror, left out after some failures in a row until its ping answers. */
export class Mirror {
  readonly url: URL;
  readonly #limit: number;
  readonly #logger: Logger;
  readonly #health: Lease<Health>;
  #failures = 0;

  constructor(mirror: MirrorConfig, context: PeerContext) {
    this.url = new URL(mirror.host);
    this.#limit = mirror.failure_limit;
    this.#logger = context.logger;
    const options = {
      pingUrl: mirror.ping_url === '' ? `${mirror.host.replace(/\/+$/, '')}/v2` : mirror.ping_url,
      intervalSeconds: mirror.health_check_interval,
      pauseSeconds: mirror.health_check_pause_elapsed,
      timeoutSeconds: context.config.timeout,
      belowStatus: 500,
      onlyWhenUnwell: true,
    };
    this.#health = leaseHealth(context, `mirror ${this.url.origin}`, options, 'left out');
  }

  /** May it be asked now? It is about to be. */
  use(): boolean {
    const { state } = this.#health;
    state.use();
    // failures in a row start anew when it was pinged back
    if (state.healthy && this.#failures >= this.#limit) this.#failures = 0;
    return state.healthy;
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(error: unknown): void {
    this.#failures++;
    this.#logger.warn(`mirror ${this.url.origin} failed: ${messageOf(error)}`);
    if (this.#failures >= this.#limit) this.#health.state.set(false);
  }

  close(): void {
    this.#health.release();
  }
}

/** What is known of a mirror with these settings. */
export function leaseMirror(mirror: MirrorConfig, context: PeerContext): Lease<Mirror> {
  const { timeout, skip_verify: skipVerify, ca_cert_files: caFiles } = context.config;
  const key = JSON.stringify([{ ...mirror, headers: undefined }, timeout, skipVerify, caFiles]);
  const state = mirrors.acquire(key, () => new Mirror(mirror, context));
  const release = (): void => {
    if (mirrors.release(key, state)) state.close();
  };
  return { state, release };
}
