// The data of a source directory on its way into the blob: while the directory is still being read where the order of
// entry numbers is the order of storing, else file after file of a numbered tree. Source: blob-and-cache.md 3.3.
import { setImmediate } from 'node:timers/promises';
import { S_IFMT, S_IFREG } from '../format/flags.ts';
import type { TreeNode } from '../tree/node.ts';
import type { ChunkStore } from './chunk-store.ts';
import type { ProgressMeter } from './progress-meter.ts';
import type { WorkerPool } from './pool.ts';
import type { DirectoryScan } from './source-dir.ts';

/** Source data, and files, from which workers are worth their start: about 30 ms of one core. */
const WORKERS_FROM_BYTES = 8 * 1024 * 1024;
const WORKERS_FROM_FILES = 2000;
/** Entries read between two looks at what the workers have finished: about a millisecond. */
const ENTRIES_PER_TURN = 64;

export interface DataRun {
  store: ChunkStore;
  pool: WorkerPool;
  meter: ProgressMeter;
  signal: AbortSignal;
}

function startWorkers(pool: WorkerPool, scan: DirectoryScan): void {
  if (scan.dataBytes >= WORKERS_FROM_BYTES || scan.entries >= WORKERS_FROM_FILES) pool.start();
}

/** Read the rest of the tree, storing nothing yet. */
export function readAll(scan: DirectoryScan, { pool, meter }: DataRun): void {
  const steps = scan.steps();
  while (steps.next().done !== true);
  meter.totalBytes = scan.dataBytes;
  startWorkers(pool, scan);
}

/** Read the rest of the tree and store each file as soon as it is known. Of hard links the first one has the data. */
export async function storeWhileReading(scan: DirectoryScan, run: DataRun): Promise<void> {
  const { store, pool, meter, signal } = run;
  const linked = new Set<number>();
  let turn = 0;
  for (const children of scan.steps()) {
    startWorkers(pool, scan);
    for (const node of children) {
      if ((node.mode & S_IFMT) !== S_IFREG || node.size === 0) continue;
      if (node.nlink > 1) {
        if (linked.has(node.sourceIno)) continue;
        linked.add(node.sourceIno);
      }
      const wait = store.addPath(node);
      if (wait !== undefined) {
        await wait;
        signal.throwIfAborted();
      }
    }
    if (scan.entries - turn >= ENTRIES_PER_TURN) {
      turn = scan.entries;
      await setImmediate();
      signal.throwIfAborted();
    }
  }
  meter.totalBytes = scan.dataBytes;
}

/** Store these files in this order. */
export async function storeFiles(files: readonly TreeNode[], { store, signal }: DataRun): Promise<void> {
  for (const file of files) {
    const wait = store.addPath(file);
    if (wait !== undefined) {
      await wait;
      signal.throwIfAborted();
    }
  }
}
