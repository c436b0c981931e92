// Directories, mounts and processes of a check, and their end: also when the check fails, hangs, or the process is told to stop.
import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MNT_DETACH, unmount } from '../../native/mount.ts';
import { mountInfoOf } from '../../serve/fuse/mount-info.ts';

const PREFIX = '.nydusd-doctor-';
/** Mounts on top of each other that are taken away at most. */
const MAX_LAYERS = 8;

/** Take away whatever is mounted at a directory, at once and without asking it. */
function unmountNow(path: string): void {
  for (let i = 0; i < MAX_LAYERS && mountInfoOf(path) !== undefined; i++) {
    try {
      unmount(path, MNT_DETACH);
    } catch {
      const { spawnSync } = process.getBuiltinModule('node:child_process');
      spawnSync('fusermount3', ['--unmount', '--quiet', '--lazy', '--', path], { stdio: 'ignore' });
    }
  }
}

/** What a check leaves behind until it is disposed of. */
export class Scratch {
  readonly #undo: (() => void)[] = [];
  readonly #onExit = (): void => this.dispose();

  constructor() {
    process.on('exit', this.#onExit);
  }

  /** Have something done at the end; last come, first done. It must not wait. */
  defer(undo: () => void): void {
    this.#undo.push(undo);
  }

  /** A new empty directory, links resolved. @param below existing directory; default: the temporary one */
  directory(below = tmpdir()): string {
    const path = realpathSync(mkdtempSync(join(below, PREFIX)));
    this.defer(() => rmSync(path, { recursive: true, force: true }));
    return path;
  }

  /** A new empty directory to mount at. */
  mountpoint(): string {
    const path = this.directory();
    this.defer(() => unmountNow(path));
    return path;
  }

  /** Clean up. Happens once; a step that fails does not keep the others from being done. */
  dispose(): void {
    process.off('exit', this.#onExit);
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        undo();
      } catch {
        // gone already
      }
    }
  }
}
