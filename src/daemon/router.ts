// Paths of the HTTP API -> answers. Knows nothing of sockets: a request is a method, a target and a body.
// Source: nydusd.md 5.1-5.11, golden/api.
import {
  ApiError,
  DaemonError,
  errorResponse,
  type ApiResponse,
  type Shell,
  type Wrapper,
} from './api-error.ts';
import { decodeStringMap, decodeStruct } from './api-body.ts';
import type { Daemon } from './daemon.ts';
import { parseMountRequest, type MountRequest } from './mount-request.ts';

export interface ApiRequest {
  method: string;
  /** origin-form or absolute-form */
  target: string;
  /** null: no body */
  body: string | null;
}

interface Call {
  query: Map<string, string>;
  body: string;
}

interface Handler {
  /** whether the request has a body: contrary to it is a BadRequest */
  body: boolean;
  /** query key without which nothing else is looked at */
  query?: string;
  run(call: Call): Promise<ApiResponse> | ApiResponse;
}

type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';
type Routes = Record<string, Partial<Record<Method, Handler>>>;

const NO_CONTENT: ApiResponse = { status: 204 };

function json(value: unknown): ApiResponse {
  const body = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'bigint' ? JSON.rawJSON(item.toString()) : item,
  );
  return { status: 200, body };
}

declare global {
  interface JSON {
    /** digits as they are, past 2^53 too (Node 22 and later) */
    rawJSON(text: string): unknown;
  }
}

/** Path and query of a request target; the first of several equal keys counts (nydusd.md 5.1). */
export function parseTarget(target: string): { path: string; query: Map<string, string> } {
  const origin = /^[a-z]+:\/\/[^/?]*/i.exec(target)?.[0] ?? '';
  const rest = target.slice(origin.length);
  const mark = rest.indexOf('?');
  const path = (mark < 0 ? rest : rest.slice(0, mark)) || '/';
  const query = new Map<string, string>();
  for (const [key, value] of new URLSearchParams(mark < 0 ? '' : rest.slice(mark + 1))) {
    if (!query.has(key)) query.set(key, value);
  }
  return { path, query };
}

/** Keys of `/config` that may change while the daemon runs. */
const SETTINGS = ['registry_auth', 'proxy_url', 'dragonfly_scheduler_endpoint'];

/** Answers requests about one daemon. */
export class Router {
  readonly #daemon: Daemon;
  readonly #routes: Routes;
  readonly #requestExit: () => void;

  /** @param requestExit called after the answer to an exit request is decided */
  constructor(daemon: Daemon, requestExit: () => void) {
    this.#daemon = daemon;
    this.#requestExit = requestExit;
    this.#routes = this.#table();
  }

  /** Every `METHOD path` that has an answer of its own. */
  routes(): string[] {
    return Object.entries(this.#routes).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    );
  }

  /** The answer; errors are answers too. */
  async handle(request: ApiRequest): Promise<ApiResponse> {
    try {
      const { path, query } = parseTarget(request.target);
      const methods = Object.hasOwn(this.#routes, path) ? this.#routes[path] : undefined;
      if (methods === undefined) throw ApiError.noRoute();
      const needed = path === '/api/v1/mount' && this.#isOlderPut(request) ? undefined : queryOf(methods);
      if (needed !== undefined && !query.has(needed)) throw ApiError.missingQuery(needed);
      const handler = Object.hasOwn(methods, request.method) ? methods[request.method as Method] : undefined;
      if (handler === undefined || handler.body !== (request.body !== null)) throw ApiError.badRequest();
      return await handler.run({ query, body: request.body ?? '' });
    } catch (error) {
      const known = error instanceof ApiError ? error : ApiError.wrap('DaemonInfo', 'DaemonAbnormal', error);
      return errorResponse(known);
    }
  }

  /** A mount request whose mountpoint stands in its body. */
  #isOlderPut(request: ApiRequest): boolean {
    return (request.method === 'PUT' || request.method === 'POST') && request.body !== null;
  }

  #table(): Routes {
    return {
      '/api/v1/daemon': {
        GET: this.#get('DaemonInfo', () => this.#daemon.reports.info(true)),
        PUT: this.#logLevel(),
      },
      '/api/v2/daemon': {
        GET: this.#get('DaemonInfo', () => this.#daemon.reports.info(false)),
        PUT: this.#logLevel(),
      },
      '/api/v1/daemon/events': { GET: this.#get('Events', () => this.#daemon.events.report()) },
      '/api/v1/daemon/backend': { GET: this.#superMeta() },
      '/api/v1/daemon/start': { PUT: this.#command('Configure', () => this.#daemon.event('Start')) },
      '/api/v1/daemon/exit': { PUT: this.#exit() },
      '/api/v1/daemon/fuse/sendfd': { PUT: this.#command('Upgrade', () => this.#daemon.sendfd()) },
      '/api/v1/daemon/fuse/takeover': { PUT: this.#command('Upgrade', () => this.#daemon.event('Takeover')) },
      '/api/v1/mount': {
        POST: this.#mount((request) => this.#daemon.mountImage(request)),
        PUT: this.#mount((request) => this.#daemon.putImage(request)),
        DELETE: this.#unmount(),
      },
      '/api/v1/metrics': { GET: this.#metrics('GlobalMetrics', (id) => this.#daemon.reports.fsMetrics(id)) },
      '/api/v1/metrics/files': {
        GET: this.#metrics('FsFilesMetrics', (id, query) =>
          this.#daemon.reports.filesMetrics(id, query.get('latest') === 'true'),
        ),
      },
      '/api/v1/metrics/pattern': {
        GET: this.#metrics('Pattern', (id) => this.#daemon.reports.patternMetrics(id)),
      },
      '/api/v1/metrics/backend': {
        GET: this.#metrics('BackendMetrics', (id) => this.#daemon.reports.storageMetrics('backend', id)),
      },
      '/api/v1/metrics/blobcache': {
        GET: this.#metrics('BlobcacheMetrics', (id) => this.#daemon.reports.storageMetrics('blobcache', id)),
      },
      '/api/v1/metrics/inflight': { GET: this.#inflight() },
      '/api/v1/config': { GET: this.#settings(), PUT: this.#changeSettings() },
      '/api/v2/blobs': this.#blobs(),
      '/metrics': {
        GET: {
          body: false,
          run: async () => (await import('./prometheus.ts')).prometheusAnswer(this.#daemon.reports),
        },
      },
    };
  }

  #get(wrapper: Wrapper, read: () => unknown): Handler {
    return {
      body: false,
      run: () => {
        try {
          return json(read());
        } catch (error) {
          throw ApiError.wrap(wrapper, 'DaemonAbnormal', error);
        }
      },
    };
  }

  #command(wrapper: Wrapper, act: () => Promise<void>, shell: Shell = 'DaemonAbnormal'): Handler {
    return {
      body: false,
      run: async () => {
        try {
          await act();
        } catch (error) {
          throw ApiError.wrap(wrapper, shell, error);
        }
        return NO_CONTENT;
      },
    };
  }

  #exit(): Handler {
    const exit = this.#command('Configure', () => this.#daemon.exit());
    return {
      body: false,
      run: async (call) => {
        const response = await exit.run(call);
        this.#requestExit();
        return response;
      },
    };
  }

  #logLevel(): Handler {
    return {
      body: true,
      run: ({ body }) => {
        const fields = decodeStruct(body, 'DaemonConf', { log_level: { type: 'string', required: true } });
        const known =
          typeof fields['log_level'] === 'string' && this.#daemon.setLogLevel(fields['log_level']);
        if (!known) throw ApiError.payloadType('Configure');
        return NO_CONTENT;
      },
    };
  }

  #superMeta(): Handler {
    return {
      body: false,
      query: 'mountpoint',
      run: ({ query }) => {
        try {
          return json(this.#daemon.reports.superMeta(query.get('mountpoint') ?? ''));
        } catch (error) {
          throw ApiError.wrap('FsBackendInfo', 'MetricsDaemon', error);
        }
      },
    };
  }

  #mount(act: (request: MountRequest) => Promise<void>): Handler {
    return {
      body: true,
      query: 'mountpoint',
      run: async ({ query, body }) => {
        const request = parseMountRequest(body, query.get('mountpoint'));
        try {
          await act(request);
        } catch (error) {
          throw ApiError.wrap('Mount', 'MountFilesystem', error);
        }
        return NO_CONTENT;
      },
    };
  }

  #unmount(): Handler {
    return {
      body: false,
      query: 'mountpoint',
      run: async ({ query }) => {
        try {
          await this.#daemon.unmountImage(query.get('mountpoint') ?? '');
        } catch (error) {
          throw ApiError.wrap('Mount', 'MountFilesystem', error);
        }
        return NO_CONTENT;
      },
    };
  }

  #metrics(wrapper: Wrapper, read: (id: string | undefined, query: Map<string, string>) => unknown): Handler {
    return {
      body: false,
      run: ({ query }) => {
        let counters: unknown;
        try {
          counters = read(query.get('id'), query);
        } catch (error) {
          throw ApiError.wrap(wrapper, 'MetricsDaemon', error);
        }
        if (counters === undefined) throw ApiError.noCounter(wrapper);
        return json(counters);
      },
    };
  }

  #inflight(): Handler {
    return {
      body: false,
      run: () => {
        const busy = this.#daemon.reports.inflight();
        return busy.length === 0 ? NO_CONTENT : json(busy);
      },
    };
  }

  #settings(): Handler {
    return {
      body: false,
      run: ({ query }) => {
        const id = query.get('id');
        const prefix = `${id}:`;
        const shown = [...this.#daemon.settings].filter(
          ([key]) => id === undefined || key.startsWith(prefix),
        );
        const strip = (key: string): string => (id === undefined ? key : key.slice(prefix.length));
        return json(Object.fromEntries(shown.map(([key, value]) => [strip(key), value])));
      },
    };
  }

  #changeSettings(): Handler {
    return {
      body: true,
      run: ({ query, body }) => {
        const id = query.get('id') ?? '';
        for (const [key, value] of decodeStringMap(body)) {
          // keys before the bad one stay applied
          if (!SETTINGS.includes(key)) throw ApiError.payloadType('Configure');
          this.#daemon.changeSetting(id, key, value);
        }
        return NO_CONTENT;
      },
    };
  }

  /** Blob objects live in a singleton daemon, which this one is not. */
  #blobs(): Routes[string] {
    const refuse = (wrapper: Wrapper): never => {
      throw ApiError.wrap(wrapper, 'DaemonAbnormal', DaemonError.unsupported());
    };
    return {
      GET: {
        body: false,
        run: ({ query }) => {
          if (!query.has('domain_id')) throw ApiError.badRequest();
          return refuse('GetBlobObjects');
        },
      },
      PUT: {
        body: true,
        run: ({ body }) => {
          decodeStruct(body, 'BlobCacheEntry', {
            type: { type: 'string', required: true },
            id: { type: 'string', required: true },
          });
          return refuse('CreateBlobObject');
        },
      },
      DELETE: {
        body: false,
        run: ({ query }) => {
          if (query.has('domain_id')) return refuse('DeleteBlobObject');
          if (query.has('blob_id')) return NO_CONTENT; // a FUSE daemon has nothing to cull
          throw ApiError.badRequest();
        },
      },
    };
  }
}

function queryOf(methods: Partial<Record<Method, Handler>>): string | undefined {
  return Object.values(methods).find((handler) => handler.query !== undefined)?.query;
}
