// Layer tars become an OCI image as a layout on disk, gzipped as `docker push` does it.
import { createHash } from 'node:crypto';
import {
  createReadStream,
  createWriteStream,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { MediaType, document } from '../../src/convert/oci.ts';
import { hostArchitecture } from '../../src/convert/platform.ts';
import type { Layer } from './layers.ts';

interface Packed {
  mediaType: string;
  digest: string;
  size: number;
  diffId: string;
}

async function pack(tar: string, blobs: string): Promise<Packed> {
  const [plain, packed] = [createHash('sha256'), createHash('sha256')];
  const counted = (hash: ReturnType<typeof createHash>): Transform =>
    new Transform({
      highWaterMark: 1 << 20,
      transform: (chunk: Buffer, _, done) => {
        hash.update(chunk);
        done(null, chunk);
      },
    });
  const draft = `${tar}.gz`;
  await pipeline(
    createReadStream(tar, { highWaterMark: 1 << 20 }),
    counted(plain),
    createGzip({ level: 4, chunkSize: 1 << 18 }),
    counted(packed),
    createWriteStream(draft),
  );
  const hex = packed.digest('hex');
  renameSync(draft, join(blobs, hex));
  rmSync(tar);
  const { size } = statSync(join(blobs, hex));
  const digest = `sha256:${hex}`;
  return { mediaType: MediaType.ociLayerGzip, digest, size, diffId: `sha256:${plain.digest('hex')}` };
}

/** Write the layout. @returns bytes of the layers, compressed */
export async function writeLayout(dir: string, layers: readonly Layer[]): Promise<number> {
  const blobs = join(dir, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const packed = await Promise.all(layers.map(({ tar }) => pack(tar, blobs)));
  const put = ({ bytes, descriptor }: ReturnType<typeof document>): object => {
    writeFileSync(join(blobs, descriptor.digest.slice('sha256:'.length)), bytes);
    return descriptor;
  };
  const config = document(
    {
      architecture: hostArchitecture(),
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: packed.map(({ diffId }) => diffId) },
    },
    MediaType.ociConfig,
  );
  const manifest = document(
    {
      schemaVersion: 2,
      mediaType: MediaType.ociManifest,
      config: put(config),
      layers: packed.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    },
    MediaType.ociManifest,
  );
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [put(manifest)] }));
  return packed.reduce((sum, { size }) => sum + size, 0);
}
