// Unmounts what an earlier run left. Source: nydus-image-and-nydusify.md 9.3 (`umount MOUNT`, silent).
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** True when something is mounted on exactly this directory. Source: proc(5), mountinfo, octal escapes. */
export function isMounted(path: string): boolean {
  const wanted = resolve(path);
  const plain = (text: string): string =>
    text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  return readFileSync('/proc/self/mountinfo', 'latin1')
    .split('\n')
    .some((line) => Buffer.from(plain(line.split(' ')[4] ?? ''), 'latin1').toString() === wanted);
}

/** Unmount; nothing happens where nothing is mounted or it may not be. */
export function unmountOld(path: string): void {
  if (!isMounted(path)) return;
  if (process.getuid?.() === 0) spawnSync('umount', [resolve(path)]);
  else spawnSync('fusermount3', ['-u', resolve(path)]);
}
