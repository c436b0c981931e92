// Finds out what a path holds: OCI layout as directory or tar, or what `docker save` writes.
import { UsageError } from '../base/errors.ts';
import { openLocalFiles } from './local-files.ts';
import { dockerSource, isDockerArchive } from './source-docker.ts';
import { isLayout, layoutSource } from './source-layout.ts';
import type { ImageSource } from './source.ts';
import { wantedName } from './wanted-name.ts';

/**
 * Open an image on disk.
 *
 * @param reference which image, when the path holds several
 * @throws UsageError exit 1  the path holds no image
 */
export async function openLocalSource(path: string, reference: string): Promise<ImageSource> {
  const files = await openLocalFiles(path);
  const wanted = wantedName(reference);
  // new versions of docker save write both: the layout has the digests
  if (await isLayout(files)) return layoutSource(files, wanted);
  if (await isDockerArchive(files)) return dockerSource(files, wanted);
  throw new UsageError(`${path} holds neither an OCI layout nor a docker archive`, { exitCode: 1 });
}
