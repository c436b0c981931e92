// The sparse file that holds the local data of a blob: decoded chunks at their uncompressed offsets, or stored bytes at
// their compressed offsets. Source: blob-and-cache.md 17.2.
import { closeSync, constants, fdatasync, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { FormatError } from '../../base/errors.ts';
import { lockFile } from '../../native/file-lock.ts';
import { isKnownDataFile, knownDataFile } from './known-files.ts';

/** Whoever deletes a blob holds its lock for milliseconds; one that is held longer means trouble. */
const LOCK_ATTEMPTS = 200;
const LOCK_PAUSE_MS = 5;
const EAGAIN = 11;
const EACCES = 13;

interface Opened {
  fd: number;
  writable: boolean;
  /** this process has the same open file elsewhere: they share their lock */
  shared: boolean;
}

function openData(path: string): Opened {
  const known = knownDataFile(path);
  if (known !== undefined) return { fd: known, writable: true, shared: true };
  try {
    return { shared: false, fd: openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644), writable: true };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EROFS' && code !== 'EACCES') throw error;
    return { shared: false, fd: openSync(path, 'r'), writable: false };
  }
}

/** Open, and share the lock that says "in use". What was deleted before we had the lock is opened anew. */
function openLocked(path: string): Opened & { locked: boolean } {
  for (let attempt = 1; ; attempt++) {
    const opened = openData(path);
    const errno = lockFile(opened.fd, 'shared');
    const busy = errno === EAGAIN || errno === EACCES;
    if (!busy && fstatSync(opened.fd).nlink > 0) return { ...opened, locked: errno === 0 };
    closeSync(opened.fd);
    if (attempt === LOCK_ATTEMPTS) throw new Error(`${path}: its lock is held by another process`);
    if (busy) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_PAUSE_MS);
  }
}

export class DataFile {
  readonly path: string;
  readonly fd: number;
  readonly writable: boolean;
  /** length found when it was opened; chunks past it cannot be there */
  readonly foundSize: number;
  /** its lock is its own */
  readonly #lockable: boolean;
  #open = true;

  private constructor(path: string, opened: Opened & { locked: boolean }, foundSize: number) {
    this.path = path;
    this.fd = opened.fd;
    this.writable = opened.writable;
    this.#lockable = opened.locked && !opened.shared;
    this.foundSize = foundSize;
  }

  /**
   * Open or create; a shorter file is extended.
   *
   * @throws FormatError EINVAL  the file is longer than the blob: it belongs to something else
   * @throws an error of node:fs  it cannot be opened, created or extended
   */
  static open(path: string, size: number): DataFile {
    const opened = openLocked(path);
    const { fd, writable } = opened;
    try {
      const found = fstatSync(fd).size;
      if (found > size && size !== 0) {
        throw new FormatError({ struct: path }, `${found} bytes long, more than the ${size} of the blob`, {
          hint: 'remove the file and its chunk map when it is not the cache of this blob',
        });
      }
      if (found < size && writable) ftruncateSync(fd, size);
      return new DataFile(path, opened, found);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Wait until the data is on the disk. */
  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      fdatasync(this.fd, (error) => (error === null ? resolve() : reject(error)));
    });
  }

  /**
   * Do something while nobody else has the file open; openers wait meanwhile, so it must be short.
   *
   * @returns what `action` gives, or undefined when others use the file, or that cannot be known
   */
  whileSole<T>(action: () => T): T | undefined {
    if (!this.#lockable || !this.writable || isKnownDataFile(this.path)) return undefined;
    if (lockFile(this.fd, 'exclusive') !== 0) return undefined;
    try {
      return action();
    } finally {
      lockFile(this.fd, 'shared');
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}
