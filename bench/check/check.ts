// PERFORMANCE section 3: `nydusify check` of manifest and bootstrap, without a source to compare with.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { command } from '../../test/e2e/nydusify-sample.ts';
import { writeLayout } from '../../tools/demo/layers-oci.ts';
import { median, timed, type BenchContext, type Line, type Timed } from '../support/context.ts';
import { manyFiles } from '../support/trees.ts';

/** Upstream takes 0.16 s for an image of this size on the reference machine; half as fast is allowed. */
const LIMIT_S = 0.32;

/** One line: time and memory of a check. */
export async function benchCheck(context: BenchContext): Promise<Line[]> {
  const dir = join(context.dir, 'work', 'check');
  rmSync(dir, { recursive: true, force: true });
  context.note('check: converting an image of 29,000 files');
  const tar = join(context.dir, 'work', 'check.tar');
  await timed(['tar', '-C', manyFiles(context), '--sort=name', '-cf', tar, '.']);
  const layerBytes = await writeLayout(join(dir, 'layout'), [{ name: 'files', tar }]);
  const target = ['--target', 'bench/app:nydus', '--target-archive'];
  const source = ['--source', 'bench/app:1', '--source-archive', join(dir, 'layout')];
  const work = ['--work-dir', join(dir, 'tmp')];
  const nydusify = [...command(), '--log-level', 'warn'];
  await timed([
    ...nydusify,
    'convert',
    '--progress',
    'none',
    ...source,
    ...target,
    `${join(dir, 'out')}/`,
    ...work,
  ]);
  const runs: Timed[] = [];
  for (let round = 0; round < context.rounds; round++)
    runs.push(await timed([...nydusify, 'check', ...target, join(dir, 'out'), ...work]));
  const bare: Timed[] = [];
  for (let round = 0; round < context.rounds; round++) bare.push(await timed([process.execPath, '-e', '0']));
  const seconds = (of: Timed[]): number => median(of.map(({ ms }) => ms / 1000));
  return [
    {
      group: 'building',
      what: `nydusify check, manifest and bootstrap of a ${Math.round(layerBytes / 1e6)} MB image, 29,000 files`,
      unit: 's',
      better: 'less',
      figures: { ours: seconds(runs), 'bare Node': seconds(bare) },
      target: { limit: LIMIT_S },
      remark: `peak memory ${(median(runs.map(({ peakBytes }) => peakBytes)) / 1e6).toFixed(0)} MB`,
    },
  ];
}
