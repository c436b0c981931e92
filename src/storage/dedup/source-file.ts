// The cache file of another blob, opened to copy chunks out of it. While it is open nobody takes chunks away: whoever does that
// needs its lock alone (data-file.ts).
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { lockFile } from '../../native/file-lock.ts';
import { knownDataFile } from '../cache/known-files.ts';
import { pinsOf } from '../cache/pins.ts';

const SUFFIX = '.blob.data';
const EAGAIN = 11;
const EACCES = 13;

export class SourceFile {
  readonly fd: number;
  #users = 1;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** Undefined when it is not there, is no cache file, or is being changed. @param path from the database, which anybody may have written */
  static open(path: string): SourceFile | undefined {
    if (!path.startsWith('/') || !path.endsWith(SUFFIX)) return undefined;
    const known = knownDataFile(path);
    if (known !== undefined) return new SourceFile(known);
    // opening a file that a kernel mount reads waits for its daemon, which may be dead
    if (pinsOf(dirname(path), basename(path, SUFFIX)).includes('kernel')) return undefined;
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch {
      return undefined;
    }
    const errno = fstatSync(fd).isFile() ? lockFile(fd, 'shared') : EACCES;
    if (errno !== EAGAIN && errno !== EACCES) return new SourceFile(fd);
    closeSync(fd);
    return undefined;
  }

  /** One more user, who calls `release`. */
  hold(): void {
    this.#users++;
  }

  release(): void {
    if (--this.#users === 0) closeSync(this.fd);
  }
}
