// PERFORMANCE section 1, last column: images mounted by the kernel through nydusd, caches complete, against a plain EROFS image
// of the same tree; what an event costs; how long it takes until something is mounted; what the daemon spends.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { apiRequest, localConfig, startDaemon } from '../../test/support/daemon.ts';
import { mountErofs, requirePreContent } from '../../test/support/kernel-erofs.ts';
import { unmountBelow } from '../../test/support/temporary.ts';
import { cpuOf, dropCaches, median, type BenchContext, type Line } from '../support/context.ts';
import { drive, fio, type FioJob } from '../support/drive.ts';
import { buildImage, foreignImage, type RafsImage } from '../support/images.ts';
import type { Load } from '../support/load.ts';
import { fill, warmFiles, type System } from '../support/systems.ts';
import { largeFiles, manyFiles, pathLists, relativeFiles } from '../support/trees.ts';

const GROUP = 'served by the kernel';
const PLAIN = 'mkfs.erofs';
const MIB = 1 << 20;
/** What a daemon does after its start is not what reading costs it. */
const SETTLE_MS = 2000;

const METADATA: { what: string; load: Load; clients: number; on: 'files' | 'dirs'; unit: string }[] = [
  { what: 'uncached lookup + getattr, 1 client', load: 'stat', clients: 1, on: 'files', unit: 'op/s' },
  { what: 'open + first 4 KiB + close, 4 clients', load: 'open4k', clients: 4, on: 'files', unit: 'op/s' },
  { what: 'walk with stat, entries', load: 'walk', clients: 1, on: 'dirs', unit: 'entries/s' },
  { what: 'small files read whole, 4 clients', load: 'readall', clients: 4, on: 'files', unit: 'files/s' },
];

const READS: (FioJob & { what: string; unit: 'op/s' | 'MB/s' })[] = [
  {
    what: 'random 4 KiB, 1 job',
    pattern: 'randread',
    blockSize: '4k',
    jobs: 1,
    bytesPerJob: 64 * MIB,
    unit: 'op/s',
  },
  {
    what: 'random 128 KiB, 8 jobs',
    pattern: 'randread',
    blockSize: '128k',
    jobs: 8,
    bytesPerJob: 64 * MIB,
    unit: 'op/s',
  },
  {
    what: 'sequential, 1 job',
    pattern: 'read',
    blockSize: '1m',
    jobs: 1,
    bytesPerJob: 192 * MIB,
    unit: 'MB/s',
  },
];

/** nydusd with a driver; the cache in `<work>/cache` stays between starts. */
function driven(driver: string, image: RafsImage, work: string): System {
  return {
    name: 'ours',
    data: join(work, 'cache'),
    start: async () => {
      const daemon = await startDaemon({
        workDir: work,
        bootstrap: image.bootstrap,
        config: localConfig(image.blobs, join(work, 'cache')),
        args: ['--driver', driver, '--log-level', 'warn'],
        timeoutMs: 60_000,
      });
      return { root: daemon.mountpoint, pid: daemon.pid, stop: async () => daemon[Symbol.asyncDispose]() };
    },
  };
}

/** A plain image of the tree, mounted from its file as ours is. */
async function plain(context: BenchContext, name: string, tree: string): Promise<System | undefined> {
  const data = await foreignImage(context, 'mkfs.erofs', `${name}.erofs`, (out) => [
    'mkfs.erofs',
    '--quiet',
    out,
    tree,
  ]);
  const root = join(context.dir, 'work', `erofs-${name}-plain`);
  if (data === undefined) return undefined;
  return {
    name: PLAIN,
    data,
    start: async () => {
      mkdirSync(root, { recursive: true });
      mountErofs(data, [], root);
      return { root, pid: undefined, stop: async () => unmountBelow(root) };
    },
  };
}

type Figures = Map<string, Map<string, number[]>>;

function note(all: Figures, what: string, system: string, figure: number): void {
  const line = all.get(what) ?? new Map<string, number[]>();
  all.set(what, line);
  line.set(system, [...(line.get(system) ?? []), figure]);
}

function toLine(all: Figures, what: string, unit: string): Line {
  const figures = Object.fromEntries(
    [...(all.get(what) ?? [])].map(([system, values]) => [system, median(values)]),
  );
  const target = { versus: PLAIN, ratio: 0.95 };
  return { group: GROUP, what, unit, better: 'more', figures, target };
}

async function systemsFor(context: BenchContext, name: string, tree: string): Promise<System[]> {
  const image = await buildImage(context, `erofs-${name}`, tree, 'lz4_block');
  const work = join(context.dir, 'work', `erofs-${name}`);
  rmSync(work, { recursive: true, force: true });
  const ours = driven('fanotify', image, work);
  await fill(ours);
  const other = await plain(context, name, tree);
  return other === undefined ? [ours] : [ours, other];
}

/** What a read of local data costs while the file still has its mark: the event alone, µs. */
async function eventCost(context: BenchContext, image: RafsImage): Promise<number> {
  const work = join(context.dir, 'work', 'erofs-event');
  rmSync(work, { recursive: true, force: true });
  const cache = join(work, 'cache');
  const daemon = await startDaemon({
    workDir: work,
    bootstrap: image.bootstrap,
    config: localConfig(image.blobs, cache, { amplify_io: 0 }),
    args: ['--driver', 'fanotify', '--log-level', 'warn'],
  });
  try {
    const data = join(cache, `${image.blobIds[0]}.blob.data`);
    const blocks = 4096;
    const time = (file: string): number => {
      const began = performance.now();
      spawnSync('dd', [`if=${file}`, 'of=/dev/null', 'bs=4k', `count=${blocks}`, 'status=none']);
      return performance.now() - began;
    };
    time(data); // fetches this part; the rest of the blob stays away, and the mark stays
    const copy = join(work, 'copy');
    // this part alone: reading all of it would make the blob complete
    spawnSync('dd', [`if=${data}`, `of=${copy}`, 'bs=4k', `count=${blocks}`, 'status=none']);
    time(copy);
    return ((time(data) - time(copy)) * 1000) / blocks;
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
}

async function startMs(image: RafsImage, work: string, driver: string): Promise<number> {
  const daemon = await startDaemon({
    workDir: work,
    bootstrap: image.bootstrap,
    config: localConfig(image.blobs, join(work, 'cache')),
    args: ['--driver', driver, '--log-level', 'warn'],
  });
  await daemon[Symbol.asyncDispose]();
  return daemon.startMs;
}

/** From a request to the API until another image is mounted in the place of the one before, ms: no start of a process in it. */
async function requestMs(image: RafsImage, work: string, rounds: number): Promise<number> {
  const config = localConfig(image.blobs, join(work, 'cache'));
  const daemon = await startDaemon({
    workDir: work,
    bootstrap: image.bootstrap,
    config,
    args: ['--driver', 'fanotify', '--log-level', 'warn'],
  });
  try {
    const body = JSON.stringify({ fs_type: 'rafs', source: image.bootstrap, config: JSON.stringify(config) });
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const began = performance.now();
      const { status, body: answer } = await apiRequest(
        daemon.apisock,
        'PUT',
        '/api/v1/mount?mountpoint=/',
        body,
      );
      if (status !== 204) throw new Error(`PUT mount: ${status} ${answer}`);
      times.push(performance.now() - began);
    }
    return median(times);
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
}

/** All lines. */
export async function benchErofs(context: BenchContext): Promise<Line[]> {
  const missing = requirePreContent();
  if (missing !== false) {
    context.note(`erofs: left out, ${missing}`);
    return [];
  }
  const all: Figures = new Map();
  const many = manyFiles(context);
  const list = pathLists(context);
  const small = await systemsFor(context, 'many', many);
  const large = largeFiles(context);
  const names = relativeFiles(large);
  const big = await systemsFor(context, 'large', large);
  const cpu: number[] = [];
  for (let round = 0; round < context.rounds; round++) {
    context.note(`erofs: round ${round + 1} of ${context.rounds}`);
    for (const system of small) {
      await warmFiles(system.data);
      const running = await system.start();
      try {
        for (const { what, load, clients, on } of METADATA) {
          dropCaches(2);
          const { perSecond } = await drive(load, running.root, list[on], clients);
          note(all, what, system.name, perSecond);
        }
      } finally {
        await running.stop();
      }
    }
    for (const system of big) {
      await warmFiles(system.data);
      const running = await system.start();
      const paths = names.map((name) => join(running.root, name));
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      try {
        const before = running.pid === undefined ? 0 : cpuOf(running.pid);
        for (const line of READS) {
          const seen = await fio(paths, line);
          note(all, line.what, system.name, line.unit === 'op/s' ? seen.perSecond : seen.megabytesPerSecond);
        }
        const bytes = READS.reduce((sum, { jobs, bytesPerJob }) => sum + jobs * bytesPerJob, 0);
        if (running.pid !== undefined) cpu.push(((cpuOf(running.pid) - before) * 1e9) / bytes);
      } finally {
        await running.stop();
      }
    }
  }
  const image = await buildImage(context, 'erofs-event', large, 'lz4_block');
  const event = await eventCost(context, image);
  const work = join(context.dir, 'work', 'erofs-many');
  const manyImage = await buildImage(context, 'erofs-many', many, 'lz4_block');
  const starts: Record<string, number> = {};
  for (const [system, driver] of [
    ['ours', 'fanotify'],
    ['ours, FUSE', 'fuse'],
  ] as const) {
    const times: number[] = [];
    for (let round = 0; round < Math.max(3, context.rounds); round++)
      times.push(await startMs(manyImage, work, driver));
    starts[system] = median(times);
  }
  const request = await requestMs(manyImage, work, Math.max(9, context.rounds));
  const less = (what: string, unit: string, figures: Record<string, number>, limit?: number): Line => ({
    group: GROUP,
    what,
    unit,
    better: 'less',
    figures,
    ...(limit === undefined ? {} : { target: { limit } }),
  });
  return [
    ...[...METADATA, ...READS].map(({ what, unit }) => toLine(all, what, unit)),
    less('event for data that is local', 'µs', { ours: event }, 100),
    less('request to mounted (PUT mount)', 'ms', { ours: request }, 60),
    less('exec to RUNNING and mounted', 'ms', starts),
    less('daemon CPU for a GB of a complete blob', 'ms', { ours: median(cpu) }, 10),
  ];
}
