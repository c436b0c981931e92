// Blobs of a plain HTTP server, over TCP or a Unix socket. Source: blob-and-cache.md 21.11.
import type { Logger } from '../../base/log.ts';
import { HttpBackend, type HttpLine, type HttpOrigin, type HttpSeams } from './http-backend.ts';
import { HTTP_DEFAULTS, type HttpConfig } from './http-config.ts';
import { encodePath } from './signing.ts';

/** The `backend.http-proxy` section. */
export interface HttpProxyConfig extends HttpConfig {
  /** URL, or path of a Unix socket */
  addr: string;
  /** directory part of the URL; not used with a socket */
  path: string;
}

/** Types and values were checked by the parser (config-parse-backend.ts); this fills in what is absent. */
export function readHttpProxyConfig(section: Record<string, unknown>): HttpProxyConfig {
  return { ...HTTP_DEFAULTS, addr: '', path: '', ...(section as Partial<HttpProxyConfig>) };
}

function originOf(config: HttpProxyConfig, line: HttpLine): HttpOrigin {
  if (config.addr.startsWith('/')) {
    // the server knows the blob by its socket
    const url = new URL('http://localhost/');
    return {
      ask: async (method, _blobId, headers, attempt) => {
        const ranged = method === 'HEAD' ? { ...headers, range: 'bytes=0-' } : headers;
        return { url, answer: await line.send(method, url, ranged, attempt, true) };
      },
    };
  }
  const base = config.addr.replace(/\/+$/, '');
  const folder = config.path.replace(/^\/*|\/+$/g, '');
  return {
    ask: async (method, blobId, headers, attempt) => {
      const url = new URL(`${base}/${encodePath(folder === '' ? blobId : `${folder}/${blobId}`)}`);
      return { url, answer: await line.send(method, url, headers, attempt, true) };
    },
  };
}

export class HttpProxyBackend extends HttpBackend {
  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(config: HttpProxyConfig, logger: Logger, seams: HttpSeams = {}) {
    const socket = config.addr.startsWith('/');
    super({
      type: 'http-proxy',
      name: `http-proxy ${socket ? config.addr : (URL.parse(config.addr)?.host ?? '')}`,
      host: socket ? config.addr : (URL.parse(config.addr)?.origin ?? config.addr),
      // a socket is asked directly
      config: socket ? { ...config, proxy: null, mirrors: [] } : config,
      logger,
      seams,
      fallbackFrom: 400,
      socketPath: socket ? config.addr : undefined,
      origin: (line) => originOf(config, line),
    });
  }
}
