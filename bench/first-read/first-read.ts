// PERFORMANCE section 2, first line: reading what is not in the cache yet, blobs in a local directory (and in the page cache,
// so that decompression, digests and the cache writes are what is measured).
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { median, settle, timed, type BenchContext, type Line } from '../support/context.ts';
import { drive } from '../support/drive.ts';
import { buildImage, type RafsImage } from '../support/images.ts';
import { peerDaemon, rafsDaemon, warmFiles } from '../support/systems.ts';
import { largeFiles, manyFiles, relativeFiles, treeBytes } from '../support/trees.ts';

interface Case {
  what: string;
  image: RafsImage;
  /** MB a second of one pass over the mount */
  read: (root: string) => Promise<number>;
}

/** All lines of this section. */
export async function benchFirstRead(context: BenchContext): Promise<Line[]> {
  const large = largeFiles(context);
  const many = manyFiles(context);
  const largeMegabytes = treeBytes(large) / 1e6;
  const names = relativeFiles(large);
  const list = join(context.dir, 'lists', 'files');
  mkdirSync(join(context.dir, 'lists'), { recursive: true });
  writeFileSync(list, relativeFiles(many).join('\n'));
  const sequential = async (root: string): Promise<number> => {
    const { ms } = await timed([
      'sh',
      '-c',
      'cat "$@" > /dev/null',
      'cat',
      ...names.map((name) => join(root, name)),
    ]);
    return largeMegabytes / (ms / 1000);
  };
  const small = async (root: string): Promise<number> =>
    (await drive('readall', root, list, 4)).megabytesPerSecond;
  const cases: Case[] = [];
  for (const compressor of ['none', 'lz4_block', 'zstd']) {
    const image = await buildImage(context, `first-large-${compressor}`, large, compressor);
    cases.push({
      what: `${largeMegabytes.toFixed(0)} MB in 3 files, ${compressor}`,
      image,
      read: sequential,
    });
  }
  for (const compressor of ['lz4_block', 'zstd']) {
    const image = await buildImage(context, `first-many-${compressor}`, many, compressor);
    cases.push({ what: `29,000 small files by 4 readers, ${compressor}`, image, read: small });
  }

  const peer = peerDaemon(context);
  const lines: Line[] = [];
  for (const { what, image, read } of cases) {
    const collected: Record<string, number[]> = {};
    for (let round = 0; round < context.rounds; round++) {
      for (const name of peer === undefined ? ['ours'] : ['ours', 'Rust']) {
        context.note(`first read: ${what}, round ${round + 1} of ${context.rounds}, ${name}`);
        const work = join(context.dir, 'work', `first-${name}`);
        rmSync(work, { recursive: true, force: true });
        await settle();
        await warmFiles(image.blobs);
        const system = rafsDaemon(name, image, work, name === 'Rust' ? peer : undefined);
        const running = await system.start();
        try {
          (collected[name] ??= []).push(await read(running.root));
        } finally {
          await running.stop();
        }
      }
    }
    const figures = Object.fromEntries(
      Object.entries(collected).map(([name, values]) => [name, median(values)]),
    );
    lines.push({
      group: 'first read from localfs',
      what,
      unit: 'MB/s',
      better: 'more',
      figures,
      target: { versus: 'Rust', ratio: 1.3 },
    });
  }
  return lines;
}
