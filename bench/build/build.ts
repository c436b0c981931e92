// PERFORMANCE section 3: building from directories, merging, checking; against upstream's builder, mkfs.erofs, zstd and tar.
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findProgram } from '../../test/support/prerequisites.ts';
import { programCommand } from '../../test/support/programs.ts';
import { median, settle, timed, type BenchContext, type Line, type Timed } from '../support/context.ts';
import { largeFiles, manyFiles, relativeFiles } from '../support/trees.ts';

type Command = (out: string) => string[];

const MEMORY_LIMIT = 400e6;

/** Targets by tree and compressor. */
const RATIOS: Record<string, Record<string, number>> = {
  many: { none: 0.8, lz4_block: 0.8, zstd: 1.4 },
  large: { none: 0.8, lz4_block: 0.8, zstd: 1.5 },
};

function create(builder: string[], tree: string, compressor: string): Command {
  const first = [
    ...builder,
    'create',
    '--log-level',
    'warn',
    '--type',
    'dir-rafs',
    '--compressor',
    compressor,
  ];
  return (out) => [...first, '--blob-dir', out, '--bootstrap', join(out, 'bootstrap'), tree];
}

async function measure(
  context: BenchContext,
  commands: Record<string, Command>,
): Promise<Record<string, Timed[]>> {
  const results: Record<string, Timed[]> = {};
  for (let round = 0; round < context.rounds; round++) {
    for (const [name, command] of Object.entries(commands)) {
      const out = join(context.dir, 'work', 'build');
      rmSync(out, { recursive: true, force: true });
      mkdirSync(out, { recursive: true });
      await settle();
      (results[name] ??= []).push(await timed(command(out)));
    }
  }
  return results;
}

function toLines(what: string, results: Record<string, Timed[]>, ratio: number | undefined): Line[] {
  const medians = (pick: (timed: Timed) => number): Record<string, number> =>
    Object.fromEntries(Object.entries(results).map(([name, runs]) => [name, median(runs.map(pick))]));
  const time: Line = {
    group: 'building',
    what,
    unit: 's',
    better: 'less',
    figures: medians(({ ms }) => ms / 1000),
  };
  if (ratio !== undefined) time.target = { versus: 'Rust', ratio };
  const cpu = medians(({ cpuMs }) => cpuMs / 1000);
  time.remark = `CPU seconds: ${Object.entries(cpu)
    .map(([name, value]) => `${name} ${value.toFixed(1)}`)
    .join(', ')}`;
  const memory: Line = {
    group: 'building: peak memory',
    what,
    unit: 'MB',
    better: 'less',
    figures: medians(({ peakBytes }) => peakBytes / 1e6),
    target: { limit: MEMORY_LIMIT / 1e6 },
  };
  return [time, memory];
}

/** Four layers of 9,000 files each, as bootstraps of our builder, named as merge wants them. */
async function layers(context: BenchContext, tree: string): Promise<string[]> {
  const dir = join(context.dir, 'work', 'layers');
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(join(dir, 'blobs'), { recursive: true });
  const files = relativeFiles(tree);
  const share = Math.ceil(files.length / 4);
  const bootstraps: string[] = [];
  for (let at = 0; at < 4; at++) {
    const [list, tar, boot, json] = ['list', 'tar', 'boot', 'json'].map((end) =>
      join(dir, `layer${at}.${end}`),
    );
    if (list === undefined || tar === undefined || boot === undefined || json === undefined) continue;
    writeFileSync(list, files.slice(at * share, (at + 1) * share).join('\n'));
    await timed(['tar', '-C', tree, '--sort=name', '-cf', tar, '-T', list]);
    const builder = [...programCommand('nydus-image'), 'create', '--log-level', 'warn', '--type', 'tar-rafs'];
    const target = [
      '--compressor',
      'none',
      '--blob-dir',
      join(dir, 'blobs'),
      '--bootstrap',
      boot,
      '--output-json',
      json,
    ];
    await timed([...builder, ...target, tar]);
    const { blobs } = JSON.parse(readFileSync(json, 'utf8')) as { blobs: string[] };
    const named = join(dir, `${blobs[0]}.boot`);
    renameSync(boot, named);
    bootstraps.push(named);
    rmSync(tar);
  }
  return bootstraps;
}

/** All lines of section 3 that concern building. */
export async function benchBuild(context: BenchContext): Promise<Line[]> {
  const builder = programCommand('nydus-image');
  const peer = context.peer === undefined ? undefined : [join(context.peer, 'nydus-image')];
  const trees = { many: manyFiles(context), large: largeFiles(context) };
  const lines: Line[] = [];
  for (const [name, tree] of Object.entries(trees)) {
    const shown = name === 'many' ? '29,000 files, 270 MB' : '605 MB in 3 files';
    for (const compressor of ['none', 'lz4_block', 'zstd']) {
      context.note(`build: ${shown}, ${compressor}`);
      const commands: Record<string, Command> = { ours: create(builder, tree, compressor) };
      if (peer !== undefined) commands['Rust'] = create(peer, tree, compressor);
      if (compressor === 'none') {
        if (findProgram('mkfs.erofs') !== undefined) {
          commands['mkfs.erofs'] = (out) => ['mkfs.erofs', '--quiet', join(out, 'image'), tree];
        }
        commands['tar'] = (out) => ['tar', '-C', tree, '-cf', join(out, 'tar'), '.'];
      }
      if (compressor === 'lz4_block' && findProgram('mkfs.erofs') !== undefined) {
        commands['mkfs.erofs'] = (out) => ['mkfs.erofs', '--quiet', '-zlz4', join(out, 'image'), tree];
      }
      if (compressor === 'zstd' && findProgram('zstd') !== undefined) {
        commands['tar'] = (out) => [
          'sh',
          '-c',
          `tar -C "$0" -cf - . | zstd -q -3 -T2 -o "$1"`,
          tree,
          join(out, 'zst'),
        ];
      }
      const results = await measure(context, commands);
      lines.push(...toLines(`${shown}, ${compressor}`, results, RATIOS[name]?.[compressor]));
    }
  }
  context.note('build: merge and check');
  const bootstraps = await layers(context, trees.many);
  const merged = join(context.dir, 'work', 'merged.boot');
  const merge =
    (program: string[]): Command =>
    () => [...program, 'merge', '--log-level', 'warn', '--bootstrap', merged, ...bootstraps];
  const check =
    (program: string[]): Command =>
    () => [...program, 'check', '--log-level', 'warn', '--bootstrap', merged];
  for (const [what, command] of [
    ['merge of 4 layers, 29,000 files', merge],
    ['check of the result', check],
  ] as const) {
    const commands: Record<string, Command> = { ours: command(builder) };
    if (peer !== undefined) commands['Rust'] = command(peer);
    lines.push(...toLines(what, await measure(context, commands), 0.7));
  }
  return lines.sort((a, b) => (a.group < b.group ? -1 : a.group > b.group ? 1 : 0));
}
