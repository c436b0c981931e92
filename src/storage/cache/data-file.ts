// The sparse file that holds the local data of a blob: decoded chunks at their uncompressed offsets, or stored bytes at
// their compressed offsets. Source: blob-and-cache.md 17.2.
import { closeSync, constants, fdatasync, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { FormatError } from '../../base/errors.ts';
import { knownDataFile } from './known-files.ts';

export class DataFile {
  readonly path: string;
  readonly fd: number;
  readonly writable: boolean;
  /** length found when it was opened; chunks past it cannot be there */
  readonly foundSize: number;
  #open = true;

  private constructor(path: string, fd: number, writable: boolean, foundSize: number) {
    this.path = path;
    this.fd = fd;
    this.writable = writable;
    this.foundSize = foundSize;
  }

  /**
   * Open or create; a shorter file is extended.
   *
   * @throws FormatError EINVAL  the file is longer than the blob: it belongs to something else
   * @throws an error of node:fs  it cannot be opened, created or extended
   */
  static open(path: string, size: number): DataFile {
    let writable = true;
    let fd: number;
    try {
      fd = knownDataFile(path) ?? openSync(path, constants.O_RDWR | constants.O_CREAT, 0o644);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code !== 'EROFS' && code !== 'EACCES') throw error;
      fd = openSync(path, 'r');
      writable = false;
    }
    try {
      const found = fstatSync(fd).size;
      if (found > size && size !== 0) {
        throw new FormatError({ struct: path }, `${found} bytes long, more than the ${size} of the blob`, {
          hint: 'remove the file and its chunk map when it is not the cache of this blob',
        });
      }
      if (found < size && writable) ftruncateSync(fd, size);
      return new DataFile(path, fd, writable, found);
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

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}
