// Takes the bootstrap out of the last layer of a nydus image. Source: nydus-image-and-nydusify.md 7.2.
import { createHash } from 'node:crypto';
import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from '../../base/errors.ts';
import { GIB } from '../../base/limits.ts';
import { writeParts } from '../../build/blob-output.ts';
import { TarParser } from '../../format/tar/archive.ts';
import { TarType } from '../../format/tar/archive-header.ts';
import { BOOTSTRAP_DIRECTORY, BOOTSTRAP_MEMBER } from '../bootstrap-layer.ts';
import type { LayerInput } from '../source.ts';
import { decoded } from './decoded.ts';

/** Bytes of the unpacked layer: metadata of tens of millions of files. */
export const MAX_BOOTSTRAP_LAYER = 8 * GIB;

/** What was found. */
export interface BootstrapFiles {
  /** sha256 of the tar, as the config of the image lists it */
  diffId: string;
  /** the bootstrap on disk */
  bootstrap: string;
}

/** Path below the target for a member that is wanted: files directly below `image/`. */
function wantedPath(name: string): string | undefined {
  const plain = name.replace(/^(\.?\/)+/, '');
  const match = /^image\/([^/\0]+)$/.exec(plain);
  return match?.[1] === undefined || match[1] === '..' || match[1] === '.' ? undefined : plain;
}

/**
 * Unpack the files below `image/` of a layer.
 *
 * @param dir where they go, as `<dir>/image/…`; made
 * @throws FormatError there is no bootstrap in it, or it is no tar
 */
export async function extractBootstrap(
  layer: LayerInput,
  dir: string,
  signal: AbortSignal,
): Promise<BootstrapFiles> {
  await mkdir(join(dir, BOOTSTRAP_DIRECTORY), { recursive: true });
  const hash = createHash('sha256');
  const parser = new TarParser();
  const files = new Set<string>();
  let file: FileHandle | undefined;
  let size = 0;
  try {
    for await (const chunk of decoded(layer.open(signal), signal)) {
      size += chunk.length;
      if (size > MAX_BOOTSTRAP_LAYER)
        throw new FormatError({ struct: 'bootstrap layer' }, `has more than ${MAX_BOOTSTRAP_LAYER} bytes`);
      hash.update(chunk);
      parser.feed(chunk);
      for (let event = parser.next(); event !== undefined; event = parser.next()) {
        if (event.type === 'data') {
          if (file !== undefined) await writeParts(file, [event.bytes]);
          continue;
        }
        await file?.close();
        file = undefined;
        if (event.type === 'end') continue;
        const { name, type } = event.entry;
        const path = wantedPath(Buffer.from(name).toString());
        const regular = type === TarType.regular || type === TarType.regularOld;
        if (path === undefined || !regular) parser.skipData();
        else {
          file = await open(join(dir, path), 'w', 0o644);
          files.add(path);
        }
      }
    }
  } finally {
    await file?.close();
  }
  if (!files.has(BOOTSTRAP_MEMBER))
    throw new FormatError({ struct: 'bootstrap layer' }, `has no ${BOOTSTRAP_MEMBER}`);
  return { diffId: `sha256:${hash.digest('hex')}`, bootstrap: join(dir, BOOTSTRAP_MEMBER) };
}
