// Blobs as partitions of a block device or an image file, or at offsets that the configuration lists.
// Source: blob-and-cache.md 21.7.
import { closeSync, fstatSync, openSync, read as readCallback, readFileSync, readSync } from 'node:fs';
import { BackendError, messageOf, NydusError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Backend, BlobReader, ReadHow } from './backend.ts';
import { readGpt, SECTOR } from './gpt.ts';
import { BackendMeter } from './meter.ts';

/** The `backend.localdisk` section. */
export interface LocaldiskConfig {
  device_path: string;
  disable_gpt: boolean;
  /** blobs that no partition names; bytes */
  blobs: { id: string; offset: number; length: number }[];
}

/** Types and values were checked by the parser (config-parse-backend.ts); this fills in what is absent. */
export function readLocaldiskConfig(section: Record<string, unknown>): LocaldiskConfig {
  return { device_path: '', disable_gpt: false, blobs: [], ...(section as Partial<LocaldiskConfig>) };
}

/** "Microsoft basic data": its partitions hold the first half of a blob id as their name. */
const BASIC_DATA = 'ebd0a0a2b9e5443387c068b6b72699c7';
/** Characters of a blob id that such a name has. */
const SHORT_ID = 32;

interface Extent {
  start: number;
  end: number;
}

/** Bytes of a file or block device; fstat says 0 for the latter. */
function sizeOfDevice(fd: number): number {
  const stat = fstatSync(fd);
  if (!stat.isBlockDevice()) return stat.size;
  // Source: Linux makedev(3) and Documentation/ABI/stable/sysfs-block: size is in sectors of 512 bytes
  const major = (stat.rdev >>> 8) & 0xfff;
  const minor = (stat.rdev & 0xff) | ((stat.rdev >>> 12) & 0xfff00);
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * SECTOR;
}

class LocaldiskReader implements BlobReader {
  readonly blobId: string;
  /** its offsets are those of the disk: nobody else may read from it */
  readonly fd = -1;
  readonly #disk: number;
  readonly #extent: Extent;
  readonly #meter: BackendMeter;

  constructor(blobId: string, disk: number, extent: Extent, meter: BackendMeter) {
    this.blobId = blobId;
    this.#disk = disk;
    this.#extent = extent;
    this.#meter = meter;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#extent.end - this.#extent.start);
  }

  async read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array> {
    signal?.throwIfAborted();
    const started = performance.now();
    const { start, end } = this.#extent;
    const target = new Uint8Array(Math.max(0, Math.min(length, end - start - offset)));
    let done = 0;
    try {
      while (done < target.length) {
        const got = await this.#readOnce(target, done, start + offset + done);
        if (got === 0) break;
        done += got;
      }
    } catch (error) {
      this.note(offset, -1, performance.now() - started);
      how?.counted?.record(-1, performance.now() - started);
      throw new BackendError(
        `cannot read ${length} bytes at ${offset} of blob ${this.blobId}: ${messageOf(error)}`,
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

  #readOnce(target: Uint8Array, done: number, position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      readCallback(this.#disk, target, done, target.length - done, position, (error, got) =>
        error === null ? resolve(got) : reject(error),
      );
    });
  }

  note(_offset: number, got: number, millis: number): void {
    this.#meter.record(got, millis);
  }

  close(): void {}
}

export class LocaldiskBackend implements Backend {
  readonly type = 'localdisk';
  readonly meter = new BackendMeter();
  readonly #config: LocaldiskConfig;
  readonly #fd: number;
  readonly #extents = new Map<string, Extent>();

  /** @throws BackendError EIO  the device cannot be read, its partitions are damaged, or two blobs have one name */
  constructor(config: LocaldiskConfig, logger: Logger) {
    this.#config = config;
    const { device_path: path, disable_gpt, blobs } = config;
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      throw new BackendError(`cannot open ${path}: ${messageOf(error)}`, {
        cause: error,
        hint: 'device_path of backend.localdisk names a block device or a disk image',
      });
    }
    try {
      const size = sizeOfDevice(this.#fd);
      if (!disable_gpt) this.#scan(size);
      for (const { id, offset, length } of blobs)
        this.#add(id, { start: offset, end: offset + length }, size);
      logger.debug(`${path} has ${this.#extents.size} blobs`);
    } catch (error) {
      closeSync(this.#fd);
      if (error instanceof BackendError) throw error;
      const options = {
        cause: error,
        ...(error instanceof NydusError && error.hint ? { hint: error.hint } : {}),
      };
      throw new BackendError(`cannot use the partitions of ${path}: ${messageOf(error)}`, options);
    }
  }

  #scan(size: number): void {
    const read = (offset: number, length: number): Uint8Array => {
      const target = new Uint8Array(length);
      return target.subarray(0, readSync(this.#fd, target, 0, length, offset));
    };
    for (const { type, guid, name, start, end } of readGpt(read, size)) {
      const id = type === BASIC_DATA ? name : name + guid;
      if (name === '') throw new BackendError(`partition ${guid} of ${this.#config.device_path} has no name`);
      this.#add(id, { start, end }, size);
    }
  }

  #add(id: string, extent: Extent, size: number): void {
    const { device_path: path } = this.#config;
    if (this.#extents.has(id)) throw new BackendError(`${path} has two blobs ${id}`);
    if (extent.end > size || extent.end <= extent.start)
      throw new BackendError(
        `blob ${id} is at ${extent.start} to ${extent.end} of ${path}, which has ${size} bytes`,
      );
    this.#extents.set(id, extent);
  }

  async open(blobId: string): Promise<BlobReader> {
    const extent = this.#extents.get(blobId) ?? this.#extents.get(blobId.slice(0, SHORT_ID));
    if (extent !== undefined) return new LocaldiskReader(blobId, this.#fd, extent, this.meter);
    throw new BackendError(
      `can not find such blob: ${blobId}, no partition of ${this.#config.device_path} has it`,
      {
        hint: 'the image may be corrupted, or the disk is not the one that was made for it',
      },
    );
  }

  close(): Promise<void> {
    closeSync(this.#fd);
    return Promise.resolve();
  }
}
