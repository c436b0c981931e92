// Where failover tests work: a directory with an image and a mountpoint, of which nothing is left after the test.
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Daemon } from './daemon.ts';
import { randomImage, slowFill, type RandomImage } from './erofs-image.ts';
import { keeperOf, launch, type LaunchOptions } from './failover.ts';
import { tempDir } from './golden.ts';
import type { Supervisor } from './supervisor.ts';
import { unmountBelow } from './temporary.ts';

export interface Place {
  dir: string;
  mountpoint: string;
  image: RandomImage;
}

/** End the guardians of daemons below a directory. */
function endKeepers(dir: string): void {
  for (const name of readdirSync(dir).filter((each) => each.endsWith('.failover'))) {
    const pid = keeperOf(join(dir, name.slice(0, -'.failover'.length)));
    if (pid !== undefined && isSleeping(pid) && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sh\n')
      process.kill(pid, 'SIGKILL');
  }
}

/** A directory whose mounts and guardians are gone after the test. */
export function place(t: TestContext, files: number, size: number): Place {
  const dir = tempDir(t);
  const mountpoint = join(dir, 'mnt');
  mkdirSync(mountpoint);
  const image = randomImage(dir, files, size);
  t.after(() => {
    unmountBelow(dir);
    if (existsSync(dir)) endKeepers(dir);
  });
  return { dir, mountpoint, image };
}

/** A daemon that is ended with the test, however that ends. */
export async function start(
  t: TestContext,
  options: LaunchOptions,
): Promise<{ daemon: Daemon; state: string }> {
  const started = await launch(options);
  t.after(() => started.daemon.child.kill('SIGKILL'));
  return started;
}

/** With an image of its own, and a guardian. */
export function guarded({ dir, mountpoint, image }: Place, more: Partial<LaunchOptions> = {}): LaunchOptions {
  return {
    dir,
    mountpoint,
    bootstrap: image.bootstrap,
    config: slowFill(image, join(dir, 'cache')),
    args: ['--failover-policy', 'resend'],
    ...more,
  };
}

/** One of several daemons of a supervisor, each with a socket of its own. */
export function supervised(at: Place, supervisor: Supervisor, n: number, more: string[] = []): LaunchOptions {
  return {
    dir: at.dir,
    mountpoint: at.mountpoint,
    socket: `api${n}.sock`,
    args: ['--supervisor', supervisor.path, '--id', 'd1', ...more],
  };
}

/** End a daemon as a crash does. */
export async function kill(daemon: Daemon): Promise<void> {
  daemon.child.kill('SIGKILL');
  await daemon.ended;
}

/** True while a process is there and has not ended. */
export function isSleeping(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}
