// Bytes of a layer or archive, decompressed when their first bytes say gzip or zstd; the media type does not decide.
// Source: nydus-image-and-nydusify.md 7.2.
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';

const GZIP = Buffer.of(0x1f, 0x8b);
const ZSTD = Buffer.of(0x28, 0xb5, 0x2f, 0xfd);
const CHUNK = { chunkSize: 256 * 1024 };

/** How bytes that begin like this are compressed. @param head the first four bytes, or fewer where there are no more */
export function compressionOf(head: Uint8Array): 'gzip' | 'zstd' | 'none' {
  const begins = (magic: Buffer): boolean => magic.equals(head.subarray(0, magic.length));
  return begins(GZIP) ? 'gzip' : begins(ZSTD) ? 'zstd' : 'none';
}

/** Pass bytes on, decompressed. Errors of the input end the output with the same error. */
export async function* decoded(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const input = chunks[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < ZSTD.length) {
    const next = await input.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  const whole = (async function* (): AsyncGenerator<Uint8Array> {
    if (head.length > 0) yield head;
    yield* { [Symbol.asyncIterator]: () => input };
  })();
  const kind = compressionOf(head);
  if (kind === 'none') return yield* whole;
  const decoder = kind === 'gzip' ? createGunzip(CHUNK) : createZstdDecompress(CHUNK);
  // its failure reaches the loop below: the pipeline destroys the decoder with it
  const feeding = pipeline(Readable.from(whole, { objectMode: false }), decoder, { signal }).catch(() => {});
  try {
    for await (const chunk of decoder as AsyncIterable<Uint8Array>) yield chunk;
  } finally {
    decoder.destroy();
    await feeding;
  }
}
