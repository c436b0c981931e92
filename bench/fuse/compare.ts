// Compares daemons on the image of load-image.ts, in turn: all are mounted at once, a load runs on one after the other,
// and every load of every round mounts afresh (which core the kernel wakes differs from mount to mount). Prints medians and ratios to the last one.
// usage, as root: node bench/fuse/compare.ts IMAGE_DIR ROUNDS LOADS NAME=PROGRAM [NAME=PROGRAM ...]
//   LOADS: names of load.ts with the number of clients: lookup:1,rand4k:8
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

interface System {
  name: string;
  program: string;
  mountpoint: string;
  config: string;
  child: ChildProcess | undefined;
}

const LOAD = fileURLToPath(new URL('./load.ts', import.meta.url));
const START_MS = 20_000;

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `);
}

async function start(system: System, bootstrap: string): Promise<void> {
  const rust = system.program.includes('peer');
  const args = ['--config', system.config, '--bootstrap', bootstrap, '--mountpoint', system.mountpoint];
  args.push('--log-level', 'error', '--rlimit-nofile', '0', '--thread-num', '4');
  system.child = spawn(system.program, args, { stdio: ['ignore', rust ? 'ignore' : 'inherit', 'inherit'] });
  const end = performance.now() + START_MS;
  while (!isMounted(system.mountpoint) || readdirSync(system.mountpoint).length === 0) {
    if (performance.now() > end || system.child.exitCode !== null)
      throw new Error(`${system.name} does not start`);
    await pause(20);
  }
}

async function stop(system: System): Promise<void> {
  const { child } = system;
  if (child === undefined) return;
  child.kill('SIGTERM');
  while (child.exitCode === null && child.signalCode === null) await pause(10);
  if (isMounted(system.mountpoint)) execFileSync('umount', ['-l', system.mountpoint]);
  system.child = undefined;
}

/** Drop names and inodes; the pages of the cache files stay, those of the mount are new in any case. */
function dropNames(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '2');
}

interface Figures {
  perSecond: number[];
  cpu: number[];
}

function load(system: System, name: string, clients: string): { perSecond: number; cpu: number } {
  dropNames();
  const text = execFileSync(
    process.execPath,
    [LOAD, system.mountpoint, name, clients, String(system.child?.pid)],
    {
      encoding: 'utf8',
    },
  );
  const [, perSecond, cpu] = /: (\d+) \/s,.*CPU ([\d.-]+)/.exec(text) ?? [];
  return { perSecond: Number(perSecond), cpu: Number(cpu) };
}

const [image = '', rounds = '3', loads = 'lookup:1', ...programs] = process.argv.slice(2);
if (programs.length === 0 || !existsSync(join(image, 'bootstrap'))) {
  process.stderr.write('usage: compare.ts IMAGE_DIR ROUNDS LOADS NAME=PROGRAM [NAME=PROGRAM ...]\n');
  process.exit(2);
}
const work = mkdtempSync(join(tmpdir(), 'nydus-compare-'));
const systems = programs.map((text): System => {
  const [name = '', program = ''] = text.split('=');
  const dir = join(work, name);
  const mountpoint = join(dir, 'mnt');
  const config = join(dir, 'config.json');
  mkdirSync(mountpoint, { recursive: true });
  mkdirSync(join(dir, 'cache'));
  const device = {
    backend: { type: 'localfs', config: { dir: join(image, 'blobs') } },
    cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } },
  };
  writeFileSync(config, JSON.stringify({ device, mode: 'direct', enable_xattr: true }));
  return { name, program, mountpoint, config, child: undefined };
});
async function mountAll(): Promise<void> {
  for (const system of systems) await start(system, join(image, 'bootstrap'));
}

const results = new Map<string, Figures>();
try {
  await mountAll();
  // fills the cache files
  for (const { mountpoint } of systems) {
    execFileSync('find', [mountpoint, '-type', 'f', '-exec', 'cat', '{}', '+'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  for (let round = 0; round < Number(rounds); round++) {
    for (const text of loads.split(',')) {
      for (const system of systems) await stop(system);
      await mountAll();
      const [name = '', clients = '1'] = text.split(':');
      for (let turn = 0; turn < systems.length; turn++) {
        const system = systems[(turn + round) % systems.length] as System;
        const { perSecond, cpu } = load(system, name, clients);
        const key = `${text} ${system.name}`;
        const figures = results.get(key) ?? { perSecond: [], cpu: [] };
        results.set(key, figures);
        figures.perSecond.push(perSecond);
        figures.cpu.push(cpu);
      }
    }
  }
} finally {
  for (const system of systems) await stop(system);
  rmSync(work, { recursive: true, force: true });
}
const last = systems.at(-1)?.name ?? '';
for (const text of loads.split(',')) {
  const base = results.get(`${text} ${last}`)?.perSecond ?? [];
  const cells = systems.map(({ name }) => {
    const { perSecond = [], cpu = [] } = results.get(`${text} ${name}`) ?? {};
    const ratio = median(perSecond.map((value, i) => value / (base[i] ?? NaN)));
    return `${name} ${Math.round(median(perSecond))}/s ${median(cpu).toFixed(1)} µs CPU (${ratio.toFixed(2)})`;
  });
  process.stdout.write(`${text.padEnd(11)} ${cells.join('   ')}\n`);
}
