// Temporary directories and mounts of tests; gone when the test ends, also when it fails.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The part of a test context, or the `node:test` module itself, that is used here. */
export interface AfterHook {
  after(fn: () => void | Promise<void>): void;
}

const left = new Set<string>();
let exitHook = false;

function remove(path: string): void {
  unmountBelow(path);
  rmSync(path, { recursive: true, force: true });
  left.delete(path);
}

/**
 * A fresh directory. Mounts below it are taken away and it is removed when the test is over.
 *
 * @param t      test context; without it the directory lives until the process ends
 * @param prefix start of its name
 */
export function tempDir(t?: AfterHook, prefix = 'nydus-test-'): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), prefix)));
  left.add(path);
  if (!exitHook) {
    exitHook = true;
    process.once('exit', () => [...left].forEach(remove));
  }
  t?.after(() => remove(path));
  return path;
}

/** Unmount whatever is mounted at or below `path` when the test is over. */
export function mountCleanup(t: AfterHook, path: string): void {
  t.after(() => unmountBelow(path));
}

/** Mount points at or below a directory, deepest first. Source: proc(5), mountinfo, field 5. */
export function mountsBelow(path: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8))),
    )
    .filter((point) => point === path || point.startsWith(`${path}/`))
    .toReversed();
}

/** Take mounts away, lazily where they are busy. */
export function unmountBelow(path: string): void {
  for (const point of mountsBelow(path)) {
    if (process.getuid?.() === 0) spawnSync('umount', ['-l', point]);
    else spawnSync('fusermount3', ['-u', '-z', point]);
  }
}
