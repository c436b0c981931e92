// `nydus-image stat`: count images, show or write the numbers. Source: nydus-image 4.3.
import { readdirSync, realpathSync } from 'node:fs';
import { extname, join } from 'node:path';
import { UsageError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { RafsImage } from '../../format/image.ts';
import type { CommandContext } from '../command.ts';
import { CommandFailure } from '../report.ts';
import {
  addBase,
  addTarget,
  emptyStatistics,
  sharesText,
  statisticsText,
  type ChunkShares,
} from './image-statistics.ts';
import { openImageFile } from './open-image.ts';
import { writeResultFile } from './result-file.ts';
import { checkConfigFile, openCommandLog } from './shared.ts';
import type { StatValues } from './stat.ts';

async function withImage(path: string, logger: Logger, use: (image: RafsImage) => void): Promise<void> {
  const file = await openImageFile(path, logger);
  try {
    use(file.image);
  } finally {
    file.close();
  }
}

/** Files of a directory that may be bootstraps: regular, without an extension, not the target. */
export function candidates(dir: string, target: string | undefined): string[] {
  let entries;
  try {
    entries = readdirSync(dir, { withFileTypes: true });
  } catch (error) {
    throw new CommandFailure(`failed to access path "${dir}"`, error);
  }
  const excluded = target === undefined ? undefined : realpathSync(target);
  return entries
    .filter((entry) => entry.isFile() && extname(entry.name) === '')
    .map((entry) => join(dir, entry.name))
    .filter((path) => realpathSync(path) !== excluded)
    .sort();
}

/** @returns exit status */
export async function runStat(ctx: CommandContext, values: StatValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    const { bootstrap, 'blob-dir': dir, target } = values;
    checkConfigFile(values.config, log);
    const shares: ChunkShares = new Map();
    const base = emptyStatistics();
    if (bootstrap !== undefined) await withImage(bootstrap, log, (image) => addBase(base, shares, image));
    else if (dir !== undefined) {
      for (const path of candidates(dir, target)) {
        try {
          await withImage(path, log, (image) => addBase(base, shares, image));
        } catch (error) {
          log.debug(`${path} is left out: ${messageOf(error)}`); // most files of such a directory are data blobs
        }
      }
    } else {
      throw new UsageError('one of `--bootstrap` and `--blob-dir` must be specified', { exitCode: 1 });
    }
    const other = emptyStatistics();
    if (target !== undefined) await withImage(target, log, (image) => addTarget(other, shares, image));
    const shared = bootstrap === undefined;
    if (values['output-json'] !== undefined) {
      const document = {
        dedup_enabled: shared,
        target_enabled: target !== undefined,
        base_image: base,
        target_image: other,
      };
      writeResultFile(values['output-json'], document, false);
      return 0;
    }
    if (target !== undefined) ctx.stdout.write(`Target Image Statistics:\n${statisticsText(other)}`);
    ctx.stdout.write(`\n\nBase Image Statistics:\n${statisticsText(base)}`);
    if (shared) ctx.stdout.write(`\n\nChunk Deduplication Statistics:\n${sharesText(shares)}`);
    return 0;
  } finally {
    await log.close();
  }
}
