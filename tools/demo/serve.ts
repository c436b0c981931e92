// nydusd as the demo uses it: started cold on an empty cache, asked for its counters, stopped.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Workshop } from './workshop.ts';

/** What the backend was asked for. Source: nydusd.md 6.3. */
export interface BackendCounters {
  read_count: number;
  read_amount_total: number;
}

/** A running daemon with the image mounted. */
export interface Served {
  mountpoint: string;
  /** milliseconds from exec until the mount was usable */
  readyMs: number;
  counters(): Promise<BackendCounters>;
  stop(): Promise<void>;
}

/** Command line of a program: from the folder $NYDUS_BIN, else the built one of this checkout, else its source. */
export function program(repo: string, name: 'nydusd' | 'nydus-image' | 'nydusify'): string[] {
  const folder = process.env['NYDUS_BIN'];
  if (folder !== undefined && folder !== '') return [join(folder, name)];
  const built = join(repo, 'bin', name);
  return existsSync(built) ? [built] : [process.execPath, join(repo, 'src/bin', `${name}.ts`)];
}

function ask(socketPath: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, timeout: 5000 }, (answer) => {
      let body = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece: string) => (body += piece));
      answer.on('end', () => {
        if (answer.statusCode === 200) resolve(JSON.parse(body));
        else reject(new Error(`${path}: status ${answer.statusCode}: ${body}`));
      });
    });
    call.on('timeout', () => call.destroy(new Error(`${path}: no answer`)));
    call.on('error', reject);
    call.end();
  });
}

async function untilRunning(child: ChildProcess, apisock: string, log: () => string): Promise<void> {
  for (let waited = 0; waited < 4000; waited++) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`nydusd ended early\n${log()}`);
    try {
      const { state } = (await ask(apisock, '/api/v1/daemon')) as { state: string };
      if (state === 'RUNNING') return;
    } catch {
      // the socket is not there yet
    }
    await sleep(2);
  }
  throw new Error(`nydusd does not get to RUNNING\n${log()}`);
}

/** Where the daemon gets data from, as its configuration says it. */
export interface BackendChoice {
  type: 'localfs' | 'registry';
  config: Record<string, unknown>;
}

/** Start a daemon on an image, with an empty cache. */
export async function serve(
  shop: Workshop,
  command: string[],
  bootstrap: string,
  backend: BackendChoice,
): Promise<Served> {
  const [mountpoint, cache, apisock] = [shop.path('mnt'), shop.path('cache'), shop.path('api.sock')];
  for (const dir of [mountpoint, cache]) mkdirSync(dir, { recursive: true });
  const config = shop.path('nydusd.json');
  const device = {
    backend,
    cache: { type: 'blobcache', config: { work_dir: cache } },
  };
  writeFileSync(config, JSON.stringify({ device, mode: 'direct', enable_xattr: true }, undefined, 2));
  const [file = '', ...first] = command;
  const args = [
    '--bootstrap',
    bootstrap,
    '--mountpoint',
    mountpoint,
    '--config',
    config,
    '--apisock',
    apisock,
  ];
  const began = performance.now();
  const child = spawn(file, [...first, ...args, '--log-level', 'warn'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  shop.adopt(child);
  let log = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (piece: Buffer) => (log += piece.toString()));
  await untilRunning(child, apisock, () => log);
  return {
    mountpoint,
    readyMs: performance.now() - began,
    counters: async () => (await ask(apisock, '/api/v1/metrics/backend')) as BackendCounters,
    stop: async () => {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** Chunks that are in the cache: bits of the chunk maps. Each was compared with its digest before. Source: blob-and-cache 17. */
export function cachedChunks(cache: string): number {
  const HEADER_SIZE = 4096;
  let count = 0;
  for (const name of readdirSync(cache)) {
    if (!name.endsWith('.chunk_map')) continue;
    for (const byte of readFileSync(join(cache, name)).subarray(HEADER_SIZE)) {
      for (let bits = byte; bits !== 0; bits &= bits - 1) count++;
    }
  }
  return count;
}
