// Issue 5 section 7: how long readers wait while one daemon follows another. The successor has been started before, as a supervisor does
// that wants to lose no time; what it costs to start one as well is a line of its own.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { localConfig, type Daemon } from '../../test/support/daemon.ts';
import { randomImage, type RandomImage } from '../../test/support/erofs-image.ts';
import { awaitKeeper, command, launch, save, takeOver } from '../../test/support/failover.ts';
import { repoRoot } from '../../test/support/golden.ts';
import { Supervisor } from '../../test/support/supervisor.ts';
import { median, type BenchContext, type Line } from '../support/context.ts';
import type { PauseReport } from './reader.ts';

const GROUP = 'one daemon follows another, under 4 readers';
const READERS = 4;
const FILES = 4;
const FILE_SIZE = 4_000_000;
/** Takeovers for each round of the bench. */
const TAKEOVERS = 5;
/** What readers do before and after, so that the pause is theirs and not that of their start. */
const SETTLE_MS = 300;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Readers past the page cache. */
class PauseReaders {
  readonly #children: { child: ChildProcess; lines: AsyncIterator<string> }[] = [];

  static async start(mountpoint: string): Promise<PauseReaders> {
    const readers = new PauseReaders();
    for (let n = 0; n < READERS; n++) {
      const script = join(repoRoot, 'bench/failover/reader.ts');
      const child = spawn(process.execPath, [script, join(mountpoint, `file${n % FILES}`)], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
      await lines.next();
      readers.#children.push({ child, lines });
    }
    return readers;
  }

  /** What they saw since the last call: the longest read of all. @throws Error a read failed */
  async longest(): Promise<number> {
    let longest = 0;
    for (const { child, lines } of this.#children) {
      child.stdin?.write('\n');
      const { errors, longestMs } = JSON.parse((await lines.next()).value as string) as PauseReport;
      if (errors > 0) throw new Error(`${errors} reads failed during a takeover`);
      longest = Math.max(longest, longestMs);
    }
    return longest;
  }

  end(): void {
    for (const { child } of this.#children) child.kill('SIGKILL');
  }
}

interface Stage {
  dir: string;
  mountpoint: string;
  image: RandomImage;
  config: object;
}

function stage(context: BenchContext, name: string): Stage {
  const dir = join(context.dir, 'work', name);
  rmSync(dir, { recursive: true, force: true });
  const mountpoint = join(dir, 'mnt');
  mkdirSync(mountpoint, { recursive: true });
  const image = randomImage(dir, FILES, FILE_SIZE);
  return { dir, mountpoint, image, config: localConfig(image.blobs, join(dir, 'cache')) };
}

async function kill(daemon: Daemon): Promise<void> {
  daemon.child.kill('SIGKILL');
  await daemon.ended;
}

/** Pauses of planned upgrades, or of crashes, with a successor that waits. */
async function withSuccessor(at: Stage, count: number, crash: boolean): Promise<number[]> {
  const supervisor = new Supervisor(join(at.dir, 'd.sock'));
  const args = ['--supervisor', supervisor.path, '--id', 'd'];
  const place = { dir: at.dir, mountpoint: at.mountpoint };
  const first = { ...place, socket: 'api0.sock', bootstrap: at.image.bootstrap, config: at.config, args };
  let { daemon } = await launch(first);
  const readers = await PauseReaders.start(at.mountpoint);
  const pauses: number[] = [];
  try {
    for (let n = 1; n <= count; n++) {
      await save(daemon, supervisor);
      const more = { ...place, socket: `api${n}.sock`, args: [...args, '--upgrade'] };
      const { daemon: next } = await launch(more);
      await sleep(SETTLE_MS);
      await readers.longest();
      if (crash) await kill(daemon);
      await takeOver(next, supervisor);
      if (!crash) await command(daemon, '/api/v1/daemon/exit');
      await daemon.ended;
      await command(next, '/api/v1/daemon/start');
      await sleep(SETTLE_MS);
      pauses.push(await readers.longest());
      daemon = next;
    }
  } finally {
    readers.end();
    await daemon.stop();
    supervisor.close();
  }
  return pauses;
}

/** Pauses of crashes after which the next daemon has to be started, and finds a guardian. */
async function withGuardian(at: Stage, count: number): Promise<number[]> {
  const { dir, mountpoint, image, config } = at;
  const args = ['--failover-policy', 'resend'];
  const options = { dir, mountpoint, bootstrap: image.bootstrap, config, args };
  let { daemon } = await launch(options);
  const readers = await PauseReaders.start(mountpoint);
  const pauses: number[] = [];
  try {
    let guardian = await awaitKeeper(daemon.apisock);
    for (let n = 0; n < count; n++) {
      await sleep(SETTLE_MS);
      await readers.longest();
      await kill(daemon);
      ({ daemon } = await launch(options));
      guardian = await awaitKeeper(daemon.apisock, guardian);
      await sleep(SETTLE_MS);
      pauses.push(await readers.longest());
    }
  } finally {
    readers.end();
    await daemon.stop();
  }
  return pauses;
}

function line(what: string, pauses: readonly number[], limit?: number): Line {
  return {
    group: GROUP,
    what,
    unit: 'ms',
    better: 'less',
    figures: { ours: median(pauses) },
    ...(limit === undefined ? {} : { target: { limit } }),
    remark: `longest of ${pauses.length}: ${Math.max(...pauses).toFixed(0)} ms`,
  };
}

/** Lines about takeovers. A read that fails fails the bench. */
export async function benchFailover(context: BenchContext): Promise<Line[]> {
  const count = TAKEOVERS * context.rounds;
  context.note(`failover: ${count} upgrades`);
  const upgrades = await withSuccessor(stage(context, 'upgrade'), count, false);
  context.note(`failover: ${count} crashes, the successor waits`);
  const crashes = await withSuccessor(stage(context, 'crash'), count, true);
  context.note(`failover: ${count} crashes, the successor is started`);
  const starts = await withGuardian(stage(context, 'guardian'), count);
  return [
    line('hot upgrade, longest pause of a reader', upgrades, 150),
    line('kill -9, the successor waits: until readers go on', crashes, 500),
    line('kill -9, the successor is started: until readers go on', starts),
  ];
}
