// An image for tests of the kernel drivers: random files, so that a hole is never taken for data.
import { randomFillSync } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { localConfig } from './daemon.ts';
import { nydusImage } from './programs.ts';

export interface RandomImage {
  source: string;
  bootstrap: string;
  blobs: string;
}

/** Build an image of `count` files of about `size` bytes below `dir`. */
export function randomImage(dir: string, count: number, size: number, more: string[] = []): RandomImage {
  const [source, blobs, bootstrap] = [join(dir, 'source'), join(dir, 'blobs'), join(dir, 'boot')];
  mkdirSync(source, { recursive: true });
  mkdirSync(blobs);
  for (let i = 0; i < count; i++)
    writeFileSync(join(source, `file${i}`), randomFillSync(Buffer.alloc(size + i * 777)));
  nydusImage([
    'create',
    '--compressor',
    'none',
    '--chunk-size',
    '0x10000',
    '--blob-dir',
    blobs,
    '--bootstrap',
    bootstrap,
    ...more,
    source,
  ]);
  return { source, bootstrap, blobs };
}

/** Configuration for it, with little read-ahead, so that the cache stays incomplete for a while. */
export function slowFill(image: RandomImage, cache: string): object {
  return localConfig(image.blobs, cache, { amplify_io: 0 });
}

/** Pids of the guardians of the daemon that listens at a socket. */
export function guardiansOf(apisock: string): number[] {
  const path = [`${apisock}.guardian`, `${apisock}.fileio`].find((each) => existsSync(each));
  if (path === undefined) return [];
  const { guardians } = JSON.parse(readFileSync(path, 'utf8')) as { guardians: { pid: number }[] };
  return guardians.map(({ pid }) => pid);
}

/** The first of them. */
export function guardianOf(apisock: string): number | undefined {
  return guardiansOf(apisock)[0];
}

/** Pids of all guardians whose record is to lie below a directory, also of those that no record names. */
export function guardiansBelow(dir: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        // the name first: the arguments of a process that hangs in exec cannot be read
        if (!/^(sh|dash|busybox)\n$/.test(readFileSync(`/proc/${pid}/comm`, 'latin1'))) return false;
        const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return args[3] === 'nydusd-guardian' && (args[4] ?? '').startsWith(`${dir}/`);
      } catch {
        return false;
      }
    });
}

/** Guardians that are still there after a while. */
export async function guardiansLeft(dir: string): Promise<number[]> {
  for (let waited = 0; guardiansBelow(dir).length > 0 && waited < 100; waited++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  return guardiansBelow(dir);
}
