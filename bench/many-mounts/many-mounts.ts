// Issue 5 section 7: many images in one daemon. Mount request to first stat, private memory of each further image, and how quickly the
// API answers while readers keep the daemon busy.
import { execFile, spawn } from 'node:child_process';
import { rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { apiRequest, localConfig, startDaemon, type Daemon } from '../../test/support/daemon.ts';
import { repoRoot } from '../../test/support/golden.ts';
import { median, residentOf, type BenchContext, type Line } from '../support/context.ts';
import { buildImage } from '../support/images.ts';
import { manyInodes } from '../support/trees.ts';

const MOUNTS = 255;
const READERS = 4;
const API_CALLS = 1000;
const GROUP = 'many images in one daemon';

function request(bootstrap: string, config: object): string {
  return JSON.stringify({ fs_type: 'rafs', source: bootstrap, config: JSON.stringify(config) });
}

async function call(daemon: Daemon, method: string, mountpoint: string, body?: string): Promise<void> {
  const path = `/api/v1/mount?mountpoint=${mountpoint}`;
  const { status, body: answer } = await apiRequest(daemon.apisock, method, path, body);
  if (status !== 204) throw new Error(`${method} ${mountpoint}: ${status} ${answer}`);
}

/** Value below which 99 % lie. */
function percentile99(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN;
}

async function apiTimes(daemon: Daemon): Promise<number[]> {
  const script = join(repoRoot, 'bench/many-mounts/api-client.ts');
  const args = [script, daemon.apisock, String(API_CALLS)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1 << 24 });
  return JSON.parse(stdout) as number[];
}

/** Lines about many mounts. */
export async function benchManyMounts(context: BenchContext): Promise<Line[]> {
  const image = await buildImage(context, 'memory', manyInodes(context), 'none');
  const workDir = join(context.dir, 'work', 'many');
  rmSync(workDir, { recursive: true, force: true });
  const body = request(image.bootstrap, localConfig(image.blobs, join(workDir, 'cache')));
  await using daemon = await startDaemon({ workDir });
  await call(daemon, 'POST', '/first', body);
  statSync(join(daemon.mountpoint, 'first'));
  context.note(`many mounts: ${MOUNTS} of 100,000 inodes each`);
  const before = residentOf(daemon.pid);
  const times: number[] = [];
  for (let n = 1; n < MOUNTS; n++) {
    const began = performance.now();
    await call(daemon, 'POST', `/m/${n}`, body);
    statSync(join(daemon.mountpoint, 'm', String(n)));
    times.push(performance.now() - began);
  }
  const after = residentOf(daemon.pid);
  const each = (after.privateDirty - before.privateDirty) / (MOUNTS - 1) / 1e6;
  context.note('many mounts: the API beside four readers');
  const readers = Array.from({ length: READERS }, (_, n) =>
    spawn('sh', ['-c', 'while :; do ls -lR . > /dev/null 2>&1; done'], {
      cwd: join(daemon.mountpoint, 'm', String(n + 1)),
      detached: true,
      stdio: 'ignore',
    }),
  );
  const api = await apiTimes(daemon);
  for (const reader of readers) process.kill(-(reader.pid ?? 0), 'SIGKILL');
  return [
    {
      group: GROUP,
      what: 'mount request to first stat, 100,000 inodes',
      unit: 'ms',
      better: 'less',
      figures: { ours: median(times) },
      target: { limit: 10 },
      remark: `slowest of ${MOUNTS - 1}: ${Math.max(...times).toFixed(1)} ms`,
    },
    {
      group: GROUP,
      what: 'private memory of each further image',
      unit: 'MB',
      better: 'less',
      figures: { ours: each },
      target: { limit: 1 },
    },
    {
      group: GROUP,
      what: 'API answer beside 4 readers, 99th percentile',
      unit: 'ms',
      better: 'less',
      figures: { ours: percentile99(api) },
      target: { limit: 2 },
      remark: `median ${median(api).toFixed(2)} ms, one connection, by a client that waits for no processor`,
    },
  ];
}
