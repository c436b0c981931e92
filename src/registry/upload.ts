// Uploads of blobs: whole, by chunks of a stream whose digest nobody knows yet, or by mounting from a neighbour.
// Source: OCI distribution spec 1.1, "Pushing blobs".
import { createHash } from 'node:crypto';
import { IntegrityError, RegistryError } from '../base/errors.ts';
import { redactUrl } from './redact.ts';
import type { Scopes } from './authorizer.ts';
import type { Answered, RegistryTransport } from './transport.ts';

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

/** What a push did. */
export type PushEnd = 'exists' | 'mounted' | 'uploaded';

/** Bytes of one request where a stream is pushed: held in memory, so that a failed one is sent again. */
export const DEFAULT_CHUNK = 8 * 1024 * 1024;
/** Tries to find where an upload broke off. */
const RESUMES = 5;

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
  const answered = await session.transport.send({
    method: 'PUT',
    target: withDigest(place, digest),
    scopes: session.scopes,
    headers: { 'content-length': '0' },
    signal: session.signal,
  });
  await answered.answer.discard();
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
      const now = await reached(session, place);
      place = now.place;
      if (now.size < offset || now.size > offset + chunk.length) throw error;
      from = now.size - offset;
      if (from === chunk.length) return place;
    }
  }
}

/** Pieces of `size` bytes, the last one shorter. */
async function* regroup(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Buffer> {
  let held: Uint8Array[] = [];
  let bytes = 0;
  for await (let piece of source) {
    while (bytes + piece.length >= size) {
      const take = size - bytes;
      yield Buffer.concat([...held, piece.subarray(0, take)]);
      piece = piece.subarray(take);
      held = [];
      bytes = 0;
    }
    // the source may reuse its buffer
    if (piece.length > 0) held.push(Uint8Array.from(piece));
    bytes += piece.length;
  }
  if (bytes > 0) yield Buffer.concat(held);
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
  const hash = createHash('sha256');
  let size = 0;
  let place = await start(session);
  for await (const chunk of regroup(source, options.chunkSize ?? DEFAULT_CHUNK)) {
    if (place === undefined) break;
    hash.update(chunk);
    place = await patch(session, place, chunk, size);
    size += chunk.length;
    options.onProgress?.(chunk.length);
  }
  const digest = `sha256:${hash.digest('hex')}`;
  if (place === undefined) {
    throw new RegistryError(
      { method: 'POST', url: session.transport.host, status: 201, codes: [] },
      'the registry ended an upload that did not begin',
    );
  }
  await finish(session, place, digest);
  return { digest, size };
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
    }
  }
}
