// Starts load generators together and adds up what they did; and fio for reads of large files.
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { cpuOf, timed } from './context.ts';
import type { Load, LoadResult } from './load.ts';

const generator = fileURLToPath(new URL('load.ts', import.meta.url));

/** What several clients did together. */
export interface Driven {
  /** operations a second, all clients together */
  perSecond: number;
  /** MB (10^6) a second */
  megabytesPerSecond: number;
  /** µs, median over clients of the median call */
  p50: number;
  /** µs of CPU time of the serving process for each operation; 0 without one */
  cpuPerOperation: number;
}

/** Run `clients` processes of one load on a list of relative paths. */
export async function drive(
  kind: Load,
  root: string,
  list: string,
  clients: number,
  daemonPid?: number,
): Promise<Driven> {
  const children = Array.from({ length: clients }, (_, part) =>
    spawn(process.execPath, [generator, kind, root, list, String(part), String(clients)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    }),
  );
  const readers = children.map((child) => createInterface({ input: child.stdout })[Symbol.asyncIterator]());
  const line = async (at: number): Promise<string> => {
    const next = await readers[at]?.next();
    if (next === undefined || next.done === true)
      throw new Error(`load generator ${kind} on ${root} ended early`);
    return next.value;
  };
  for (let at = 0; at < clients; at++) await line(at);
  const cpuBefore = daemonPid === undefined ? 0 : cpuOf(daemonPid);
  for (const child of children) child.stdin.end('x');
  const results: LoadResult[] = [];
  for (let at = 0; at < clients; at++) results.push(JSON.parse(await line(at)) as LoadResult);
  const cpu = daemonPid === undefined ? 0 : cpuOf(daemonPid) - cpuBefore;
  const began = Math.min(...results.map((result) => result.began));
  const ended = Math.max(...results.map((result) => result.ended));
  const seconds = (ended - began) / 1e9;
  const operations = results.reduce((sum, result) => sum + result.operations, 0);
  const bytes = results.reduce((sum, result) => sum + result.bytes, 0);
  return {
    perSecond: operations / seconds,
    megabytesPerSecond: bytes / 1e6 / seconds,
    p50: results.map((result) => result.p50).sort((a, b) => a - b)[results.length >> 1] ?? 0,
    cpuPerOperation: (cpu * 1000) / Math.max(1, operations),
  };
}

export interface FioJob {
  pattern: 'read' | 'randread';
  blockSize: string;
  jobs: number;
  /** bytes read by each job, cut to its share of a file; each block at most once */
  bytesPerJob: number;
}

interface FioReport {
  jobs: { read: { iops: number; bw_bytes: number; lat_ns: { mean: number } } }[];
}

/** Read large files with fio, each job its own part of them. Pages of the mount are dropped before. */
export async function fio(files: string[], job: FioJob, daemonPid?: number): Promise<Driven> {
  const args = [
    '--output-format=json',
    '--ioengine=psync',
    '--thread',
    '--group_reporting',
    '--readonly',
    '--invalidate=1',
  ];
  args.push(`--rw=${job.pattern}`, `--bs=${job.blockSize}`, '--randrepeat=1');
  const sharers = Math.ceil(job.jobs / files.length);
  const size = Math.min(...files.map((file) => statSync(file).size));
  const region = Math.floor(size / sharers / 2 ** 20) * 2 ** 20;
  const bytes = Math.min(job.bytesPerJob, region);
  for (let at = 0; at < job.jobs; at++) {
    const offset = Math.floor(at / files.length) * region;
    args.push(`--name=job${at}`, `--filename=${files[at % files.length]}`, `--randseed=${at + 1}`);
    args.push(`--offset=${offset}`, `--size=${region}`, `--io_size=${bytes}`);
  }
  const cpuBefore = daemonPid === undefined ? 0 : cpuOf(daemonPid);
  const { stdout } = await timed(['fio', ...args]);
  const cpu = daemonPid === undefined ? 0 : cpuOf(daemonPid) - cpuBefore;
  const read = (JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioReport).jobs[0]?.read;
  if (read === undefined) throw new Error('fio reported no job');
  const operations = (job.jobs * bytes) / parseSize(job.blockSize);
  return {
    perSecond: read.iops,
    megabytesPerSecond: read.bw_bytes / 1e6,
    p50: read.lat_ns.mean / 1000,
    cpuPerOperation: (cpu * 1000) / operations,
  };
}

function parseSize(text: string): number {
  return text.endsWith('m') ? Number.parseInt(text, 10) << 20 : Number.parseInt(text, 10) << 10;
}
