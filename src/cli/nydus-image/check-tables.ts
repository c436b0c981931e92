// `check --config`: the tables of chunks inside of data blobs, read through the configured backend, must say what the bootstrap
// says. Upstream opens the blobs there too, when digests are to be validated and they lie in the blobs. Source: nydus-image 1.4,
// 4.1; blob-and-cache.md 4, 6.
import { S_IFMT, S_IFREG, SuperFlag } from '../../format/flags.ts';
import { newAttr, newChunkRef, type ChunkRef, type RafsImage } from '../../format/image.ts';
import type { Logger } from '../../base/log.ts';
import { BlobSet } from '../../rafs/blob-set.ts';
import { walkTree } from '../../rafs/walk.ts';
import { openBackend } from '../../storage/backend/backend.ts';
import type { ConfigV2 } from '../../storage/config.ts';
import { CommandFailure } from '../report.ts';
import type { ImageFile } from './open-image.ts';

/** Chunks that are compared at a time: bounds the memory of large images. */
const AT_ONCE = 65_536;

/** Are blobs to be read? For a v6 image with digests in its blobs, and a configuration that has them validated. */
export function wantsTables(config: ConfigV2, image: RafsImage): boolean {
  const validated = config.rafs?.validate === true || config.cache?.validate === true;
  const inside = (image.super.flags & SuperFlag.inlinedChunkDigest) !== 0;
  return validated && inside && config.backend !== null && image.blobs.length > 0;
}

/** Chunks of all files, by blob. */
function* chunksByBlob(image: RafsImage): Generator<[number, ChunkRef[]]> {
  const waiting = new Map<number, ChunkRef[]>();
  const attr = newAttr();
  for (const { ino } of walkTree(image)) {
    image.attr(ino, attr);
    if ((attr.mode & S_IFMT) !== S_IFREG) continue;
    const count = image.chunkCount(ino);
    for (let position = 0; position < count; position++) {
      const ref = newChunkRef();
      image.chunk(ino, position, ref);
      const list = waiting.get(ref.blobIndex) ?? [];
      waiting.set(ref.blobIndex, list);
      list.push(ref);
      if (list.length < AT_ONCE) continue;
      waiting.delete(ref.blobIndex);
      yield [ref.blobIndex, list];
    }
  }
  yield* waiting;
}

/**
 * Compare bootstrap and blobs.
 *
 * @throws CommandFailure  a blob is not there, its table is damaged, or it says something else
 */
export async function checkTables(file: ImageFile, config: ConfigV2, logger: Logger): Promise<void> {
  const { image, path } = file;
  if (config.backend === null) return;
  const backend = openBackend(config.backend, logger);
  let blobs: BlobSet | undefined;
  try {
    blobs = await BlobSet.open({ bootstrap: { image, path, close: () => {} }, backend, logger });
    for (const [blobIndex, refs] of chunksByBlob(image)) await blobs.compare(blobIndex, refs);
    logger.info(`the tables of ${image.blobs.length} blobs agree with the bootstrap`);
  } catch (error) {
    throw new CommandFailure(`failed to check the blobs of bootstrap "${path}"`, error);
  } finally {
    backend.giveUp?.();
    await blobs?.close();
    await backend.close();
  }
}
