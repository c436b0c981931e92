// An object store for tests: uploads, single and multipart, and ranged reads; signatures verified, in memory. Sources: Amazon S3 API and
// Alibaba Cloud OSS API, PutObject and multipart upload.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Crc64 } from '../../src/codec/crc64.ts';
import type { AfterHook } from './temporary.ts';

export interface BucketOptions {
  /** is the request signed by somebody who may? */
  verify: (request: IncomingMessage) => boolean;
  /** sees every request first; true = it has answered */
  intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

export class BucketServer {
  readonly objects = new Map<string, Buffer>();
  readonly requests: string[] = [];
  readonly #uploads = new Map<string, Buffer[]>();
  readonly #options: BucketOptions;
  readonly #server: Server;

  private constructor(options: BucketOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(t: AfterHook, options: BucketOptions): Promise<BucketServer> {
    const bucket = new BucketServer(options);
    await new Promise<void>((resolve) => bucket.#server.listen(0, '127.0.0.1', resolve));
    t.after(() => void bucket.#server.close());
    return bucket;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** uploads that were begun and neither completed nor aborted */
  get openUploads(): number {
    return this.#uploads.size;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request as AsyncIterable<Buffer>) pieces.push(piece);
    const body = Buffer.concat(pieces);
    const url = new URL(request.url ?? '/', 'http://any');
    const path = decodeURIComponent(url.pathname);
    this.requests.push(`${request.method} ${path}${url.search === '' ? '' : '?'}`);
    if (this.#options.intercept?.(request, response) === true) return;
    const end = (status: number, headers: Record<string, string> = {}, text = ''): void => {
      response.writeHead(status, {
        ...headers,
        'Content-Length': headers['Content-Length'] ?? Buffer.byteLength(text),
      });
      response.end(request.method === 'HEAD' ? undefined : text);
    };
    if (!this.#options.verify(request))
      return end(403, {}, '<Error><Code>SignatureDoesNotMatch</Code><Message>wrong</Message></Error>');
    const upload = url.searchParams.get('uploadId');
    const crcOf = (bytes: Buffer): Record<string, string> => {
      const crc = new Crc64();
      crc.update(bytes);
      return { 'x-oss-hash-crc64ecma': String(crc.value()) };
    };
    if (request.method === 'HEAD') {
      const object = this.objects.get(path);
      return object === undefined ? end(404) : end(200, { 'Content-Length': String(object.length) });
    }
    if (request.method === 'GET' && upload === null) {
      const object = this.objects.get(path);
      if (object === undefined) return end(404, {}, '<Error><Code>NoSuchKey</Code></Error>');
      const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
      const last = Math.min(object.length - 1, to === '' ? object.length - 1 : Number(to));
      const part = object.subarray(Number(from), last + 1);
      const range = { 'Content-Range': `bytes ${from}-${last}/${object.length}` };
      const partial = request.headers.range !== undefined;
      response.writeHead(partial ? 206 : 200, { 'Content-Length': part.length, ...(partial ? range : {}) });
      return void response.end(part);
    }
    if (request.method === 'POST' && url.searchParams.has('uploads')) {
      const id = `upload-${this.#uploads.size}+/=`;
      this.#uploads.set(id, []);
      return end(200, {}, `<R><UploadId>${id}</UploadId></R>`);
    }
    if (upload !== null) {
      const parts = this.#uploads.get(upload);
      if (parts === undefined) return end(404, {}, '<Error><Code>NoSuchUpload</Code></Error>');
      if (request.method === 'DELETE') return (this.#uploads.delete(upload), end(204));
      if (request.method === 'PUT') {
        const number = Number(url.searchParams.get('partNumber'));
        parts[number - 1] = body;
        return end(200, { ETag: `"part${number}"` });
      }
      const listed = [...body.toString().matchAll(/<ETag>&quot;part(\d+)&quot;<\/ETag>/g)].map((m) =>
        Number(m[1]),
      );
      const whole = Buffer.concat(listed.map((number) => parts[number - 1] as Buffer));
      this.objects.set(path, whole);
      this.#uploads.delete(upload);
      return end(200, crcOf(whole), '<R><ETag>whole</ETag></R>');
    }
    if (request.method !== 'PUT') return end(405);
    this.objects.set(path, body);
    return end(200, { ETag: '"one"', ...crcOf(body) });
  }
}
