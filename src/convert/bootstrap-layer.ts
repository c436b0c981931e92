// The last layer of a nydus image: a gzipped tar with the merged bootstrap. Two runs write the same bytes.
// Source: nydus-image-and-nydusify.md 7.2.
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { memberHeader, padding, TAR_END } from './tar-writer.ts';

/** Where readers look for the bootstrap in the tar. */
export const BOOTSTRAP_DIRECTORY = 'image';
export const BOOTSTRAP_MEMBER = 'image/image.boot';

/** What a manifest and a config say about the layer. */
export interface BootstrapLayer {
  digest: string;
  size: number;
  diffId: string;
}

/** Modes of the two members. */
export interface BootstrapModes {
  directory: number;
  file: number;
}

async function* tarOf(
  bootstrap: string,
  size: number,
  modes: BootstrapModes,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  yield memberHeader({ name: `${BOOTSTRAP_DIRECTORY}/`, mode: modes.directory, type: 'directory', size: 0 });
  yield memberHeader({ name: BOOTSTRAP_MEMBER, mode: modes.file, type: 'file', size });
  yield* createReadStream(bootstrap, { highWaterMark: 1024 * 1024, signal }) as AsyncIterable<Uint8Array>;
  yield padding(size);
  yield TAR_END;
}

/** Write the layer of a bootstrap into a file. */
export async function writeBootstrapLayer(
  bootstrap: string,
  to: string,
  signal: AbortSignal,
  modes: BootstrapModes = { directory: 0o755, file: 0o444 },
): Promise<BootstrapLayer> {
  const plain = createHash('sha256');
  const packed = createHash('sha256');
  let size = 0;
  const { size: plainSize } = await stat(bootstrap);
  const hashPlain = async function* (chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      plain.update(chunk);
      if (chunk.length > 0) yield chunk;
    }
  };
  const count = new Transform({
    transform: (chunk: Uint8Array, _encoding, done) => {
      packed.update(chunk);
      size += chunk.length;
      done(null, chunk);
    },
  });
  const source = Readable.from(hashPlain(tarOf(bootstrap, plainSize, modes, signal)), { objectMode: false });
  await pipeline(
    source,
    createGzip({ chunkSize: 256 * 1024 }),
    count,
    createWriteStream(to, { flags: 'wx' }),
    { signal },
  );
  return { digest: `sha256:${packed.digest('hex')}`, size, diffId: `sha256:${plain.digest('hex')}` };
}
