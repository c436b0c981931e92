// PERFORMANCE section 4, first line, and issue 3 section 1: how long programs take to start.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { programCommand } from '../../test/support/programs.ts';
import { median, timed, type BenchContext, type Line } from '../support/context.ts';
import { buildImage } from '../support/images.ts';
import { localConfig, startDaemon } from '../../test/support/daemon.ts';
import { peerDaemon } from '../support/systems.ts';
import { manyInodes } from '../support/trees.ts';

const REPEATS = 15;

async function medianMs(command: string[]): Promise<number> {
  await timed(command); // fills the compile cache and the page cache
  const times: number[] = [];
  for (let at = 0; at < REPEATS; at++) times.push((await timed(command)).ms);
  return median(times);
}

/** Lines about starting. */
export async function benchStartup(context: BenchContext): Promise<Line[]> {
  const lines: Line[] = [];
  const bare = await medianMs([process.execPath, '-e', '0']);
  for (const program of ['nydus-image', 'nydusd'] as const) {
    context.note(`startup: ${program} --version`);
    const figures: Record<string, number> = {
      ours: await medianMs([...programCommand(program), '--version']),
    };
    if (context.peer !== undefined)
      figures['Rust'] = await medianMs([join(context.peer, program), '--version']);
    figures['bare Node'] = bare;
    const what = `${program} --version`;
    lines.push({ group: 'start', what, unit: 'ms', better: 'less', figures, target: { limit: 80 } });
  }

  const image = await buildImage(context, 'startup', manyInodes(context), 'none');
  const figures: Record<string, number> = {};
  const peer = peerDaemon(context);
  for (const [name, command] of [
    ['ours', undefined],
    ['Rust', peer],
  ] as const) {
    if (name === 'Rust' && peer === undefined) continue;
    context.note(`startup: exec to RUNNING, 100,000 inodes, ${name}`);
    const times: number[] = [];
    for (let at = 0; at < REPEATS; at++) {
      const workDir = join(context.dir, 'work', `startup-${name}`);
      rmSync(workDir, { recursive: true, force: true });
      const daemon = await startDaemon({
        workDir,
        bootstrap: image.bootstrap,
        config: localConfig(image.blobs, join(workDir, 'cache')),
        ...(command === undefined ? {} : { command }),
      });
      times.push(daemon.startMs);
      await daemon[Symbol.asyncDispose]();
    }
    figures[name] = median(times);
  }
  const what = 'nydusd: exec to RUNNING, 100,000 inodes';
  lines.push({ group: 'start', what, unit: 'ms', better: 'less', figures, target: { limit: 120 } });
  return lines;
}
