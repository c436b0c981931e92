// PERFORMANCE section 1: serving from a complete cache. Names and inodes are dropped before each metadata load, pages of
// the mount before each read load; the cache file itself stays in the page cache.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { dropCaches, median, type BenchContext, type Line } from '../support/context.ts';
import { drive, fio, type Driven, type FioJob } from '../support/drive.ts';
import { buildImage } from '../support/images.ts';
import type { Load } from '../support/load.ts';
import {
  fill,
  foreignSystems,
  kernelErofs,
  peerDaemon,
  rafsDaemon,
  warmFiles,
  type System,
} from '../support/systems.ts';
import { largeFiles, manyFiles, pathLists, relativeFiles } from '../support/trees.ts';

interface MetadataLine {
  what: string;
  load: Load;
  clients: number;
  /** list of paths: all files, or all directories */
  on: 'files' | 'dirs';
  unit: string;
  /** ours over the Rust daemon's */
  ratio: number;
}

const METADATA: MetadataLine[] = [
  {
    what: 'uncached lookup + getattr, 1 client',
    load: 'stat',
    clients: 1,
    on: 'files',
    unit: 'op/s',
    ratio: 0.8,
  },
  {
    what: 'uncached lookup + getattr, 4 clients',
    load: 'stat',
    clients: 4,
    on: 'files',
    unit: 'op/s',
    ratio: 1.1,
  },
  { what: 'getxattr, 4 clients', load: 'getxattr', clients: 4, on: 'files', unit: 'op/s', ratio: 1.1 },
  { what: 'missing names, 4 clients', load: 'missing', clients: 4, on: 'files', unit: 'op/s', ratio: 1.1 },
  {
    what: 'open + first 4 KiB + close, 1 client',
    load: 'open4k',
    clients: 1,
    on: 'files',
    unit: 'op/s',
    ratio: 0.8,
  },
  {
    what: 'open + first 4 KiB + close, 4 clients',
    load: 'open4k',
    clients: 4,
    on: 'files',
    unit: 'op/s',
    ratio: 1.1,
  },
  { what: 'readdir, entries', load: 'readdir', clients: 1, on: 'dirs', unit: 'entries/s', ratio: 1.3 },
  { what: 'walk with stat, entries', load: 'walk', clients: 1, on: 'dirs', unit: 'entries/s', ratio: 1.3 },
  {
    what: 'small files read whole, 1 client',
    load: 'readall',
    clients: 1,
    on: 'files',
    unit: 'files/s',
    ratio: 0.9,
  },
  {
    what: 'small files read whole, 4 clients',
    load: 'readall',
    clients: 4,
    on: 'files',
    unit: 'files/s',
    ratio: 1.1,
  },
];

interface ReadLine extends FioJob {
  what: string;
  unit: 'op/s' | 'MB/s';
  ratio: number;
}

const MIB = 1 << 20;
const READS: ReadLine[] = [
  {
    what: 'random 4 KiB, 1 job',
    pattern: 'randread',
    blockSize: '4k',
    jobs: 1,
    bytesPerJob: 128 * MIB,
    unit: 'op/s',
    ratio: 0.8,
  },
  {
    what: 'random 4 KiB, 8 jobs',
    pattern: 'randread',
    blockSize: '4k',
    jobs: 8,
    bytesPerJob: 32 * MIB,
    unit: 'op/s',
    ratio: 1.1,
  },
  {
    what: 'random 128 KiB, 1 job',
    pattern: 'randread',
    blockSize: '128k',
    jobs: 1,
    bytesPerJob: 192 * MIB,
    unit: 'op/s',
    ratio: 0.9,
  },
  {
    what: 'random 128 KiB, 8 jobs',
    pattern: 'randread',
    blockSize: '128k',
    jobs: 8,
    bytesPerJob: 64 * MIB,
    unit: 'op/s',
    ratio: 1,
  },
  {
    what: 'sequential, 1 job',
    pattern: 'read',
    blockSize: '1m',
    jobs: 1,
    bytesPerJob: 192 * MIB,
    unit: 'MB/s',
    ratio: 1,
  },
  {
    what: 'sequential, 8 jobs',
    pattern: 'read',
    blockSize: '1m',
    jobs: 8,
    bytesPerJob: 64 * MIB,
    unit: 'MB/s',
    ratio: 1,
  },
];

type Collected = Map<string, Map<string, { figures: number[]; cpu: number[] }>>;

function collect(all: Collected, what: string, system: string, figure: number, driven: Driven): void {
  const line = all.get(what) ?? new Map<string, { figures: number[]; cpu: number[] }>();
  all.set(what, line);
  const cell = line.get(system) ?? { figures: [], cpu: [] };
  line.set(system, cell);
  cell.figures.push(figure);
  if (driven.cpuPerOperation > 0) cell.cpu.push(driven.cpuPerOperation);
}

/** Our daemon, the peer's and the kernel on one image, caches complete, with the foreign systems behind them. */
async function systemsFor(context: BenchContext, name: string, tree: string): Promise<System[]> {
  const image = await buildImage(context, `serve-${name}`, tree, 'lz4_block');
  const work = (system: string): string => join(context.dir, 'work', `serve-${name}-${system}`);
  const systems = [rafsDaemon('ours', image, work('ours'))];
  const peer = peerDaemon(context);
  if (peer !== undefined) systems.push(rafsDaemon('Rust', image, work('rust'), peer));
  for (const system of ['ours', 'rust']) rmSync(work(system), { recursive: true, force: true });
  for (const system of systems) await fill(system);
  const kernel = kernelErofs(image, join(work('ours'), 'cache'), work('kernel'));
  if (kernel !== undefined) systems.push(kernel);
  systems.push(...(await foreignSystems(context, name, tree)));
  return systems;
}

function toLine(all: Collected, what: string, unit: string, ratio: number): Line {
  const figures: Record<string, number> = {};
  const remarks: string[] = [];
  for (const [system, cell] of all.get(what) ?? []) {
    figures[system] = median(cell.figures);
    if (cell.cpu.length > 0 && (system === 'ours' || system === 'Rust')) {
      remarks.push(`${system} ${median(cell.cpu).toFixed(1)}`);
    }
  }
  const line: Line = { group: 'serving from a complete cache', what, unit, better: 'more', figures };
  line.target = { versus: 'Rust', ratio };
  if (remarks.length > 0) line.remark = `daemon CPU, µs per operation: ${remarks.join(', ')}`;
  return line;
}

/** All lines of section 1. */
export async function benchServe(context: BenchContext): Promise<Line[]> {
  const all: Collected = new Map();
  const many = manyFiles(context);
  const list = pathLists(context);
  const small = await systemsFor(context, 'many', many);
  for (let round = 0; round < context.rounds; round++) {
    for (const system of small) {
      if (round > 0 && system.slow === true) continue;
      context.note(`serve: small files, round ${round + 1} of ${context.rounds}, ${system.name}`);
      await warmFiles(system.data);
      const running = await system.start();
      try {
        for (const line of METADATA) {
          dropCaches(2);
          const driven = await drive(line.load, running.root, list[line.on], line.clients, running.pid);
          collect(all, line.what, system.name, driven.perSecond, driven);
        }
      } finally {
        await running.stop();
      }
    }
  }

  const large = largeFiles(context);
  const names = relativeFiles(large);
  const big = await systemsFor(context, 'large', large);
  for (let round = 0; round < context.rounds; round++) {
    for (const system of big) {
      if (round > 0 && system.slow === true) continue;
      context.note(`serve: large files, round ${round + 1} of ${context.rounds}, ${system.name}`);
      await warmFiles(system.data);
      const running = await system.start();
      try {
        for (const line of READS) {
          const driven = await fio(
            names.map((name) => join(running.root, name)),
            line,
            running.pid,
          );
          collect(
            all,
            line.what,
            system.name,
            line.unit === 'op/s' ? driven.perSecond : driven.megabytesPerSecond,
            driven,
          );
        }
      } finally {
        await running.stop();
      }
    }
  }
  return [...METADATA, ...READS].map((line) => toLine(all, line.what, line.unit, line.ratio));
}
