// One round of the kill matrix: a daemon with an empty cache, readers that check every byte, a kill at a random moment, and the next
// daemon. Odd rounds fetch from a slow server, so that kills meet fetches; even ones from a directory, so that they meet writes.
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { BlobServer } from './blob-server.ts';
import { CheckReaders, type ReaderReport } from './check-readers.ts';
import { startDaemon, type Daemon } from './daemon.ts';
import { guardiansLeft, guardiansOf, type RandomImage } from './erofs-image.ts';
import { mountsBelow, unmountBelow } from './temporary.ts';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Who is killed, in this order, with nothing between the kills of one list. */
export type Victims = 'daemon' | 'guardian, then daemon' | 'daemon and guardian';

export interface KillRound {
  /** also decides the moments */
  number: number;
  driver: 'fanotify' | 'fileio';
  victims: Victims;
  image: RandomImage;
  base: string;
  env?: NodeJS.ProcessEnv;
}

export interface KillOutcome {
  report: ReaderReport;
  /** from the first kill until the next daemon was RUNNING */
  outageMs: number;
  /** the next daemon went on with the mount */
  wentOn: boolean;
  /** problems besides what readers saw */
  problems: string[];
  log: string;
}

/** Numbers in [0, 1) that a round has for itself. */
function randomOf(seed: number): () => number {
  let state = Math.imul(seed + 1, 2654435761) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A server that takes up to 25 ms for each answer. */
async function slowServer(
  t: TestContext,
  image: RandomImage,
  path: string,
  random: () => number,
): Promise<BlobServer> {
  const blob = readFileSync(join(image.blobs, readdirSync(image.blobs)[0] ?? ''));
  // a socket serves one blob, whatever the path
  const server = await BlobServer.start(t, { socketPath: path, find: () => blob });
  server.always = (request, response) =>
    void setTimeout(() => server.serve(request, response), random() * 25);
  return server;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it ended meanwhile
  }
}

async function strike(daemon: Daemon, victims: Victims, random: () => number): Promise<void> {
  const [guardian = -1] = victims === 'daemon' ? [] : guardiansOf(daemon.apisock);
  if (victims === 'guardian, then daemon') {
    kill(guardian);
    await sleep(random() * 60);
  }
  kill(daemon.pid);
  if (victims === 'daemon and guardian') kill(guardian);
  await daemon.ended;
}

/** Play a round; everything it made is gone afterwards. */
export async function playRound(t: TestContext, round: KillRound): Promise<KillOutcome> {
  const { number, driver, victims, image, base, env } = round;
  const random = randomOf(number);
  const dir = join(base, `round${number}`);
  const socket = join(base, `s${number}`);
  const server = number % 2 === 1 ? await slowServer(t, image, socket, random) : undefined;
  mkdirSync(join(dir, 'cache'), { recursive: true });
  const config = {
    version: 2,
    backend:
      server === undefined
        ? { type: 'localfs', localfs: { dir: image.blobs } }
        : { type: 'http-proxy', 'http-proxy': { addr: socket } },
    cache: { type: 'blobcache', filecache: { work_dir: join(dir, 'cache') } },
    // little read-ahead: the cache stays incomplete for a while
    rafs: { mode: 'direct', batch_size: 0 },
  };
  const start = (): Promise<Daemon> =>
    startDaemon({
      workDir: join(dir, 'work'),
      bootstrap: image.bootstrap,
      config,
      args: ['--driver', driver],
      // many rounds go with a machine that has other things to do
      timeoutMs: 90_000,
      ...(env === undefined ? {} : { env }),
    });
  const problems: string[] = [];
  let daemon = await start();
  const readers = await CheckReaders.start(daemon.mountpoint, image.source, 4, number + 1);
  t.after(() => readers.kill());
  try {
    await sleep(random() * 250);
    let outageMs = 0;
    // now and then the successor is killed, too
    for (let left = number % 3 === 2 ? 2 : 1; left > 0; left--) {
      const began = performance.now();
      await strike(daemon, victims, random);
      await sleep(30 + random() * 200);
      daemon = await start();
      outageMs = Math.max(outageMs, performance.now() - began);
      await sleep(random() * 150);
    }
    const report = await readers.finish();
    const after = await CheckReaders.start(daemon.mountpoint, image.source, 1, number + 1);
    const healed = await after.finish();
    const { log } = daemon;
    if (healed.wrong > 0 || Object.keys(healed.errors).length > 0)
      problems.push(`afterwards: ${JSON.stringify(healed)}`);
    const status = await daemon.stop();
    if (status !== 0) problems.push(`the daemon ended with ${status}`);
    const guardians = await guardiansLeft(dir);
    if (guardians.length > 0) problems.push(`guardians that nobody knows: ${guardians.join()}`);
    if (mountsBelow(dir).length > 0) problems.push(`left behind: ${mountsBelow(dir).join()}`);
    return { report, outageMs, wentOn: /going on with the mount/.test(log), problems, log };
  } finally {
    readers.kill();
    kill(daemon.pid);
    await server?.down();
    unmountBelow(dir);
    rmSync(dir, { recursive: true, force: true });
  }
}
