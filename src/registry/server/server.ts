// An OCI registry in this process, for trials and tests: blobs on disk, uploads, mounts, ranges, tags, referrers.
// Source: OCI distribution spec 1.1.
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { messageOf } from '../../base/errors.ts';
import { MAX_MANIFEST_SIZE, MAX_REGISTRY_JSON } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { silentLogger } from '../../base/log.ts';
import { isRepository, isTag } from '../reference.ts';
import { AccessControl } from './access.ts';
import type { AccessRule } from './access.ts';
import { RegistryStore } from './store.ts';
import type { StoredReferrer, Upload } from './store.ts';

export interface RegistryServerOptions {
  /** where everything is kept; created */
  dir: string;
  /** default 127.0.0.1 */
  host?: string;
  /** default 0: any free one */
  port?: number;
  /** serve HTTPS with these PEM files */
  tls?: { certFile: string; keyFile: string };
  access?: AccessRule;
  logger?: Logger;
  clock?: () => number;
  /** sees every request first; true = it has answered. For tests of faults. */
  intercept?: (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;
}

const SHA256 = /^sha256:[a-f0-9]{64}$/;
const INDEX = 'application/vnd.oci.image.index.v1+json';

/** A refusal with the code list that the spec names. */
class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

interface Call {
  request: IncomingMessage;
  response: ServerResponse;
  url: URL;
  repository: string;
  /** what stands after `/blobs/`, `/manifests/` … */
  rest: string;
}

async function readBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > limit) throw new Refusal(413, 'SIZE_INVALID', `more than ${limit} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function checkDigest(text: string): string {
  if (!SHA256.test(text)) throw new Refusal(400, 'DIGEST_INVALID', 'a digest is sha256: and 64 hex digits');
  return text;
}

/** `bytes=a-b`, `bytes=a-`, `bytes=-n` as [start, end) of `size`; undefined = whole, null = not satisfiable. */
function rangeOf(header: string, size: number): [number, number] | null | undefined {
  const match = /^bytes=([0-9]{0,15})-([0-9]{0,15})$/.exec(header);
  if (match === null) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '' && last === '') return undefined;
  if (first === '') return last === '0' || size === 0 ? null : [Math.max(0, size - Number(last)), size];
  const start = Number(first);
  const end = last === '' ? size : Math.min(size, Number(last) + 1);
  return start >= size || end <= start ? null : [start, end];
}

/** A running registry. Dispose it, or call `close`. */
export class RegistryServer {
  readonly store: RegistryStore;
  readonly access: AccessControl;
  readonly #server: Server;
  readonly #options: RegistryServerOptions;
  readonly #logger: Logger;

  private constructor(server: Server, options: RegistryServerOptions) {
    this.#server = server;
    this.#options = options;
    this.#logger = options.logger ?? silentLogger;
    this.store = new RegistryStore(options.dir);
    this.access = new AccessControl(options.access ?? { kind: 'open' }, options.clock);
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      void this.#answer(request, response);
    });
  }

  /** Start one. @throws Error EADDRINUSE and others of listen */
  static async start(options: RegistryServerOptions): Promise<RegistryServer> {
    const { tls } = options;
    const server: Server =
      tls === undefined
        ? process.getBuiltinModule('node:http').createServer()
        : process
            .getBuiltinModule('node:https')
            .createServer({ cert: readFileSync(tls.certFile), key: readFileSync(tls.keyFile) });
    // a large layer over a slow link takes as long as it takes; headers have their own time limit
    server.requestTimeout = 0;
    const registry = new RegistryServer(server, options);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.port ?? 0, options.host ?? '127.0.0.1', resolve);
    });
    return registry;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** `host:port` as references name it. */
  get host(): string {
    const { host = '127.0.0.1' } = this.#options;
    return `${host.includes(':') ? `[${host}]` : host}:${this.port}`;
  }

  get origin(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${this.host}`;
  }

  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await ended;
    this.store.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if ((await this.#options.intercept?.(request, response)) === true) return;
      await this.#route(request, response);
    } catch (error) {
      this.#refuse(request, response, error);
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (response.headersSent || response.destroyed) {
      response.destroy();
      return;
    }
    const known = error instanceof Refusal;
    if (!known) this.#logger.error(`${request.method} ${request.url}: ${messageOf(error)}`);
    const body = JSON.stringify({
      errors: [{ code: known ? error.code : 'UNKNOWN', message: messageOf(error) }],
    });
    // the rest of a body that was not read would be taken for the next request
    if (!request.complete) response.setHeader('Connection', 'close');
    this.#json(response, known ? error.status : 500, body, 'application/json');
  }

  #json(response: ServerResponse, status: number, body: string | Buffer, type: string): void {
    response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
    response.end(body);
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.origin);
    response.setHeader('Docker-Distribution-Api-Version', 'registry/2.0');
    if (url.pathname === '/token') return this.#token(request, response, url);
    const match = /^\/v2\/(.+)\/(blobs|manifests|tags|referrers)\/(.*)$/.exec(url.pathname);
    const repository = match?.[1] ?? '';
    const reading = request.method === 'GET' || request.method === 'HEAD';
    const actions = reading ? 'pull' : request.method === 'DELETE' ? 'delete' : 'pull,push';
    const scope = match === null ? '' : `repository:${repository}:${actions}`;
    const challenge = this.access.challenge(request.headers.authorization ?? '', scope, this.origin);
    if (challenge !== undefined) {
      response.setHeader('WWW-Authenticate', challenge);
      throw new Refusal(401, 'UNAUTHORIZED', 'authentication required');
    }
    if (url.pathname === '/v2/' || url.pathname === '/v2')
      return this.#json(response, 200, '{}', 'application/json');
    if (url.pathname === '/v2/_catalog') {
      const body = JSON.stringify({ repositories: this.store.repositories() });
      return this.#json(response, 200, body, 'application/json');
    }
    if (match === null) throw new Refusal(404, 'NOT_FOUND', 'no such path');
    if (!isRepository(repository)) throw new Refusal(400, 'NAME_INVALID', 'invalid repository name');
    const call: Call = { request, response, url, repository, rest: decodeURIComponent(match[3] ?? '') };
    if (match[2] === 'manifests') return this.#manifests(call);
    if (match[2] === 'tags') return this.#tags(call);
    if (match[2] === 'referrers') return this.#referrers(call);
    return call.rest.startsWith('uploads') ? this.#uploads(call) : this.#blobs(call);
  }

  async #token(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    let query = url.searchParams;
    if (request.method === 'POST')
      query = new URLSearchParams((await readBody(request, MAX_REGISTRY_JSON)).toString());
    const scopes = query.getAll('scope').flatMap((scope) => scope.split(' '));
    const issued = this.access.issue(request.headers.authorization ?? '', scopes);
    if (issued === undefined) throw new Refusal(401, 'UNAUTHORIZED', 'no such user, or a wrong password');
    this.#json(response, 200, JSON.stringify(issued), 'application/json');
  }

  async #blobs(call: Call): Promise<void> {
    const { request, response, repository } = call;
    const digest = checkDigest(call.rest);
    if (request.method === 'DELETE') {
      if (!this.store.removeBlob(repository, digest)) throw new Refusal(404, 'BLOB_UNKNOWN', 'no such blob');
      response.writeHead(202, { 'Content-Length': 0 }).end();
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD')
      throw new Refusal(405, 'UNSUPPORTED', 'not here');
    const blob = this.store.blob(repository, digest);
    if (blob === undefined) throw new Refusal(404, 'BLOB_UNKNOWN', 'no such blob');
    const headers: Record<string, string | number> = {
      'Content-Type': 'application/octet-stream',
      'Docker-Content-Digest': digest,
      'Accept-Ranges': 'bytes',
      ETag: `"${digest}"`,
    };
    const range = rangeOf(request.headers.range ?? '', blob.size);
    if (range === null) {
      response.setHeader('Content-Range', `bytes */${blob.size}`);
      throw new Refusal(416, 'RANGE_INVALID', 'the range is outside the blob');
    }
    const [start, end] = range ?? [0, blob.size];
    headers['Content-Length'] = end - start;
    if (range !== undefined) headers['Content-Range'] = `bytes ${start}-${end - 1}/${blob.size}`;
    response.writeHead(range === undefined ? 200 : 206, headers);
    if (request.method === 'HEAD' || end === start) {
      response.end();
      return;
    }
    // a reader that goes away ends the pipe with an error that nobody needs
    await pipeline(createReadStream(blob.path, { start, end: end - 1 }), response).catch(() => undefined);
  }

  async #uploads(call: Call): Promise<void> {
    const { request, response, url, repository } = call;
    const id = /^uploads\/([a-f0-9-]{36})$/.exec(call.rest)?.[1];
    if (id === undefined) {
      if (request.method !== 'POST') throw new Refusal(405, 'UNSUPPORTED', 'uploads start with POST');
      const mount = url.searchParams.get('mount') ?? '';
      const from = url.searchParams.get('from') ?? '';
      if (SHA256.test(mount) && isRepository(from) && this.store.mount(from, repository, mount)) {
        return this.#created(response, repository, 'blobs', mount);
      }
      const upload = this.store.startUpload(repository);
      const digest = url.searchParams.get('digest');
      if (digest === null) return this.#progress(response, upload, 202);
      await this.#append(request, upload);
      return this.#finish(response, upload, digest);
    }
    const upload = this.store.upload(repository, id);
    if (upload === undefined) throw new Refusal(404, 'BLOB_UPLOAD_UNKNOWN', 'no such upload');
    if (request.method === 'GET') return this.#progress(response, upload, 204);
    if (request.method === 'DELETE') {
      this.store.cancelUpload(upload);
      response.writeHead(204).end();
      return;
    }
    this.#checkPlace(request, upload);
    await this.#append(request, upload);
    if (request.method === 'PATCH') return this.#progress(response, upload, 202);
    if (request.method !== 'PUT') throw new Refusal(405, 'UNSUPPORTED', 'not here');
    this.#finish(response, upload, url.searchParams.get('digest') ?? '');
  }

  #checkPlace(request: IncomingMessage, upload: Upload): void {
    const header = request.headers['content-range'];
    const start = /^(?:bytes )?([0-9]{1,15})-[0-9]{1,15}$/.exec(header ?? '')?.[1];
    if (header === undefined || (start !== undefined && Number(start) === upload.size)) return;
    throw new Refusal(
      416,
      'RANGE_INVALID',
      `the next byte of this upload is ${upload.size}, not ${start ?? header}`,
    );
  }

  async #append(request: IncomingMessage, upload: Upload): Promise<void> {
    for await (const piece of request as AsyncIterable<Buffer>) this.store.append(upload, piece);
  }

  #progress(response: ServerResponse, upload: Upload, status: number): void {
    response
      .writeHead(status, {
        Location: `/v2/${upload.repository}/blobs/uploads/${upload.id}`,
        'Docker-Upload-UUID': upload.id,
        Range: `0-${Math.max(0, upload.size - 1)}`,
        ...(status === 204 ? {} : { 'Content-Length': 0 }),
      })
      .end();
  }

  #finish(response: ServerResponse, upload: Upload, expected: string): void {
    const digest = this.store.finishUpload(upload, expected);
    if (digest !== expected)
      throw new Refusal(400, 'DIGEST_INVALID', `the content is ${digest}, not ${expected}`);
    this.#created(response, upload.repository, 'blobs', digest);
  }

  #created(response: ServerResponse, repository: string, kind: string, digest: string): void {
    response
      .writeHead(201, {
        Location: `/v2/${repository}/${kind}/${digest}`,
        'Docker-Content-Digest': digest,
        'Content-Length': 0,
      })
      .end();
  }

  async #manifests(call: Call): Promise<void> {
    const { request, response, repository, rest: reference } = call;
    if (!SHA256.test(reference) && !isTag(reference))
      throw new Refusal(400, 'TAG_INVALID', 'no tag and no digest');
    if (request.method === 'PUT') return this.#putManifest(call);
    if (request.method === 'DELETE') {
      if (!this.store.removeManifest(repository, reference)) {
        throw new Refusal(404, 'MANIFEST_UNKNOWN', 'no such manifest');
      }
      response.writeHead(202, { 'Content-Length': 0 }).end();
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD')
      throw new Refusal(405, 'UNSUPPORTED', 'not here');
    const manifest = this.store.manifest(repository, reference);
    if (manifest === undefined) throw new Refusal(404, 'MANIFEST_UNKNOWN', 'no such manifest');
    response.writeHead(200, {
      'Content-Type': manifest.mediaType,
      'Content-Length': manifest.bytes.length,
      'Docker-Content-Digest': manifest.digest,
      ETag: `"${manifest.digest}"`,
    });
    response.end(request.method === 'HEAD' ? undefined : manifest.bytes);
  }

  async #putManifest({ request, response, repository, rest: reference }: Call): Promise<void> {
    const bytes = await readBody(request, MAX_MANIFEST_SIZE);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const tag = SHA256.test(reference) ? undefined : reference;
    if (tag === undefined && reference !== digest) {
      throw new Refusal(400, 'DIGEST_INVALID', `the content is ${digest}, not ${reference}`);
    }
    let value: Record<string, unknown>;
    try {
      value = JSON.parse(bytes.toString()) as Record<string, unknown>;
    } catch {
      throw new Refusal(400, 'MANIFEST_INVALID', 'a manifest is JSON');
    }
    if (value === null || typeof value !== 'object') throw new Refusal(400, 'MANIFEST_INVALID', 'no object');
    this.#checkParts(repository, value);
    const own = typeof value['mediaType'] === 'string' ? value['mediaType'] : undefined;
    const mediaType = request.headers['content-type'] ?? own ?? 'application/octet-stream';
    const subject = (value['subject'] as { digest?: unknown } | undefined)?.digest;
    const hasSubject = typeof subject === 'string' && SHA256.test(subject);
    const referrer = hasSubject
      ? { subject, entry: this.#referrerEntry(value, mediaType, digest, bytes.length) }
      : undefined;
    this.store.putManifest(repository, { mediaType, digest, bytes }, tag, referrer);
    if (hasSubject) response.setHeader('OCI-Subject', subject);
    this.#created(response, repository, 'manifests', digest);
  }

  #referrerEntry(
    value: Record<string, unknown>,
    mediaType: string,
    digest: string,
    size: number,
  ): StoredReferrer {
    const config = value['config'] as { mediaType?: unknown } | undefined;
    const type = value['artifactType'] ?? config?.mediaType;
    return {
      mediaType,
      digest,
      size,
      ...(typeof type === 'string' ? { artifactType: type } : {}),
      ...(value['annotations'] === undefined ? {} : { annotations: value['annotations'] }),
    };
  }

  /** A manifest names only what the repository has; layers with `urls` live elsewhere. */
  #checkParts(repository: string, value: Record<string, unknown>): void {
    const list = (key: string): Record<string, unknown>[] =>
      Array.isArray(value[key]) ? (value[key] as Record<string, unknown>[]) : [];
    const config = value['config'] as Record<string, unknown> | undefined;
    for (const part of [...(config === undefined ? [] : [config]), ...list('layers')]) {
      const digest = checkDigest(String(part?.['digest']));
      if (this.store.blob(repository, digest) === undefined && part['urls'] === undefined) {
        throw new Refusal(404, 'MANIFEST_BLOB_UNKNOWN', `the repository has no blob ${digest}`);
      }
    }
    for (const part of list('manifests')) {
      const digest = checkDigest(String(part?.['digest']));
      if (this.store.manifest(repository, digest) === undefined) {
        throw new Refusal(404, 'MANIFEST_BLOB_UNKNOWN', `the repository has no manifest ${digest}`);
      }
    }
  }

  #tags({ response, url, repository }: Call): void {
    const all = this.store.tags(repository);
    if (all === undefined) throw new Refusal(404, 'NAME_UNKNOWN', 'no such repository');
    const last = url.searchParams.get('last') ?? '';
    const rest = all.filter((tag) => tag > last);
    const limit = url.searchParams.get('n');
    const tags = limit !== null && /^[0-9]{1,6}$/.test(limit) ? rest.slice(0, Number(limit)) : rest;
    const end = tags.at(-1);
    if (tags.length < rest.length && end !== undefined) {
      response.setHeader(
        'Link',
        `</v2/${repository}/tags/list?n=${limit}&last=${encodeURIComponent(end)}>; rel="next"`,
      );
    }
    this.#json(response, 200, JSON.stringify({ name: repository, tags }), 'application/json');
  }

  #referrers({ response, url, repository, rest }: Call): void {
    const type = url.searchParams.get('artifactType');
    const all = this.store.referrers(repository, checkDigest(rest));
    const manifests = type === null ? all : all.filter((entry) => entry.artifactType === type);
    if (type !== null) response.setHeader('OCI-Filters-Applied', 'artifactType');
    this.#json(response, 200, JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests }), INDEX);
  }
}
