// Runs the program of an image from a tree: the demo's own with the image's loader, so that no root is needed; the user's
// as a container would, in namespaces of its own over a writable layer in memory.
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { layout } from './layers.ts';
import type { ImageSettings } from './pull.ts';
import type { Workshop } from './workshop.ts';

export interface Run {
  /** milliseconds from exec to the first byte of output */
  firstOutputMs: number;
  totalMs: number;
  output: string;
}

/** A program that says nothing for so long is ended, ms. */
const PATIENCE = 30_000;
/** One that goes on after its first words is ended after this, ms: servers do not end by themselves. */
const AFTERWARDS = 1500;

function watch(shop: Workshop, child: ChildProcess, endless: boolean): Promise<Run> {
  shop.adopt(child);
  const began = performance.now();
  let [output, firstOutputMs, ended] = ['', 0, false];
  const end = (): void => {
    ended = true;
    child.kill('SIGKILL');
  };
  let timer = endless ? setTimeout(end, PATIENCE) : undefined;
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (piece: Buffer) => {
      if (output === '') {
        firstOutputMs = performance.now() - began;
        clearTimeout(timer);
        if (endless) timer = setTimeout(end, AFTERWARDS);
      }
      output += piece.toString();
    });
  return new Promise((done, fail) => {
    child.on('error', fail);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0 || ended || (endless && output !== ''))
        done({ firstOutputMs, totalMs: performance.now() - began, output });
      else fail(new Error(`the program in the image ended with ${signal ?? code}\n${output}`));
    });
  });
}

/** Run the demo image's Node with the image's loader and libraries on the image's script. */
export function runDemo(shop: Workshop, root: string): Promise<Run> {
  const at = (path: string): string => join(root, path);
  const args = [
    at(layout.loader),
    '--library-path',
    at(layout.libraries),
    at(layout.node),
    at(layout.script),
  ];
  // through a shell: spawn(2) blocks this process until exec is done, and exec reads the mount, which waits for our proxy
  const child = spawn('/bin/sh', ['-c', 'exec "$@"', 'sh', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/nonexistent' },
  });
  return watch(shop, child, false);
}

/** Mounts vanish with the namespace. $1 = tree, $2 = scratch directory, $3 = working directory, then the program. */
const CONTAINER = `
set -e
tree=$1 scratch=$2 where=$3
shift 3
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
mkdir -p "$scratch/root/proc" "$scratch/root/dev" "$scratch/root/tmp" "$scratch/root$where"
mount -t proc proc "$scratch/root/proc"
mount --rbind /dev "$scratch/root/dev"
exec unshare --root="$scratch/root" --wd="$where" -- "$@"
`;

/** What the image starts when nobody says otherwise. */
export function commandOf(settings: ImageSettings): string[] {
  const command = [...(settings.Entrypoint ?? []), ...(settings.Cmd ?? [])];
  const asked = process.env['DEMO_COMMAND'];
  return asked !== undefined && asked !== '' ? ['/bin/sh', '-c', asked] : command;
}

/** Run a user's image. Needs root. */
export function runContainer(shop: Workshop, root: string, settings: ImageSettings): Promise<Run> {
  const env: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  };
  for (const line of settings.Env ?? []) {
    const equals = line.indexOf('=');
    if (equals > 0) env[line.slice(0, equals)] = line.slice(equals + 1);
  }
  const where = settings.WorkingDir === undefined || settings.WorkingDir === '' ? '/' : settings.WorkingDir;
  const namespaces = ['--mount', '--pid', '--net', '--fork', '--kill-child'];
  const args = [...namespaces, '/bin/sh', '-c', CONTAINER, 'sh', root, shop.folder('scratch'), where];
  const child = spawn('/usr/bin/unshare', [...args, ...commandOf(settings)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
  });
  return watch(shop, child, true);
}
