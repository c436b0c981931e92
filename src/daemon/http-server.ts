// The API on its Unix socket: node:http around a Router. A connection may stay silent for ever (clients read a hang-up
// as the daemon's death), a request may come slowly; neither holds up another one. Source: nydusd.md 5.1.
import { existsSync, lstatSync, unlinkSync } from 'node:fs';
import type * as Http from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { dirname } from 'node:path';
import { NydusError, UsageError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ApiResponse } from './api-error.ts';
import type { ApiRequest } from './router.ts';

/** Largest request body (upstream's limit). */
export const MAX_API_BODY = 51200;
/** Request line and headers together; upstream stops at 1024 bytes a line. */
export const MAX_API_HEADERS = 16 * 1024;
/** Connections served at once; stops a client from using up the daemon's file descriptors. */
export const MAX_API_CONNECTIONS = 1024;
/** Requests of one connection that wait for their answers; stops a client that asks without reading from filling the memory. */
export const MAX_API_PIPELINE = 64;

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];
const DROPPED = '\nAll previous unanswered requests will be dropped.';

export interface ApiServerOptions {
  path: string;
  handle(request: ApiRequest): Promise<ApiResponse>;
  logger: Logger;
}

/** A listening server. */
export interface ApiServer {
  readonly server: Server;
  /** stop listening, hang up, remove the socket file */
  close(): Promise<void>;
}

const PARSER_PROBLEMS: Record<string, string> = {
  HPE_INVALID_METHOD: 'Invalid HTTP Method: Unsupported HTTP method.',
  HPE_INVALID_VERSION: 'Invalid HTTP Version: Unsupported HTTP version.',
  HPE_HEADER_OVERFLOW: 'Invalid header. Reason: Invalid content length.',
  HPE_INVALID_HEADER_TOKEN: 'Invalid header. Reason: Header is incorrectly formatted.',
  HPE_INVALID_CONTENT_LENGTH: 'Invalid header. Reason: Invalid value. Key:Content-Length.',
};

/** Error below the API: not JSON of ours, in upstream's form. */
function transportError(problem: string): string {
  return `{ "error": "${problem}${DROPPED}" }`;
}

/** Answer with exactly the headers clients know, in upstream's order. */
function answer(response: ServerResponse, { status, body, contentType }: ApiResponse, close = false): void {
  const headers: [string, string][] = [
    ['Server', 'Nydus API'],
    ['Connection', close ? 'close' : 'keep-alive'],
  ];
  if (body !== undefined) {
    headers.push(
      ['Content-Type', contentType ?? 'application/json'],
      ['Content-Length', String(Buffer.byteLength(body))],
    );
  }
  response.sendDate = false;
  response.writeHead(status, '', headers.flat());
  response.end(body);
}

/** The whole body, null when there is none, undefined when it is over the limit. */
async function readBody(request: IncomingMessage): Promise<string | null | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_API_BODY) return undefined;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.byteLength;
    if (size > MAX_API_BODY) return undefined;
    chunks.push(chunk);
  }
  return size === 0 ? null : Buffer.concat(chunks).toString('utf8');
}

async function serve(
  options: ApiServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const method = request.method ?? '';
  const close = /\bclose\b/i.test(request.headers.connection ?? '');
  if (!METHODS.includes(method)) {
    answer(
      response,
      { status: 400, body: transportError(PARSER_PROBLEMS['HPE_INVALID_METHOD'] ?? '') },
      true,
    );
    return;
  }
  if (request.httpVersionMajor !== 1) {
    answer(
      response,
      { status: 400, body: transportError(PARSER_PROBLEMS['HPE_INVALID_VERSION'] ?? '') },
      true,
    );
    return;
  }
  const body = await readBody(request);
  if (body === undefined) {
    const size = request.headers['content-length'] ?? `over ${MAX_API_BODY}`;
    const problem = `Request payload with size ${size} is larger than the limit of ${MAX_API_BODY} allowed by server.`;
    answer(response, { status: 400, body: transportError(problem) }, true);
    return;
  }
  const result = await options.handle({ method, target: request.url ?? '/', body });
  const line = `API: ${method} ${request.url}: ${result.status}`;
  if (result.status >= 500) options.logger.warn(`${line} ${result.body ?? ''}`);
  else options.logger.debug(line);
  answer(response, result, close);
}

/** Counts what is unanswered of each connection, and hangs up on who asks for too much at once. */
class Pipeline {
  readonly #waiting = new WeakMap<Socket, number>();
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** False: the connection is over. */
  enter(response: ServerResponse): boolean {
    const socket = response.req.socket;
    // requests of a piece of bytes that was read before the hang-up still come
    if (socket.destroyed) return false;
    const waiting = (this.#waiting.get(socket) ?? 0) + 1;
    this.#waiting.set(socket, waiting);
    if (waiting > MAX_API_PIPELINE) {
      this.#logger.warn(
        `API: a client sent more than ${MAX_API_PIPELINE} requests without reading the answers`,
      );
      socket.destroy();
      return false;
    }
    response.on('close', () => this.#waiting.set(socket, (this.#waiting.get(socket) ?? 1) - 1));
    return true;
  }
}

/** The bytes were no HTTP: say so and hang up, the parser cannot go on. */
function refuseBytes(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const raw = (error as { rawPacket?: Buffer }).rawPacket;
  const isHttp = raw !== undefined && /^[A-Za-z]+ /.test(raw.subarray(0, 32).toString('latin1'));
  const problem = (isHttp ? PARSER_PROBLEMS[error.code ?? ''] : undefined) ?? 'Invalid request.';
  const body = transportError(problem);
  socket.end(
    `HTTP/1.1 400 \r\nServer: Nydus API\r\nConnection: close\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

/** Whether somebody answers at a socket. False for everything that is no socket, too. */
function isListening(path: string): Promise<boolean> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return Promise.resolve(false);
  const { connect } = process.getBuiltinModule('node:net');
  return new Promise((resolve) => {
    const socket = connect(path);
    const answer = (listens: boolean) => (): void => {
      socket.destroy();
      resolve(listens);
    };
    socket.on('connect', answer(true));
    socket.on('error', answer(false));
  });
}

/** Remove what an earlier daemon left at the socket's path; anything but a socket is not ours to remove. */
export function removeStaleSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new UsageError(`${path} exists and is not a socket`, {
      exitCode: 1,
      hint: 'name another path with --apisock, or remove the file',
    });
  }
  unlinkSync(path);
}

function listenError(path: string, error: unknown): Error {
  if (error instanceof NydusError) return error;
  const hint =
    Buffer.byteLength(path) > 107
      ? 'the path of a Unix socket has at most 107 bytes: name a shorter one with --apisock'
      : existsSync(dirname(path))
        ? `${dirname(path)} must be a directory you may write to`
        : `create its directory first: mkdir -p ${dirname(path)}`;
  return new UsageError(`cannot listen on ${path}: ${messageOf(error)}`, { exitCode: 1, cause: error, hint });
}

/**
 * The `node:http` module. Not by `import`: that reads every export of the module, and one of them loads all of undici
 * (measured: 45 ms and 15 MB, against 6 ms and nothing to speak of).
 */
export function loadHttp(): typeof Http {
  return process.getBuiltinModule('node:http');
}

/**
 * Listen on a Unix socket.
 *
 * @throws UsageError, exit 1, when that cannot be
 */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { createServer } = loadHttp();
  const pipeline = new Pipeline(options.logger);
  const server = createServer(
    {
      maxHeaderSize: MAX_API_HEADERS,
      requireHostHeader: false,
      keepAlive: false,
      headersTimeout: 0,
      requestTimeout: 0,
      keepAliveTimeout: 0,
      connectionsCheckingInterval: 3_600_000,
    },
    (request, response) => {
      if (!pipeline.enter(response)) return;
      request.on('error', () => {});
      response.on('error', () => {});
      serve(options, request, response).catch((error: unknown) => {
        if (request.destroyed && !request.complete) return; // the client went away
        options.logger.error(`API: ${request.method} ${request.url}: ${messageOf(error)}`);
        if (!response.headersSent)
          answer(response, { status: 500, body: transportError('Internal error.') }, true);
      });
    },
  );
  server.timeout = 0;
  server.maxConnections = MAX_API_CONNECTIONS;
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => refuseBytes(error, socket as Socket));
  try {
    if (await isListening(options.path))
      options.logger.warn(
        `another daemon listens on ${options.path}: from now on nobody reaches it; give each its own --apisock`,
      );
    removeStaleSocket(options.path);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.path, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (error) {
    throw listenError(options.path, error);
  }
  server.on('error', (error) => options.logger.error(`API: ${messageOf(error)}`));
  return { server, close: () => closeServer(server) };
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve()); // node removes the socket file
    server.closeIdleConnections();
    // answers being written get a moment, the rest is cut off
    setTimeout(() => server.closeAllConnections(), 100).unref();
  });
}
