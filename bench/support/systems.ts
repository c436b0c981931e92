// Everything that can serve the same tree, started and stopped the same way: our daemon, upstream's, the kernel's EROFS,
// ext4 on a loop device, erofsfuse, squashfuse. What is not installed is left out.
import { spawnSync } from 'node:child_process';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { localConfig, startDaemon } from '../../test/support/daemon.ts';
import { mountErofs, requireErofs } from '../../test/support/kernel-erofs.ts';
import { findProgram } from '../../test/support/prerequisites.ts';
import { unmountBelow } from '../../test/support/temporary.ts';
import { timed, type BenchContext } from './context.ts';
import { foreignImage, type RafsImage } from './images.ts';
import { treeBytes } from './trees.ts';

/** A tree being served. */
export interface Running {
  root: string;
  /** the process whose CPU time is spent for reads, when there is one */
  pid: number | undefined;
  stop(): Promise<void>;
}

/** A way to serve a tree. */
export interface System {
  name: string;
  /** where its data lies: read before each round, so that all systems start from the page cache */
  data: string;
  /** so slow that one round must do */
  slow?: boolean;
  start(): Promise<Running>;
}

/** Read a file, or all files of a folder, so that their pages are in the page cache: what "complete cache" means in the figures. */
export async function warmFiles(path: string): Promise<void> {
  const files = statSync(path).isDirectory() ? readdirSync(path).map((name) => join(path, name)) : [path];
  for (const file of files) {
    for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 })) void piece;
  }
}

function freshDir(path: string): string {
  unmountBelow(path);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return path;
}

/** A nydusd: ours, or upstream's where `command` is given. The cache in `<work>/cache` stays between starts. */
export function rafsDaemon(name: string, image: RafsImage, work: string, command?: string[]): System {
  return {
    name,
    data: join(work, 'cache'),
    start: async () => {
      const daemon = await startDaemon({
        workDir: work,
        bootstrap: image.bootstrap,
        config: localConfig(image.blobs, join(work, 'cache')),
        args: ['--log-level', 'warn'],
        timeoutMs: 60_000,
        ...(command === undefined ? {} : { command }),
      });
      return { root: daemon.mountpoint, pid: daemon.pid, stop: async () => daemon[Symbol.asyncDispose]() };
    },
  };
}

/** Upstream's daemon in a folder. It may not raise the file limit everywhere, so it is told to leave it. */
export function peerDaemon(context: BenchContext): string[] | undefined {
  return context.peer === undefined ? undefined : [join(context.peer, 'nydusd'), '--rlimit-nofile', '0'];
}

/** Read every file once, so that the cache of a daemon is complete. */
export async function fill(system: System): Promise<void> {
  const running = await system.start();
  try {
    await timed(['sh', '-c', 'find . -type f -print0 | xargs -0 -n 500 -P 4 cat > /dev/null'], {
      cwd: running.root,
    });
  } finally {
    await running.stop();
  }
}

/** The kernel's EROFS on our bootstrap, with the complete cache file as its device. */
export function kernelErofs(image: RafsImage, cache: string, work: string): System | undefined {
  if (requireErofs() !== false) return undefined;
  return {
    name: 'kernel EROFS',
    data: cache,
    start: async () => {
      const root = freshDir(join(work, 'mnt'));
      mountErofs(
        image.bootstrap,
        image.blobIds.map((id) => dataFile(cache, id)),
        root,
      );
      return { root, pid: undefined, stop: async () => unmountBelow(root) };
    },
  };
}

function dataFile(cache: string, id: string): string {
  const path = join(cache, `${id}.blob.data`);
  return existsSync(path) ? path : join(cache, `${id}.data`);
}

function mounted(name: string, data: string, work: string, command: (root: string) => string[]): System {
  return {
    name,
    data,
    start: async () => {
      const root = freshDir(join(work, 'mnt'));
      const [file = '', ...args] = command(root);
      const result = spawnSync(file, args, { encoding: 'utf8' });
      if (result.status !== 0) throw new Error(`${file} ${args.join(' ')}: ${result.stderr}`);
      return { root, pid: findFuseServer(file, root), stop: async () => unmountBelow(root) };
    },
  };
}

/** The process of a FUSE file system that put itself into the background. */
function findFuseServer(file: string, root: string): number | undefined {
  const name = file.split('/').at(-1) ?? '';
  if (name === 'mount') return undefined;
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if (line.includes(name) && line.includes(root)) return Number(pid);
    } catch {
      // ended meanwhile
    }
  }
  return undefined;
}

/** ext4, squashfuse and erofsfuse on images of the same tree. */
export async function foreignSystems(context: BenchContext, name: string, tree: string): Promise<System[]> {
  const work = (system: string): string => join(context.dir, 'work', `${name}-${system}`);
  const systems: System[] = [];
  const blocks = Math.ceil((treeBytes(tree) * 1.25 + 100_000_000) / 1e6);
  const ext4 = await foreignImage(context, 'mkfs.ext4', `${name}.ext4`, (out) => [
    'mkfs.ext4',
    '-q',
    '-N',
    '150000',
    '-d',
    tree,
    out,
    `${blocks}M`,
  ]);
  if (ext4 !== undefined)
    systems.push(mounted('ext4', ext4, work('ext4'), (root) => ['mount', '-o', 'loop,ro', ext4, root]));
  const squashfs = await foreignImage(context, 'mksquashfs', `${name}.squashfs`, (out) => [
    'mksquashfs',
    tree,
    out,
    '-quiet',
    '-no-progress',
    '-comp',
    'zstd',
    '-Xcompression-level',
    '3',
  ]);
  if (squashfs !== undefined && findProgram('squashfuse') !== undefined) {
    systems.push({
      ...mounted('squashfuse', squashfs, work('squashfuse'), (root) => ['squashfuse', squashfs, root]),
      slow: true,
    });
  }
  const erofs = await foreignImage(context, 'mkfs.erofs', `${name}.erofs`, (out) => [
    'mkfs.erofs',
    '--quiet',
    out,
    tree,
  ]);
  if (erofs !== undefined && findProgram('erofsfuse') !== undefined) {
    systems.push({
      ...mounted('erofsfuse', erofs, work('erofsfuse'), (root) => ['erofsfuse', erofs, root]),
      slow: true,
    });
  }
  return systems;
}
