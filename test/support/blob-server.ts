// An HTTP server of blobs for tests: ranged reads of a few objects, who may read them decided by the test, faults on demand.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { AfterHook } from './temporary.ts';

/** Answers a request in its own way. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

export interface BlobServerOptions {
  /** status to refuse a request with, or 0 */
  authorize?: (request: IncomingMessage) => number;
  /** `WWW-Authenticate` of a refusal */
  challenge?: string;
  /** object for a request, or undefined when there is none */
  find: (request: IncomingMessage) => Uint8Array | undefined;
  /** listen here instead of a free port of loopback */
  socketPath?: string;
}

/** A server of blobs. Everything is counted. */
export class BlobServer {
  readonly requests: { method: string; url: string; headers: IncomingMessage['headers'] }[] = [];
  connections = 0;
  port = 0;
  /** answers the next requests, first come first served; then the objects are served again */
  readonly faults: Answer[] = [];
  /** answers every request while it is set */
  always: Answer | undefined;
  readonly #options: BlobServerOptions;
  readonly #server;
  readonly #sockets = new Set<Socket>();

  private constructor(options: BlobServerOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => this.#answer(request, response));
    this.#server.on('connection', (socket: Socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(t: AfterHook, options: BlobServerOptions): Promise<BlobServer> {
    const server = new BlobServer(options);
    await server.up();
    t.after(() => void server.down());
    return server;
  }

  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Listen, at the port it had before. */
  async up(): Promise<void> {
    const { socketPath } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      if (socketPath === undefined) this.#server.listen(this.port, '127.0.0.1', resolve);
      else this.#server.listen(socketPath, resolve);
    });
    if (socketPath === undefined) this.port = (this.#server.address() as AddressInfo).port;
  }

  /** Refuse connections and break those that there are. */
  async down(): Promise<void> {
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { method = '', url = '', headers } = request;
    this.requests.push({ method, url, headers });
    const fault = this.always ?? this.faults.shift();
    if (fault !== undefined) return fault(request, response);
    this.serve(request, response);
  }

  /** The answer of a server that is well. */
  serve(request: IncomingMessage, response: ServerResponse): void {
    const refusal = this.#options.authorize?.(request) ?? 0;
    if (refusal !== 0) {
      const { challenge } = this.#options;
      const headers = challenge === undefined ? {} : { 'WWW-Authenticate': challenge };
      return void response.writeHead(refusal, headers).end();
    }
    const object = this.#options.find(request);
    if (object === undefined) return void response.writeHead(404).end();
    serveRange(request, response, object);
  }
}

/** Answer with an object or the part of it that is asked for. */
export function serveRange(request: IncomingMessage, response: ServerResponse, object: Uint8Array): void {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const body = (bytes: Uint8Array): void => void response.end(request.method === 'HEAD' ? undefined : bytes);
  if (match === null || request.method === 'HEAD') {
    response.writeHead(200, { 'Content-Length': object.length });
    return body(object);
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? object.length : Math.min(object.length, Number(match[2]) + 1);
  if (start >= object.length)
    return void response.writeHead(416, { 'Content-Range': `bytes */${object.length}` }).end();
  response.writeHead(206, {
    'Content-Length': end - start,
    'Content-Range': `bytes ${start}-${end - 1}/${object.length}`,
  });
  body(object.subarray(start, end));
}

/** The right headers and the first bytes of the body, then nothing more; with `drip` one byte in so many milliseconds. */
export function stallAfter(object: Uint8Array, count: number, drip?: number): Answer {
  return (request, response) => {
    response.end = () => response;
    serveRange(request, response, object);
    const start = Number(/=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.write(object.subarray(start, start + count));
    if (drip === undefined) return;
    let at = start + count;
    const timer = setInterval(() => response.write(object.subarray(at, ++at)), drip);
    response.on('close', () => clearInterval(timer));
  };
}
