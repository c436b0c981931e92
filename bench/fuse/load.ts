// Load on a mount of the image of load-image.ts, from child processes with plain blocking calls.
// usage: node bench/fuse/load.ts MOUNTPOINT WORKLOAD CLIENTS [DAEMON_PID]
// Workloads that the kernel would answer from its caches the second time (lookup, open, walk, seq) need a fresh mount.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { getXattr } from '../../src/native/xattr.ts';

const SECONDS = Number(process.env['LOAD_SECONDS'] ?? 2);
const FILES = Number(process.env['LOAD_FILES'] ?? 40000);

/** One client's work; returns the number of operations. */
type Workload = (root: string, client: number, clients: number) => number;

function shareOf(client: number, clients: number, use: (name: string) => void): number {
  const each = Math.floor(FILES / clients);
  for (let i = client * each; i < (client + 1) * each; i++) use(`file-${String(i).padStart(6, '0')}`);
  return each;
}

function forSeconds(use: (round: number) => void): number {
  const end = performance.now() + SECONDS * 1000;
  let rounds = 0;
  while (performance.now() < end) for (let i = 0; i < 50; i++) use(rounds++);
  return rounds;
}

/** Reads at random places past the page cache. */
function randomReads(root: string, size: number): number {
  const fd = openSync(join(root, 'big'), constants.O_RDONLY | constants.O_DIRECT);
  const places = Math.floor(statSync(join(root, 'big')).size / size);
  const raw = Buffer.allocUnsafeSlow(size + 4096);
  let state = process.pid;
  const rounds = forSeconds(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    readSync(fd, raw, 0, size, (state % places) * size);
  });
  closeSync(fd);
  return rounds;
}

const WORKLOADS: Record<string, Workload> = {
  lookup: (root, client, clients) => shareOf(client, clients, (name) => void lstatSync(join(root, name))),
  missing: (root, client) =>
    forSeconds((i) => void statSync(join(root, `none-${client}-${i}`), { throwIfNoEntry: false })),
  xattr: (root, client) => {
    const path = Buffer.from(join(root, `file-${String(client).padStart(6, '0')}`));
    const name = Buffer.from('user.none');
    return forSeconds(() => void getXattr(path, name));
  },
  open: (root, client, clients) => {
    const buffer = Buffer.alloc(4096);
    return shareOf(client, clients, (name) => {
      const fd = openSync(join(root, name), 'r');
      readSync(fd, buffer, 0, 4096, 0);
      closeSync(fd);
    });
  },
  readdir: (root) => readdirSync(root).length,
  walk: (root) => {
    const names = readdirSync(root);
    for (const name of names) lstatSync(join(root, name));
    return names.length;
  },
  rand4k: (root) => randomReads(root, 4096),
  rand128k: (root) => randomReads(root, 131072),
  seq: (root, client, clients) => {
    const fd = openSync(join(root, 'big'), 'r');
    const { size } = statSync(join(root, 'big'));
    const each = Math.floor(size / clients);
    const buffer = Buffer.alloc(1 << 20);
    for (let at = 0; at < each; at += buffer.length)
      readSync(fd, buffer, 0, buffer.length, client * each + at);
    closeSync(fd);
    return each / (1 << 20);
  },
};

const [root = '', name = '', clients = '1', pid, role] = process.argv.slice(2);
const workload = WORKLOADS[name];
if (workload === undefined) {
  process.stderr.write(
    `usage: load.ts MOUNTPOINT ${Object.keys(WORKLOADS).join('|')} CLIENTS [DAEMON_PID]\n`,
  );
  process.exit(2);
}
/** Processor time of a process in seconds. Source: proc_pid_stat(5), fields 14 and 15, 100 ticks per second. */
function cpuSeconds(process: string | undefined): number {
  if (process === undefined || process === '0') return 0;
  const fields = readFileSync(`/proc/${process}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

if (role !== undefined) {
  process.stdout.write('ready\n');
  await once(process.stdin, 'data');
  const start = performance.now();
  const operations = workload(root, Number(role), Number(clients));
  process.stdout.write(JSON.stringify({ operations, ms: performance.now() - start }));
  process.exit(0);
}
const children = Array.from({ length: Number(clients) }, (_, i) =>
  spawn(process.execPath, [process.argv[1] ?? '', root, name, clients, '0', String(i)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  }),
);
await Promise.all(children.map(({ stdout }) => once(stdout, 'data')));
const before = cpuSeconds(pid);
const answers = children.map(async (child) => {
  child.stdin.write('go\n');
  const [text] = (await once(child.stdout, 'data')) as [Buffer];
  return JSON.parse(text.toString()) as { operations: number; ms: number };
});
const results = await Promise.all(answers);
const operations = results.reduce((sum, result) => sum + result.operations, 0);
const ms = Math.max(...results.map((result) => result.ms));
const cpu = cpuSeconds(pid) - before;
process.stdout.write(
  `${name.padEnd(9)} ${clients} clients: ${Math.round((operations / ms) * 1000)} /s, ` +
    `${((ms * 1000) / operations).toFixed(2)} µs each, daemon CPU ${((cpu * 1e6) / operations).toFixed(1)} µs each\n`,
);
