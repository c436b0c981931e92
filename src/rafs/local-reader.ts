// Reads file data whose chunks are local: synchronous, no promise, no allocation. Runs in every thread that answers a kernel.
// A miss is the business of RafsInstance on the main thread.
import { newAttr, newChunkRef, type RafsImage } from '../format/image.ts';
import { addressOf, preadFull } from '../native/file-io.ts';
import { ReaderCounters, type InstanceShare } from '../storage/cache/blob-share.ts';
import { openBootstrap, type OpenedBootstrap } from './open.ts';
import { findChunk } from './read-plan.ts';

export type { InstanceShare } from '../storage/cache/blob-share.ts';

/** A wanted chunk is not local. */
export const MISS = -1;

export class LocalReader {
  readonly image: RafsImage;
  readonly #bootstrap: OpenedBootstrap | undefined;
  readonly #dataFds: Int32Array;
  readonly #ready: Uint8Array[];
  readonly #touched: Uint8Array[];
  readonly #epochs: Int32Array[];
  readonly #counters: ReaderCounters;
  readonly #positions: Int32Array;
  readonly #attr = newAttr();
  readonly #ref = newChunkRef();

  /**
   * @param share from `RafsInstance.share`; read no more once the instance is closed: its descriptors may be reused
   * @param image given on the main thread, which has one; else the bootstrap is mapped
   */
  constructor(share: InstanceShare, image?: RafsImage) {
    if (image === undefined) this.#bootstrap = openBootstrap(share.bootstrapPath);
    this.image = image ?? (this.#bootstrap as OpenedBootstrap).image;
    this.#dataFds = Int32Array.from(share.blobs, ({ dataFd }) => dataFd);
    this.#ready = share.blobs.map(({ ready }) => new Uint8Array(ready));
    this.#touched = share.blobs.map(({ touched }) => new Uint8Array(touched));
    this.#epochs = share.blobs.map(({ epoch }) => new Int32Array(epoch));
    this.#counters = new ReaderCounters(share.counters);
    this.#positions = new Int32Array(share.positions);
  }

  /** Unmap what was mapped. The image must not be touched afterwards. */
  close(): void {
    this.#bootstrap?.close();
  }

  /**
   * Read from a regular file.
   *
   * @param targetOffset first byte of `target` to fill
   * @returns bytes read, 0 at the end of the file, MISS when a wanted chunk is not local (target may be changed)
   * @throws FormatError EINVAL  the inode or one of its chunks is damaged, or is no regular file
   */
  read(ino: number, offset: number, size: number, target: Uint8Array, targetOffset: number): number {
    const { image } = this;
    const ref = this.#ref;
    image.attr(ino, this.#attr);
    const end = Math.min(offset + size, this.#attr.size);
    if (offset >= end) return 0;
    const count = image.chunkCount(ino);
    const base = addressOf(target) + targetOffset;
    let position = findChunk(image, ino, count, offset, ref);
    let chunks = 0;
    // the stretch of the data file that is read next
    let runFd = -1;
    let runFile = 0;
    let runAt = 0;
    let runSize = 0;
    let runBlob = 0;
    let runEpoch = 0;
    let at = offset;
    while (at < end) {
      if (position < count && ref.fileOffset <= at) {
        const fd = this.#dataFds[ref.blobIndex] ?? -1;
        const epoch = this.#epoch(ref.blobIndex);
        if (fd < 0 || !this.#isReady(ref.blobIndex, ref.chunkIndex)) return MISS;
        const from = at - ref.fileOffset;
        const piece = Math.min(ref.uncompressedSize - from, end - at);
        const file = ref.uncompressedOffset + from;
        if (piece <= 0) return MISS; // overlapping chunks: the main thread says what is wrong
        if (fd === runFd && file === runFile + runSize && runAt + runSize === at) runSize += piece;
        else {
          if (runSize > 0 && preadFull(runFd, base + runAt - offset, runSize, runFile) !== runSize)
            return MISS;
          if (runSize > 0 && this.#epoch(runBlob) !== runEpoch) return MISS;
          runBlob = ref.blobIndex;
          runEpoch = epoch;
          runFd = fd;
          runFile = file;
          runAt = at;
          runSize = piece;
        }
        at += piece;
        chunks++;
        this.#positions[ref.blobIndex] = ref.chunkIndex;
        position++;
        if (at < end && position < count) image.chunk(ino, position, ref);
      } else {
        const holeEnd = position < count ? Math.min(ref.fileOffset, end) : end;
        target.fill(0, targetOffset + at - offset, targetOffset + holeEnd - offset);
        at = holeEnd;
      }
    }
    if (runSize > 0 && preadFull(runFd, base + runAt - offset, runSize, runFile) !== runSize) return MISS;
    // chunks that were taken away while we read them may have given us zeros
    if (runSize > 0 && this.#epoch(runBlob) !== runEpoch) return MISS;
    this.#counters.add(chunks, end - offset);
    return end - offset;
  }

  #epoch(blobIndex: number): number {
    const epoch = this.#epochs[blobIndex];
    return epoch === undefined ? 0 : Atomics.load(epoch, 0);
  }

  #isReady(blobIndex: number, chunkIndex: number): boolean {
    // Atomics: the bit was set by another thread after it wrote the data
    const bits = this.#ready[blobIndex];
    const touched = this.#touched[blobIndex];
    const byte = chunkIndex >> 3;
    const mask = 0x80 >> (chunkIndex & 7);
    if (bits === undefined || byte >= bits.length || (Atomics.load(bits, byte) & mask) === 0) return false;
    // a lost update makes a chunk look cold, which costs a fetch at worst
    if (touched !== undefined && ((touched[byte] ?? 0) & mask) === 0)
      touched[byte] = (touched[byte] ?? 0) | mask;
    return true;
  }
}
