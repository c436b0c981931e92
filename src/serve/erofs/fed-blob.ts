// One blob whose cache file the kernel reads: makes ranges of it local. Several images may use one; any of them can fetch.
import { closeSync, fstatSync } from 'node:fs';
import { BackendError, FormatError } from '../../base/errors.ts';
import { duplicateDescriptor } from '../../native/descriptor.ts';
import { forgetDataFile, knowDataFile } from '../../storage/cache/known-files.ts';
import { addressOf, pwriteFull } from '../../native/file-io.ts';
import { BlobRanges } from '../../rafs/blob-ranges.ts';
import type { RafsInstance } from '../../rafs/instance.ts';
import type { BlobCache } from '../../storage/cache/blob-cache.ts';
import { errnoName } from '../../base/errno.ts';

/** What is needed of an image; RafsInstance has it. */
export type FeedInstance = Pick<RafsInstance, 'image' | 'cacheOf' | 'fetchChunks'>;

/** A blob as one image has it. */
export interface BlobUser {
  instance: FeedInstance;
  blobIndex: number;
  cache: BlobCache;
}

/** Where the chunks of a blob are, and how they get there. */
export class FedBlob {
  readonly id: number;
  readonly dev: number;
  readonly ino: number;
  readonly path: string;
  /** an own descriptor of the open data file: marks are set and taken away through it, whatever the images do */
  readonly fd: number;
  readonly users: BlobUser[] = [];
  marked = false;
  /** requests that the main thread answered */
  readonly counts = { answered: 0, denied: 0, bytes: 0 };
  /** requests that the thread answered by itself, and their bytes; written by it alone */
  readonly allowed = new Float64Array(new SharedArrayBuffer(16));
  #ranges: Promise<BlobRanges> | undefined;
  readonly #onRanges: (ranges: BlobRanges) => void;

  /**
   * @param dataFd   open data file of the first image
   * @param onRanges called once the places of the chunks are known
   */
  constructor(id: number, dataFd: number, path: string, onRanges: (ranges: BlobRanges) => void) {
    this.id = id;
    this.path = path;
    this.fd = duplicateDescriptor(dataFd);
    const { dev, ino } = fstatSync(this.fd);
    this.dev = dev;
    this.ino = ino;
    this.#onRanges = onRanges;
    knowDataFile(path, this.fd);
  }

  /** Nobody uses it any more. */
  close(): void {
    forgetDataFile(this.path);
    closeSync(this.fd);
  }

  /** The image that is asked; the first that uses it. */
  get user(): BlobUser {
    const [user] = this.users;
    if (user === undefined) throw new BackendError('no image uses this blob any more');
    return user;
  }

  /** True when every chunk is local and known to be good: nobody needs to ask any more. */
  get complete(): boolean {
    const { map } = this.user.cache;
    return map.readyCount === map.count;
  }

  /** Where the chunks are; the table is loaded when it is first asked for, and again after a failure. */
  ranges(): Promise<BlobRanges> {
    if (this.#ranges === undefined) {
      const loading = this.#load();
      this.#ranges = loading;
      loading.catch(() => {
        if (this.#ranges === loading) this.#ranges = undefined;
      });
    }
    return this.#ranges;
  }

  async #load(): Promise<BlobRanges> {
    const { instance, blobIndex, cache } = this.user;
    const ranges = BlobRanges.build(await cache.table(), instance.image, blobIndex);
    this.#onRanges(ranges);
    return ranges;
  }

  /**
   * Make a range local.
   *
   * @throws FormatError EINVAL  nothing of the blob lies there
   * @throws BackendError EIO    it cannot be fetched, or the cache file cannot be written
   * @throws IntegrityError EIO  a chunk failed its digest
   */
  async fill(offset: number, count: number, signal: AbortSignal): Promise<void> {
    const ranges = await this.ranges();
    const chunks = ranges.covering(offset, count);
    const { instance, blobIndex, cache } = this.user;
    if (chunks === undefined) {
      throw new FormatError(
        { struct: `blob ${cache.blobId}`, offset },
        `${count} bytes are read that no chunk holds`,
      );
    }
    const missing = chunks.filter((index) => !cache.map.isReady(index));
    if (missing.length === 0) return;
    const plain = await instance.fetchChunks(blobIndex, missing, signal);
    for (const index of missing) if (!cache.map.isReady(index)) await this.#keep(index, plain.get(index));
  }

  /** A chunk that the cache did not take, perhaps because the disk was full a while ago: try once more. */
  async #keep(index: number, bytes: Uint8Array | undefined): Promise<void> {
    const { cache } = this.user;
    const { data, map } = cache;
    if (bytes === undefined || data?.writable !== true) {
      throw new BackendError(`chunk ${index} of blob ${cache.blobId} cannot be kept in the cache`);
    }
    const table = await cache.table();
    const errno = pwriteFull(data.fd, addressOf(bytes), bytes.length, table.plainOffset(index));
    if (errno !== 0) {
      throw new BackendError(`cannot write chunk ${index} to ${data.path}: ${errnoName(errno)}`, {
        hint: 'the kernel reads the cache file: make room on its disk, readers that try again then succeed',
      });
    }
    map.mark(index);
  }
}
