// Blobs as files of a directory, or one file that stands for every blob. Source: blob-and-cache.md 21.6.
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  read as readCallback,
  realpathSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { BackendError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { LocalfsConfig } from '../config.ts';
import { AccessRecorder, readAccessLog, replay } from './access-log.ts';
import type { Backend, BlobReader, ReadHow } from './backend.ts';
import { BackendMeter } from './meter.ts';

/** True for a blob id that names a file of a directory and nothing else: it comes from the image. */
export function isSafeBlobId(blobId: string): boolean {
  return (
    blobId !== '' &&
    blobId !== '.' &&
    blobId !== '..' &&
    !/[/\0]/.test(blobId) &&
    Buffer.byteLength(blobId) <= 255
  );
}

function readOnce(fd: number, target: Uint8Array, done: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    readCallback(fd, target, done, target.length - done, position, (error, got) =>
      error === null ? resolve(got) : reject(error),
    );
  });
}

class LocalfsReader implements BlobReader {
  readonly blobId: string;
  readonly fd: number;
  readonly #path: string;
  readonly #meter: BackendMeter;
  readonly #recorder: AccessRecorder | undefined;
  readonly #onClose: () => void;
  #open = true;

  constructor(
    blobId: string,
    path: string,
    meter: BackendMeter,
    config: LocalfsConfig,
    logger: Logger,
    onClose: () => void,
  ) {
    this.blobId = blobId;
    this.#onClose = onClose;
    this.#path = path;
    this.#meter = meter;
    this.fd = openSync(path, 'r');
    if (!config.readahead) return;
    const log = `${path}.access`;
    if (!existsSync(log)) {
      this.#recorder = new AccessRecorder(log, config.readahead_sec, logger);
      return;
    }
    try {
      replay(this.fd, readAccessLog(log, fstatSync(this.fd).size));
    } catch (error) {
      logger.warn(`cannot replay ${log}: ${messageOf(error)}`);
    }
  }

  size(): Promise<number> {
    return Promise.resolve(fstatSync(this.fd).size);
  }

  async read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array> {
    signal?.throwIfAborted();
    const started = performance.now();
    const target = new Uint8Array(length);
    let done = 0;
    try {
      while (done < length) {
        const got = await readOnce(this.fd, target, done, offset + done);
        if (got === 0) break;
        done += got;
      }
    } catch (error) {
      this.note(offset, -1, performance.now() - started);
      how?.counted?.record(-1, performance.now() - started);
      throw new BackendError(
        `cannot read ${length} bytes at ${offset} of ${this.#path}: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    }
    this.note(offset, done, performance.now() - started);
    how?.counted?.record(done, performance.now() - started);
    signal?.throwIfAborted();
    return target.subarray(0, done);
  }

  note(offset: number, got: number, millis: number): void {
    this.#meter.record(got, millis);
    this.#recorder?.add(offset, got);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#recorder?.stop();
    closeSync(this.fd);
    this.#onClose();
  }
}

export class LocalfsBackend implements Backend {
  readonly type = 'localfs';
  readonly meter = new BackendMeter();
  readonly #config: LocalfsConfig;
  readonly #logger: Logger;
  readonly #readers = new Map<string, LocalfsReader>();

  constructor(config: LocalfsConfig, logger: Logger) {
    this.#config = config;
    this.#logger = logger;
  }

  async open(blobId: string): Promise<BlobReader> {
    const path = this.#find(blobId);
    let reader = this.#readers.get(path);
    if (reader === undefined) {
      const forget = (): void => void this.#readers.delete(path);
      reader = new LocalfsReader(blobId, path, this.meter, this.#config, this.#logger, forget);
      this.#readers.set(path, reader);
    }
    return reader;
  }

  close(): Promise<void> {
    this.#readers.forEach((reader) => reader.close());
    return Promise.resolve();
  }

  /** `blob_file`, else the first directory that has a non-empty file of that name; an empty one when nothing else is there. */
  #find(blobId: string): string {
    const { blob_file: file, dir, alt_dirs: others } = this.#config;
    if (file === '' && !isSafeBlobId(blobId)) {
      throw new BackendError(`blob id ${JSON.stringify(blobId)} is no file name`);
    }
    const folders = (dir === '' ? [] : [dir]).concat(others);
    const candidates = file === '' ? folders.map((folder) => join(folder, blobId)) : [file];
    let empty: string | undefined;
    for (const candidate of candidates) {
      try {
        const path = realpathSync(candidate);
        const stat = statSync(path);
        if (stat.isFile() && stat.size > 0) return path;
        if (stat.isFile()) empty ??= path;
      } catch {
        // not in this directory
      }
    }
    if (empty !== undefined) return empty;
    throw new BackendError(`blob ${blobId} is not there: no file ${candidates.join(', ')}`, {
      hint: 'check backend.localfs.dir, alt_dirs or blob_file of the configuration',
    });
  }
}
