// Where an image comes from: documents and layer bytes by descriptor, whatever stores them.
import { createHash } from 'node:crypto';
import { IntegrityError } from '../base/errors.ts';
import type { Reference } from '../registry/reference.ts';
import type { Descriptor } from './oci.ts';

/** One layer, ready to be read. */
export interface LayerInput {
  /** the bytes, compressed or not; the iteration ends with an IntegrityError when they are not what was promised */
  open(signal: AbortSignal): AsyncIterable<Uint8Array>;
}

/** An image as a source offers it. */
export interface ImageSource {
  /** for messages */
  readonly name: string;
  /** read over a network: what came wrong once may come right the next time */
  readonly remote: boolean;
  /** repository that blobs of this image may be mounted from */
  readonly reference?: Reference | undefined;
  /** where the image starts: a manifest or an index, its bytes verified */
  resolve(signal: AbortSignal): Promise<{ descriptor: Descriptor; bytes: Uint8Array }>;
  /** a manifest or config, verified; at most MAX_DOCUMENT bytes */
  document(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array>;
  layer(descriptor: Descriptor): LayerInput;
  close(): Promise<void>;
}

function differs(
  what: string,
  expected: Pick<Descriptor, 'digest' | 'size'>,
  digest: string,
  size: number,
): IntegrityError {
  return new IntegrityError(
    `${what}: ${size} bytes with digest ${digest}, expected ${expected.size} bytes with digest ${expected.digest}`,
  );
}

/** Check bytes that are in memory. @throws IntegrityError */
export function verifyBytes(
  bytes: Uint8Array,
  expected: Pick<Descriptor, 'digest' | 'size'>,
  what: string,
): void {
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (digest !== expected.digest || bytes.length !== expected.size)
    throw differs(what, expected, digest, bytes.length);
}

/** Pass bytes through; IntegrityError in place of the end when size or digest are not as expected. */
export async function* verified(
  chunks: AsyncIterable<Uint8Array>,
  expected: Pick<Descriptor, 'digest' | 'size'>,
  what: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of chunks) {
    hash.update(chunk);
    size += chunk.length;
    // a source that never ends is stopped where the promise ends
    if (size > expected.size)
      throw new IntegrityError(`${what}: more than the ${expected.size} bytes that its descriptor promises`);
    yield chunk;
  }
  const digest = `sha256:${hash.digest('hex')}`;
  if (digest !== expected.digest || size !== expected.size) throw differs(what, expected, digest, size);
}

/** Read to the end and drop the bytes: for the check that `verified` makes. */
export async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const iterator = chunks[Symbol.asyncIterator]();
  while ((await iterator.next()).done !== true);
}
