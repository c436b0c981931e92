// `nydus-image check`: reads everything, then lists the blobs. Source: nydus-image 4.1, golden check.txt, check-v.txt.
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, ChunkFlag } from '../../format/flags.ts';
import type { ChunkRecord } from '../../format/chunk-record.ts';
import type { RafsImage } from '../../format/image.ts';
import { toHex } from '../../base/bytes.ts';
import { FormatError } from '../../base/errors.ts';
import { checkImage, type CheckReport } from '../../rafs/check.ts';
import { CommandFailure } from '../report.ts';
import type { CommandContext } from '../command.ts';
import type { CheckValues } from './check.ts';
import { checkTables, wantsTables } from './check-tables.ts';
import { checkFeatureNames } from './flag-names.ts';
import { imagePath } from './image-options.ts';
import { chunksOf, walkFacts, type InodeFacts } from './inode-facts.ts';
import { openImageFile, type ImageFile } from './open-image.ts';
import { quoted } from './debug-text.ts';
import { resultDocument, writeResultFile } from './result-file.ts';
import { openCommandLog, readConfig } from './shared.ts';

function kindOf(facts: InodeFacts): string {
  switch (facts.mode & S_IFMT) {
    case S_IFDIR:
      return 'dir';
    case S_IFLNK:
      return 'symlink';
    case S_IFREG:
      return facts.nlink > 1 ? 'hardlink' : 'file';
    default:
      return '';
  }
}

/** `inode: …` line of the verbose form. */
export function inodeLine(facts: InodeFacts): string {
  const link = facts.target === undefined ? 'None' : `Some(${quoted(facts.target)})`;
  return (
    `inode: ${kindOf(facts)} ${quoted(facts.path)}: index 0 ino ${facts.ino} real_ino ${facts.ino} ` +
    `child_index ${facts.childIndex} child_count ${facts.childCount} i_nlink ${facts.nlink} i_size ${facts.size} ` +
    `i_blocks ${facts.blocks} i_name_size ${facts.name.length} i_symlink_size ${facts.symlinkSize} ` +
    `has_xattr ${facts.hasXattr} link ${link} i_mtime ${BigInt.asUintN(64, BigInt(facts.mtime))} i_mtime_nsec ${facts.mtimeNsec}`
  );
}

/** `chunk: …` line of the verbose form. */
export function chunkLine(chunk: ChunkRecord): string {
  const crc = (chunk.flags & ChunkFlag.hasCrc32) === 0 ? '' : `, crc32 0x${chunk.crc32.toString(16)}`;
  return (
    `\t chunk: id ${toHex(chunk.digest)}, index ${chunk.index}, blob_index ${chunk.blobIndex}, ` +
    `file_offset ${chunk.fileOffset}, compressed ${chunk.compressedOffset}/${chunk.compressedSize}, ` +
    `uncompressed ${chunk.uncompressedOffset}/${chunk.uncompressedSize}${crc}`
  );
}

/** The lines that end a successful check. */
export function blobLines(file: ImageFile): string[] {
  const lines = file.image.blobs.map(
    (blob) =>
      `\t ${blob.index}: ${file.blobId(blob)}, compressed size ${blob.compressedSize}, ` +
      `uncompressed size ${blob.uncompressedSize}, chunk size: ${blob.chunkSize}, ` +
      `chunk count: ${blob.chunkCount}, features: ${checkFeatureNames(blob.features).join(' ')}`,
  );
  return ['RAFS filesystem metadata is valid, referenced data blobs: ', ...lines];
}

function listInodes(ctx: CommandContext, image: RafsImage): void {
  for (const facts of walkFacts(image)) {
    let text = `${inodeLine(facts)}\n`;
    for (const chunk of chunksOf(image, facts)) text += `${chunkLine(chunk)}\n`;
    ctx.stdout.write(text);
  }
}

/** Tell every problem, and fail with the first. */
function failure(ctx: CommandContext, path: string, report: CheckReport): CommandFailure {
  for (const { place, problem } of report.problems) ctx.stderr.write(`${place}: ${problem}\n`);
  const first = report.problems[0] as CheckReport['problems'][number];
  const count = `${report.problems.length}${report.truncated ? ' or more' : ''}`;
  const cause = new FormatError({ struct: first.place }, `${first.problem} (problem 1 of ${count})`);
  return new CommandFailure(`failed to check bootstrap ${quoted(Buffer.from(path))}`, cause);
}

/** @returns exit status */
export async function runCheck(ctx: CommandContext, values: CheckValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  const started = performance.now();
  try {
    const config = values.config === undefined ? undefined : readConfig(values.config, log);
    const { path, stored } = imagePath(values);
    const file = await openImageFile(path, log, stored);
    try {
      const report = checkImage(file.image);
      if (report.problems.length > 0) throw failure(ctx, path, report);
      if (config !== undefined && wantsTables(config, file.image)) await checkTables(file, config, log);
      if (values.verbose) listInodes(ctx, file.image);
      const seconds = (performance.now() - started) / 1000;
      ctx.stdout.write(`${blobLines(file).join('\n')}\n`);
      if (values['output-json'] !== undefined) {
        const document = resultDocument({
          bootstrap: path,
          blobs: file.image.blobs.map((blob) => file.blobId(blob)),
          consumedTime: { load_tree_from_bootstrap: seconds },
          events: {},
          version: file.image.super.version,
          compressor: file.image.super.compressor,
        });
        writeResultFile(values['output-json'], document, false);
      }
    } finally {
      file.close();
    }
    return 0;
  } finally {
    await log.close();
  }
}
