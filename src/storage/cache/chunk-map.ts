// Which chunks of a blob are local. Two layers: bits in shared memory, set as soon as the data was written and seen by every
// thread, and bits in the mapped `.chunk_map` file, set only after the data was flushed: the file may lag, never lead.
// Source: blob-and-cache.md 17.3.
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { FormatError } from '../../base/errors.ts';
import { isZero, viewOf } from '../../base/bytes.ts';
import { MAX_CHUNKS_PER_BLOB } from '../../base/limits.ts';
import { bytes, struct, u32 } from '../../format/struct.ts';
import { fallocate } from '../../native/file-io.ts';
import { mapFd, type Mapping } from '../../native/mmap.ts';

export const MAP_MAGIC = 0x424d_4150;
export const MAP_MAGIC2 = 0x434d_4150;
export const MAP_ALL_READY = 0x4d4d_4150;
export const MAP_HEADER_SIZE = 4096;

/** Head of a chunk map file; the bitmap follows, most significant bit first. */
export const chunkMapHeader = struct('chunkMapHeader', {
  size: MAP_HEADER_SIZE,
  source: 'upstream storage/src/cache/state/persist_map.rs, Header',
  fields: {
    magic: u32('0x424D4150, file bytes PAMB'),
    version: u32('1'),
    magic2: u32('0x434D4150, file bytes PAMC'),
    allReady: u32('0, or 0x4D4D4150 when every chunk is ready'),
    reserved: bytes(4080, 'zero'),
  },
});

/** Bytes of a chunk map file. */
export function chunkMapSize(count: number): number {
  return MAP_HEADER_SIZE + Math.ceil(count / 8);
}

/** Mask of a chunk in byte `index >> 3`. */
export function bitOf(index: number): number {
  return 0x80 >> (index & 7);
}

/** Shared memory for the in-process bits of `count` chunks. */
export function newReadyBits(count: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(Math.max(8, Math.ceil(count / 8))));
}

/** Set bits among the first `count`. */
export function countReady(bits: Uint8Array, count: number): number {
  let total = 0;
  for (let at = 0; at * 8 < count; at++) {
    let byte = bits[at] ?? 0;
    if (at * 8 + 8 > count) byte &= 0xff00 >> (count - at * 8);
    for (; byte !== 0; byte &= byte - 1) total++;
  }
  return total;
}

/** Why a map file cannot be believed. */
export class DamagedMapError extends FormatError {}

function headerBytes(allReady: boolean): Buffer {
  return chunkMapHeader.encode({
    magic: MAP_MAGIC,
    version: 1,
    magic2: MAP_MAGIC2,
    allReady: allReady ? MAP_ALL_READY : 0,
  });
}

function createContent(fd: number, count: number): void {
  ftruncateSync(fd, chunkMapSize(count));
  fsyncSync(fd);
  writeSync(fd, headerBytes(false), 0, MAP_HEADER_SIZE, 0);
  fsyncSync(fd);
}

function checkHeader(fd: number, path: string, count: number, size: number): void {
  if (size !== chunkMapSize(count)) {
    throw new DamagedMapError(
      { struct: path },
      `${size} bytes long, ${chunkMapSize(count)} expected for ${count} chunks`,
    );
  }
  const head = Buffer.alloc(MAP_HEADER_SIZE);
  readSync(fd, head, 0, head.length, 0);
  const { magic, magic2, version } = chunkMapHeader.read(viewOf(head), 0);
  if (magic === MAP_MAGIC && (version < 1 || magic2 === MAP_MAGIC2)) return;
  if (isZero(head)) {
    // sized, then killed before the header was written; a bit without a header is no sign of anything
    const bitmap = Buffer.alloc(size - MAP_HEADER_SIZE);
    readSync(fd, bitmap, 0, bitmap.length, MAP_HEADER_SIZE);
    if (isZero(bitmap)) return createContent(fd, count);
  }
  throw new DamagedMapError(
    { struct: path },
    `magic ${magic.toString(16)} ${magic2.toString(16)}, version ${version}`,
  );
}

/** Readiness of the chunks of one blob. */
export class ChunkMap {
  readonly count: number;
  /** in-process bits, same order as in the file; shared with every thread */
  readonly ready: Uint8Array;
  readonly #distrust: boolean;
  #mapping: Mapping | undefined;
  #writable = false;
  #unpublished: number[] = [];

  private constructor(count: number, distrust: boolean) {
    this.count = count;
    this.ready = newReadyBits(count);
    this.#distrust = distrust;
  }

  /** A map without a file. */
  static inMemory(count: number): ChunkMap {
    return new ChunkMap(count, false);
  }

  /**
   * Open or create a map file.
   *
   * @param distrust true: bits of the file count only after the caller has verified the data and called `mark`
   * @throws DamagedMapError EINVAL  the file is not a map of this blob: rebuild it, see `rebuild`
   * @throws an error of node:fs  the file cannot be opened or created
   */
  static open(path: string, count: number, distrust = false): ChunkMap {
    if (count < 1 || count > MAX_CHUNKS_PER_BLOB) {
      throw new FormatError(
        { struct: path },
        `a map of ${count} chunks, 1 to ${MAX_CHUNKS_PER_BLOB} allowed`,
      );
    }
    let writable = true;
    let fd: number;
    try {
      fd = openSync(path, 'r+');
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'EROFS' || code === 'EACCES') {
        fd = openSync(path, 'r');
        writable = false;
      } else if (code === 'ENOENT') {
        // not exclusive: another daemon may create it at this moment and writes the same bytes
        fd = openSync(path, 'a+', 0o644);
        closeSync(fd);
        fd = openSync(path, 'r+');
      } else throw error;
    }
    try {
      const map = new ChunkMap(count, distrust);
      const size = fstatSync(fd).size;
      if (size === 0 && writable) createContent(fd, count);
      else checkHeader(fd, path, count, size);
      // a mapped hole on a full disk would kill the process when it is written
      map.#writable = writable && fallocate(fd, chunkMapSize(count)) === 0;
      map.#mapping = mapFd(fd, chunkMapSize(count), map.#writable);
      map.#load(fd);
      return map;
    } finally {
      closeSync(fd);
    }
  }

  /** Replace a damaged map file: written aside, then renamed. The map starts with the bits that `verified` gives. */
  static rebuild(path: string, count: number, verified: Iterable<number>): ChunkMap {
    const draft = `${path}.${process.pid}.tmp`;
    const fd = openSync(draft, 'w');
    try {
      const bitmap = Buffer.alloc(Math.ceil(count / 8));
      for (const index of verified) bitmap[index >> 3] = (bitmap[index >> 3] ?? 0) | bitOf(index);
      writeSync(fd, Buffer.concat([headerBytes(false), bitmap]));
      fsyncSync(fd);
      renameSync(draft, path);
    } catch (error) {
      rmSync(draft, { force: true });
      throw error;
    } finally {
      closeSync(fd);
    }
    return ChunkMap.open(path, count);
  }

  #load(fd: number): void {
    const file = this.#fileBits();
    const view = viewOf(this.#bytes());
    const all = chunkMapHeader.field.allReady(view, 0) === MAP_ALL_READY;
    if (!all && countReady(file, this.count) >= this.count && this.#writable) {
      chunkMapHeader.put.allReady(view, 0, MAP_ALL_READY);
      fsyncSync(fd);
    }
    if (this.#distrust) return;
    if (all) this.ready.fill(0xff, 0, Math.ceil(this.count / 8));
    else this.ready.set(file);
  }

  #bytes(): Uint8Array {
    return this.#mapping?.bytes ?? new Uint8Array(MAP_HEADER_SIZE);
  }

  #fileBits(): Uint8Array {
    return this.#bytes().subarray(MAP_HEADER_SIZE);
  }

  /** True when readiness survives this process. */
  get persistent(): boolean {
    return this.#writable;
  }

  /** Chunks ready in this process. */
  get readyCount(): number {
    return countReady(this.ready, this.count);
  }

  isReady(index: number): boolean {
    return (Atomics.load(this.ready, index >> 3) & bitOf(index)) !== 0;
  }

  /** True when the file says ready: perhaps set by another daemon meanwhile. */
  isReadyInFile(index: number): boolean {
    if (this.#mapping === undefined) return false;
    if (((this.#bytes()[MAP_HEADER_SIZE + (index >> 3)] ?? 0) & bitOf(index)) !== 0) return true;
    return chunkMapHeader.field.allReady(viewOf(this.#bytes()), 0) === MAP_ALL_READY;
  }

  /** True when the file has any ready chunk. */
  anyInFile(): boolean {
    return (
      chunkMapHeader.field.allReady(viewOf(this.#bytes()), 0) === MAP_ALL_READY ||
      countReady(this.#fileBits(), this.count) > 0
    );
  }

  /** Look again at the file. @returns true when the chunk counts as ready now */
  refresh(index: number): boolean {
    if (this.isReady(index)) return true;
    if (this.#distrust || !this.isReadyInFile(index)) return false;
    Atomics.or(this.ready, index >> 3, bitOf(index));
    return true;
  }

  /** The data of a chunk was written (or verified): ready for everybody in this process. */
  mark(index: number): void {
    Atomics.or(this.ready, index >> 3, bitOf(index));
  }

  /** Forget a chunk in this process: its data turned out to be unreadable. */
  unmark(index: number): void {
    Atomics.and(this.ready, index >> 3, ~bitOf(index) & 0xff);
  }

  /** A chunk whose data was written and is not flushed yet: `publish` it later. */
  remember(index: number): void {
    if (this.#writable) this.#unpublished.push(index);
  }

  /** Take the chunks that wait to be published. Call before the flush of the data starts. */
  takeUnpublished(): number[] {
    const taken = this.#unpublished;
    this.#unpublished = [];
    return taken;
  }

  /** Set bits in the file. The caller has flushed the data of these chunks. */
  publish(indexes: readonly number[]): void {
    if (!this.#writable || this.#mapping === undefined) return;
    const file = this.#fileBits();
    for (const index of indexes) Atomics.or(file, index >> 3, bitOf(index));
  }

  close(): void {
    this.#mapping?.unmap();
    this.#mapping = undefined;
    this.#writable = false;
  }
}
