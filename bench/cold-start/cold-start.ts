// PERFORMANCE section 2: from starting a daemon with an empty cache to the first useful output of a program, the blob in a
// registry behind a link. Beside it: upstream's daemon on the same image and link, and downloading the whole blob.
// BENCH_WORKLOADS=node,python,clang selects; clang only where it is named: its packages are 75 MB.
// BENCH_LINKS="100/30 1000/30" (Mbit/s / ms) replaces the links.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDaemon } from '../../test/support/daemon.ts';
import { unmountBelow } from '../../test/support/temporary.ts';
import {
  cpuOf,
  dropCaches,
  median,
  settle,
  timed,
  type BenchContext,
  type Line,
} from '../support/context.ts';
import { buildImage, type RafsImage } from '../support/images.ts';
import type { LinkCommand, LinkNumbers } from '../support/link-process.ts';
import { peerDaemon } from '../support/systems.ts';
import { clangHello, nodeServer, pythonNumpy, type Workload } from './workloads.ts';

const PREFETCHING = 'ours, prefetch_all';

interface Link {
  megabits: number;
  rttMs: number;
}

const LINKS = process.env['BENCH_LINKS'] ?? '1000/0 100/30 1000/30 1000/50';

function links(): Link[] {
  return LINKS.split(' ').map((text) => {
    const [megabits = 0, rttMs = 0] = text.split('/').map(Number);
    return { megabits, rttMs };
  });
}

/** A registry behind a link, in a process of its own. */
class LinkedRegistry {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(fileURLToPath(new URL('../support/link-process.ts', import.meta.url)), {
      stdio: 'inherit',
    });
  }

  async #ask(command: LinkCommand): Promise<unknown> {
    this.#child.send(command);
    const [{ value, error }] = (await once(this.#child, 'message')) as [{ value?: unknown; error?: string }];
    if (error !== undefined) throw new Error(error);
    return value;
  }

  async store(dir: string, blobs: string[]): Promise<void> {
    await this.#ask({ kind: 'store', dir, blobs });
  }

  /** A fresh link. @returns its port */
  async open({ megabits, rttMs }: Link): Promise<number> {
    return (await this.#ask({ kind: 'link', rttMs, bitsPerSecond: megabits * 1e6 })) as number;
  }

  async numbers(): Promise<LinkNumbers> {
    return (await this.#ask({ kind: 'numbers' })) as LinkNumbers;
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }
}

interface Outcome extends LinkNumbers {
  seconds: number;
  /** CPU time of the daemon, its start included */
  cpuMs: number;
}

function configOf(port: number, cache: string, prefetch: boolean): object {
  const registry = {
    scheme: 'http',
    host: `127.0.0.1:${port}`,
    repo: 'bench',
    timeout: 60,
    connect_timeout: 5,
  };
  mkdirSync(cache, { recursive: true });
  return {
    device: {
      backend: { type: 'registry', config: registry },
      cache: { type: 'blobcache', config: { work_dir: cache } },
    },
    mode: 'direct',
    digest_validate: false,
    enable_xattr: true,
    ...(prefetch
      ? { fs_prefetch: { enable: true, threads_count: 8, merging_size: 1048576, prefetch_all: true } }
      : {}),
  };
}

async function coldStart(
  context: BenchContext,
  registry: LinkedRegistry,
  link: Link,
  image: RafsImage,
  workload: Workload,
  system: { command: string[] | undefined; prefetch: boolean },
): Promise<Outcome> {
  const work = join(context.dir, 'work', 'cold');
  unmountBelow(work);
  rmSync(work, { recursive: true, force: true });
  await settle();
  dropCaches(3);
  const port = await registry.open(link);
  const began = performance.now();
  const daemon = await startDaemon({
    workDir: work,
    bootstrap: image.bootstrap,
    config: configOf(port, join(work, 'cache'), system.prefetch),
    args: ['--log-level', 'warn'],
    ...(system.command === undefined ? {} : { command: system.command }),
  });
  try {
    await workload.run(daemon.mountpoint);
    const seconds = (performance.now() - began) / 1000;
    return { seconds, cpuMs: cpuOf(daemon.pid), ...(await registry.numbers()) };
  } finally {
    await daemon[Symbol.asyncDispose]();
    if (process.env['BENCH_LOG'] === '1') process.stderr.write(daemon.log);
  }
}

/** Seconds for the blob alone, in one answer. */
async function download(registry: LinkedRegistry, link: Link, image: RafsImage): Promise<Outcome> {
  const port = await registry.open(link);
  const began = performance.now();
  const urls = image.blobIds.map((id) => `http://127.0.0.1:${port}/v2/bench/blobs/sha256:${id}`);
  await timed(['curl', '-sf', ...urls.flatMap((url) => ['-o', '/dev/null', url])]);
  return { seconds: (performance.now() - began) / 1000, cpuMs: 0, ...(await registry.numbers()) };
}

/** All lines of this section. */
export async function benchColdStart(context: BenchContext): Promise<Line[]> {
  const wanted = process.env['BENCH_WORKLOADS']?.split(',');
  const found = [
    await nodeServer(context),
    await pythonNumpy(context),
    ...(wanted?.includes('clang') === true ? [await clangHello(context)] : []),
  ];
  const workloads = found.filter((one) => one !== undefined);
  const peer = peerDaemon(context);
  const systems: Record<string, { command: string[] | undefined; prefetch: boolean }> = {
    ours: { command: undefined, prefetch: false },
    [PREFETCHING]: { command: undefined, prefetch: true },
    ...(peer === undefined ? {} : { Rust: { command: peer, prefetch: false } }),
  };
  const only = process.env['BENCH_SYSTEMS']?.split(';');
  const lines: Line[] = [];
  for (const workload of workloads) {
    if (wanted !== undefined && !wanted.some((word) => workload.name.startsWith(word))) continue;
    const image = await buildImage(
      context,
      `cold-${workload.name.split(' ')[0]}`.replace(',', ''),
      workload.tree,
      'zstd',
    );
    const registry = new LinkedRegistry();
    try {
      const store = join(context.dir, 'work', 'registry');
      rmSync(store, { recursive: true, force: true });
      await registry.store(
        store,
        image.blobIds.map((id) => join(image.blobs, id)),
      );
      for (const link of links()) {
        const outcomes: Record<string, Outcome[]> = {};
        for (let round = 0; round < context.rounds; round++) {
          for (const [name, system] of Object.entries(systems)) {
            if (only !== undefined && !only.includes(name)) continue;
            const outcome = await coldStart(context, registry, link, image, workload, system);
            (outcomes[name] ??= []).push(outcome);
            context.note(
              `cold start: ${workload.name}, ${link.megabits} Mbit/s, RTT ${link.rttMs} ms, ${name}: ${outcome.seconds.toFixed(2)} s, ${(outcome.bytes / 1e6).toFixed(1)} MB, ${outcome.requests} requests, ${outcome.connections} connections, CPU ${outcome.cpuMs} ms, of the link ${Math.round(outcome.linkCpuMs)} ms`,
            );
          }
        }
        if (only === undefined) outcomes['whole download'] = [await download(registry, link, image)];
        lines.push(lineOf(workload, link, outcomes), ...prefetchLine(workload, link, outcomes));
      }
    } finally {
      await registry.close();
    }
  }
  return lines;
}

/** With prefetch on, the first output comes no more than 5 % later than without: rounds take turns, so they met the same machine. */
function prefetchLine(workload: Workload, link: Link, outcomes: Record<string, Outcome[]>): Line[] {
  const [on, off] = [outcomes[PREFETCHING], outcomes['ours']].map((list) =>
    median((list ?? []).map(({ seconds }) => seconds)),
  );
  if (on === undefined || off === undefined || Number.isNaN(on + off)) return [];
  return [
    {
      group: 'cold start with everything being prefetched',
      what: `${workload.name}, ${link.megabits} Mbit/s, RTT ${link.rttMs} ms`,
      unit: 's',
      better: 'less',
      figures: { ours: on, 'without prefetch': off },
      target: { versus: 'without prefetch', ratio: 1 / 1.05 },
    },
  ];
}

function lineOf(workload: Workload, link: Link, outcomes: Record<string, Outcome[]>): Line {
  const of = (key: keyof Outcome): [string, number][] =>
    Object.entries(outcomes).map(([name, list]) => [name, median(list.map((one) => one[key]))]);
  const bytes = of('bytes').map(([name, value]) => `${name} ${(value / 1e6).toFixed(1)} MB`);
  const requests = of('requests').map(([name, value]) => `${name} ${value}`);
  return {
    group: 'cold start over a link',
    what: `${workload.name}, ${link.megabits} Mbit/s, RTT ${link.rttMs} ms`,
    unit: 's',
    better: 'less',
    figures: Object.fromEntries(of('seconds')),
    target: { versus: 'Rust', ratio: 1 },
    remark: `${workload.name}, ${link.megabits} Mbit/s, RTT ${link.rttMs} ms: ${bytes.join(', ')}; requests: ${requests.join(', ')}`,
  };
}
