// Uploads of blobs: whole, by chunks of a stream whose digest nobody knows yet, or by mounting from a neighbour.
// Source: OCI distribution spec 1.1, "Pushing blobs".
import type { Hash } from 'node:crypto';
import { IntegrityError, RegistryError } from '../base/errors.ts';
import { redactUrl } from './redact.ts';
import type { Scopes } from './authorizer.ts';
import { backoff, pause } from './retry.ts';
import type { Answered, RegistryTransport } from './transport.ts';

/** Loaded when it is needed: a daemon that serves what is local never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** Content that can be read more than once. */
export interface BlobSource {
  digest: string;
  /** bytes */
  size: number;
  /** a new stream from the first byte */
  open(): AsyncIterable<Uint8Array>;
}

export interface PushOptions {
  /** repositories of the same registry that may have the blob */
  mountFrom?: readonly string[];
  /** bytes of one request; undefined = everything in one */
  chunkSize?: number | undefined;
  /** told about bytes as they are handed to the network */
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal | undefined;
}

/** A push of bytes that are digested by whoever makes them. */
export interface UploadOptions extends PushOptions {
  /** `finish` is given the digest */
  digested?: boolean;
}

/** What a push did. */
export type PushEnd = 'exists' | 'mounted' | 'uploaded';

/** Bytes of one request where a stream is pushed: held in memory, so that a failed one is sent again. */
export const DEFAULT_CHUNK = 8 * 1024 * 1024;
/** Tries to find where an upload broke off. */
const RESUMES = 5;
/** First and longest wait between two of them, unless the registry says how long. */
const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 10_000;
/** An upload that is given up gets so much time to say goodbye. */
const CANCEL_MS = 3000;

function waitFor(error: RegistryError, failed: number): number {
  return error.retryAfterMs ?? backoff(failed, FIRST_WAIT_MS, LONGEST_WAIT_MS, Math.random());
}

const OCTETS = { 'content-type': 'application/octet-stream' };

interface Session {
  transport: RegistryTransport;
  repository: string;
  scopes: Scopes;
  signal?: AbortSignal | undefined;
}

function placeOf(session: Session, { answer, url }: Answered, method: string): URL {
  const location = answer.header('location');
  if (location !== '') return session.transport.resolve(location, url);
  throw new RegistryError(
    { method, url: redactUrl(url), status: answer.status, codes: [] },
    'the answer has no Location to go on with',
  );
}

/** Ask for a place to upload to, or mount. @returns undefined when the blob was mounted */
async function start(session: Session, mount?: { digest: string; from: string }): Promise<URL | undefined> {
  const query =
    mount === undefined
      ? ''
      : `?${new URLSearchParams({ mount: mount.digest, from: mount.from }).toString()}`;
  const answered = await session.transport.send({
    method: 'POST',
    target: `/v2/${session.repository}/blobs/uploads/${query}`,
    scopes: mount === undefined ? session.scopes : [...session.scopes, `repository:${mount.from}:pull`],
    headers: { 'content-length': '0' },
    signal: session.signal,
  });
  await answered.answer.discard();
  return answered.answer.status === 201 ? undefined : placeOf(session, answered, 'POST');
}

function withDigest(place: URL, digest: string): URL {
  const url = new URL(place);
  url.searchParams.set('digest', digest);
  return url;
}

async function finish(session: Session, place: URL, digest: string): Promise<void> {
  try {
    const answered = await session.transport.send({
      method: 'PUT',
      target: withDigest(place, digest),
      scopes: session.scopes,
      headers: { 'content-length': '0' },
      signal: session.signal,
    });
    await answered.answer.discard();
  } catch (error) {
    // a try before may have got through, and only its answer was lost
    if (isLostUpload(error) && (await isThere(session, digest))) return;
    throw error;
  }
}

/** Bytes that the registry has of an upload. */
async function reached(session: Session, place: URL): Promise<{ size: number; place: URL }> {
  const answered = await session.transport.send({
    method: 'GET',
    target: place,
    scopes: session.scopes,
    signal: session.signal,
  });
  const end = /^(?:bytes=)?0-([0-9]{1,15})$/.exec(answered.answer.header('range'))?.[1];
  await answered.answer.discard();
  const moved = answered.answer.header('location');
  // 0-0 is what registries say of one byte and of none: none is the safe guess only where a chunk is longer
  const size = end === undefined || end === '0' ? 0 : Number(end) + 1;
  return { size, place: moved === '' ? place : placeOf(session, answered, 'GET') };
}

/** Send one chunk; after a failure ask how far the registry got and send the rest. */
async function patch(session: Session, start0: URL, chunk: Uint8Array, offset: number): Promise<URL> {
  let place = start0;
  let from = 0;
  for (let failed = 0; ;) {
    const rest = chunk.subarray(from);
    try {
      const answered = await session.transport.send({
        method: 'PATCH',
        target: place,
        scopes: session.scopes,
        headers: {
          ...OCTETS,
          'content-length': String(rest.length),
          'content-range': `${offset + from}-${offset + chunk.length - 1}`,
        },
        body: () => rest,
        retry: false,
        signal: session.signal,
      });
      await answered.answer.discard();
      return placeOf(session, answered, 'PATCH');
    } catch (error) {
      session.signal?.throwIfAborted();
      const odd = error instanceof RegistryError && error.status === 416;
      if (!(error instanceof RegistryError) || !(error.retryable || odd) || ++failed > RESUMES) throw error;
      await pause(waitFor(error, failed), session.signal);
      const now = await reached(session, place);
      place = now.place;
      if (now.size < offset || now.size > offset + chunk.length) throw error;
      from = now.size - offset;
      if (from === chunk.length) return place;
    }
  }
}

/** True when the registry no longer knows an upload, as after its restart: it must begin anew. */
export function isLostUpload(error: unknown): boolean {
  if (!(error instanceof RegistryError)) return false;
  const { status, answer } = error;
  return (
    (status === 404 && /\/blobs\/uploads\//.test(answer.url)) || answer.codes.includes('BLOB_UPLOAD_UNKNOWN')
  );
}

/** Is the blob there? A failure says no. */
async function isThere(session: Session, digest: string): Promise<boolean> {
  const { answer } = await session.transport.send({
    method: 'HEAD',
    target: `/v2/${session.repository}/blobs/${digest}`,
    scopes: session.scopes,
    accept: [404],
    signal: session.signal,
  });
  await answer.discard();
  return answer.status !== 404;
}

/**
 * A blob that is pushed while it is made. Chunks go out one at a time, and while one is under way the next is filled:
 * two chunks are held. What fits into one chunk is pushed when its digest is known, and only if it is not there.
 */
export class BlobUpload {
  readonly #session: Session;
  readonly #options: UploadOptions;
  readonly #chunkSize: number;
  readonly #hash: Hash | undefined;
  #filling: Buffer | undefined;
  #spare: Buffer | undefined;
  #filled = 0;
  /** bytes that were handed to the network */
  #sent = 0;
  #sending: Promise<void> | undefined;
  #place: URL | undefined;

  constructor(session: Session, options: UploadOptions = {}) {
    this.#session = session;
    this.#options = options;
    this.#chunkSize = options.chunkSize ?? DEFAULT_CHUNK;
    this.#hash = options.digested === true ? undefined : crypto().createHash('sha256');
  }

  /** Take the next bytes; they are copied. @throws RegistryError EIO  an earlier chunk failed */
  async write(parts: readonly Uint8Array[]): Promise<void> {
    for (const part of parts) {
      this.#hash?.update(part);
      for (let at = 0; at < part.length;) {
        this.#filling ??= Buffer.allocUnsafe(this.#chunkSize);
        const taken = part.subarray(at, at + this.#chunkSize - this.#filled);
        this.#filling.set(taken, this.#filled);
        this.#filled += taken.length;
        at += taken.length;
        if (this.#filled === this.#chunkSize) await this.#flush();
      }
    }
  }

  async #flush(): Promise<void> {
    await this.#sending;
    const full = this.#filling as Buffer;
    const chunk = full.subarray(0, this.#filled);
    this.#filling = this.#spare;
    this.#spare = full;
    this.#filled = 0;
    this.#sending = this.#send(chunk);
    // whoever waits for it next sees the failure
    this.#sending.catch(() => {});
  }

  async #send(chunk: Buffer): Promise<void> {
    this.#place ??= await start(this.#session);
    if (this.#place === undefined) {
      throw new RegistryError(
        { method: 'POST', url: this.#session.transport.host, status: 201, codes: [] },
        'the registry ended an upload that did not begin',
      );
    }
    this.#place = await patch(this.#session, this.#place, chunk, this.#sent);
    this.#sent += chunk.length;
    this.#options.onProgress?.(chunk.length);
  }

  /**
   * All bytes were given: end the upload. The registry compares the digest.
   *
   * @param known the digest, where the caller digests the bytes itself
   * @throws RegistryError EIO
   */
  async finish(known?: string): Promise<{ digest: string; size: number; end: PushEnd }> {
    const rest = this.#filling?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    const digest = known ?? `sha256:${this.#hash?.digest('hex') ?? ''}`;
    if (this.#sending === undefined) {
      const source = { digest, size: rest.length, open: (): AsyncIterable<Uint8Array> => once(rest) };
      const there = await isThere(this.#session, digest);
      const end = there ? 'exists' : await pushWhole(this.#session, source, this.#options);
      return { digest, size: rest.length, end };
    }
    if (rest.length > 0) await this.#flush();
    await this.#sending;
    await finish(this.#session, this.#place as URL, digest);
    return { digest, size: this.#sent, end: 'uploaded' };
  }

  /** Give it up: the registry may forget what came. Failures do not matter, it forgets by itself in time. */
  async cancel(): Promise<void> {
    await this.#sending?.catch(() => {});
    if (this.#place === undefined) return;
    await this.#session.transport
      .send({
        method: 'DELETE',
        target: this.#place,
        scopes: this.#session.scopes,
        retry: false,
        signal: AbortSignal.timeout(CANCEL_MS),
      })
      .then(({ answer }) => answer.discard())
      .catch(() => {});
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/**
 * Push a stream whose digest comes out at its end.
 *
 * @throws RegistryError EIO
 */
export async function pushChunks(
  session: Session,
  source: AsyncIterable<Uint8Array>,
  options: PushOptions = {},
): Promise<{ digest: string; size: number }> {
  const upload = new BlobUpload(session, options);
  try {
    for await (const piece of source) await upload.write([piece]);
    const { digest, size } = await upload.finish();
    return { digest, size };
  } catch (error) {
    await upload.cancel();
    throw error;
  }
}

/** Count on the way, and stop when it is not as long as announced. */
async function* counted(source: BlobSource, onProgress: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  let sent = 0;
  for await (const piece of source.open()) {
    sent += piece.length;
    if (sent > source.size) break;
    onProgress(piece.length);
    yield piece;
  }
  if (sent !== source.size)
    throw new IntegrityError(`blob ${source.digest}: its source has ${sent} bytes, not ${source.size}`);
}

/** Push known content in one request, or in chunks. The registry checks the digest. */
export async function pushWhole(
  session: Session,
  source: BlobSource,
  options: PushOptions = {},
): Promise<PushEnd> {
  const { mountFrom = [], onProgress = () => undefined, chunkSize } = options;
  let place: URL | undefined;
  for (const from of mountFrom) {
    if (from === session.repository) continue;
    try {
      place = await start(session, { digest: source.digest, from });
      if (place === undefined) return 'mounted';
    } catch (error) {
      // no right to read there, or no such repository: then it is uploaded
      if (!(error instanceof RegistryError) || error.status < 400 || error.status > 499) throw error;
    }
  }
  if (chunkSize !== undefined && source.size > chunkSize) {
    const pushed = await pushChunks(session, source.open(), options);
    if (pushed.digest === source.digest) return 'uploaded';
    throw new IntegrityError(`the source of blob ${source.digest} has content ${pushed.digest}`);
  }
  const send = async (at: URL): Promise<void> => {
    const answered = await session.transport.send({
      method: 'PUT',
      target: withDigest(at, source.digest),
      scopes: session.scopes,
      headers: { ...OCTETS, 'content-length': String(source.size) },
      body: () => counted(source, onProgress),
      retry: false,
      signal: session.signal,
    });
    await answered.answer.discard();
  };
  for (let failed = 1; ; failed++) {
    const at = place ?? (await start(session));
    place = undefined;
    if (at === undefined) return 'mounted';
    try {
      await send(at);
      return 'uploaded';
    } catch (error) {
      session.signal?.throwIfAborted();
      // a place that broke off cannot be used again: each try begins anew
      if (!(error instanceof RegistryError) || !error.retryable || failed >= RESUMES) throw error;
      await pause(waitFor(error, failed), session.signal);
    }
  }
}
