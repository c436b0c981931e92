// Images of one tree for everybody in the comparison, built fresh in each run.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { programCommand } from '../../test/support/programs.ts';
import { findProgram } from '../../test/support/prerequisites.ts';
import { timed, type BenchContext } from './context.ts';

/** A RAFS v6 image of ours. */
export interface RafsImage {
  bootstrap: string;
  blobs: string;
  blobIds: string[];
}

/** Build a directory into `<dir>/images/<name>` with our builder. */
export async function buildImage(
  context: BenchContext,
  name: string,
  source: string,
  compressor: string,
): Promise<RafsImage> {
  const dir = join(context.dir, 'images', name);
  rmSync(dir, { recursive: true, force: true });
  const blobs = join(dir, 'blobs');
  mkdirSync(blobs, { recursive: true });
  const [bootstrap, json] = [join(dir, 'bootstrap'), join(dir, 'result.json')];
  const target = ['--blob-dir', blobs, '--bootstrap', bootstrap, '--output-json', json];
  await timed([
    ...programCommand('nydus-image'),
    'create',
    '--log-level',
    'warn',
    '--compressor',
    compressor,
    ...target,
    source,
  ]);
  return { bootstrap, blobs, blobIds: (JSON.parse(readFileSync(json, 'utf8')) as { blobs: string[] }).blobs };
}

/** A file made once by a foreign tool, such as an ext4 or squashfs image of a tree; undefined without the tool. */
export async function foreignImage(
  context: BenchContext,
  tool: string,
  name: string,
  command: (output: string) => string[],
): Promise<string | undefined> {
  if (findProgram(tool) === undefined) return undefined;
  const output = join(context.dir, 'images', name);
  if (existsSync(output)) return output;
  mkdirSync(join(context.dir, 'images'), { recursive: true });
  const draft = `${output}.draft`;
  rmSync(draft, { force: true });
  context.note(`making ${name} with ${tool} (once)`);
  await timed(command(draft));
  renameSync(draft, output);
  return output;
}

/** Bytes of the files of a folder. */
export function folderBytes(dir: string): number {
  return readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
}
