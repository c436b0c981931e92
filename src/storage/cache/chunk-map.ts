// Which chunks of a blob are local. Two layers: bits in shared memory, set as soon as the data was written and seen by every
// thread, and bits in the mapped `.chunk_map` file, set only after the data was flushed: the file may lag, never lead. Where it
// may lead all the same (map-header.ts says when), a chunk counts once its data was verified. Source: blob-and-cache.md 17.3.
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
import { fallocate } from '../../native/file-io.ts';
import { mapFd, type Mapping } from '../../native/mmap.ts';
import {
  chunkMapHeader,
  encodeMapHeader,
  MAP_ALL_READY,
  MAP_HEADER_SIZE,
  MAP_MAGIC,
  MAP_MAGIC2,
  MapNote,
  MapState,
} from './map-header.ts';

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

function createContent(fd: number, count: number): void {
  ftruncateSync(fd, chunkMapSize(count));
  fsyncSync(fd);
  writeSync(fd, encodeMapHeader(), 0, MAP_HEADER_SIZE, 0);
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

export interface MapOptions {
  /** bits of the file count only after the caller has verified the data and called `mark` */
  distrust?: boolean;
  /** whoever reads a chunk verifies it each time: bits that lead their data do no harm */
  selfChecking?: boolean;
}

function openForMap(path: string): { fd: number; writable: boolean } {
  try {
    return { fd: openSync(path, 'r+'), writable: true };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'EROFS' || code === 'EACCES') return { fd: openSync(path, 'r'), writable: false };
    if (code !== 'ENOENT') throw error;
  }
  // not exclusive: another daemon may create it at this moment and writes the same bytes
  closeSync(openSync(path, 'a+', 0o644));
  return { fd: openSync(path, 'r+'), writable: true };
}

/** Readiness of the chunks of one blob. */
export class ChunkMap {
  readonly count: number;
  /** in-process bits, same order as in the file; shared with every thread */
  readonly ready: Uint8Array;
  /** chunks that were read since the last look at them, set by readers of every thread; same order */
  readonly touched: Uint8Array;
  /** one word that counts how often chunks were taken away; a reader that sees it change reads again */
  readonly epoch: Int32Array;
  /** chunks of the file count only once they were verified in this process */
  readonly distrusts: boolean;
  /** the machine went down while the file was in use */
  readonly suspect: boolean;
  #mapping: Mapping | undefined;
  #note: MapNote | undefined;
  #writable = false;
  #sealed = false;
  /** bits were cleared in the file, and the disk may not know */
  #cleared = false;
  #unpublished: number[] = [];
  /** chunks that turned out to be unreadable, while the file may still have their bit */
  readonly #forgotten = new Set<number>();
  /** chunks that were forgotten while a flush is under way: it does not speak for data that came since */
  readonly #withdrawn = new Set<number>();

  private constructor(
    count: number,
    options: MapOptions = {},
    mapping?: Mapping,
    writable = false,
    writtenMs = Infinity,
  ) {
    this.count = count;
    this.ready = newReadyBits(count);
    this.touched = newReadyBits(count);
    this.epoch = new Int32Array(new SharedArrayBuffer(4));
    this.#mapping = mapping;
    this.#writable = writable;
    this.#note = mapping === undefined ? undefined : new MapNote(mapping.bytes);
    this.suspect = this.#note !== undefined && this.anyInFile() && this.#note.isSuspect(writtenMs);
    this.distrusts = options.distrust === true || (this.suspect && options.selfChecking !== true);
    if (mapping !== undefined) this.#load();
  }

  /** A map without a file. */
  static inMemory(count: number): ChunkMap {
    return new ChunkMap(count);
  }

  /**
   * Open or create a map file.
   *
   * @throws DamagedMapError EINVAL  the file is not a map of this blob: rebuild it, see `rebuild`
   * @throws an error of node:fs  the file cannot be opened or created
   */
  static open(path: string, count: number, options: MapOptions = {}): ChunkMap {
    if (count < 1 || count > MAX_CHUNKS_PER_BLOB) {
      throw new FormatError(
        { struct: path },
        `a map of ${count} chunks, 1 to ${MAX_CHUNKS_PER_BLOB} allowed`,
      );
    }
    const { fd, writable } = openForMap(path);
    try {
      const { size, mtimeMs } = fstatSync(fd);
      if (size === 0 && writable) createContent(fd, count);
      else checkHeader(fd, path, count, size);
      // a mapped hole on a full disk would kill the process when it is written
      const mayWrite = writable && fallocate(fd, chunkMapSize(count)) === 0;
      return new ChunkMap(count, options, mapFd(fd, chunkMapSize(count), mayWrite), mayWrite, mtimeMs);
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
      writeSync(fd, Buffer.concat([encodeMapHeader(), bitmap]));
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

  #load(): void {
    const file = this.#fileBits();
    const view = viewOf(this.#bytes());
    const all = this.#allInFile();
    if (this.#writable) {
      if (!all && !this.suspect && countReady(file, this.count) >= this.count)
        chunkMapHeader.put.allReady(view, 0, MAP_ALL_READY);
      this.#note?.write(this.suspect ? MapState.suspect : MapState.inUse);
    }
    if (this.distrusts) return;
    if (all) this.ready.fill(0xff, 0, Math.ceil(this.count / 8));
    else this.ready.set(file);
  }

  #bytes(): Uint8Array {
    return this.#mapping?.bytes ?? new Uint8Array(MAP_HEADER_SIZE);
  }

  #fileBits(): Uint8Array {
    return this.#bytes().subarray(MAP_HEADER_SIZE);
  }

  #allInFile(): boolean {
    return chunkMapHeader.field.allReady(viewOf(this.#bytes()), 0) === MAP_ALL_READY;
  }

  /** True when readiness survives this process. */
  get persistent(): boolean {
    return this.#writable;
  }

  /** Chunks ready in this process. */
  get readyCount(): number {
    return countReady(this.ready, this.count);
  }

  /** Chunks that are ready, or that the file claims to be ready and nobody has verified yet. */
  get heldCount(): number {
    if (!this.distrusts) return this.readyCount;
    return this.#allInFile() ? this.count : countReady(this.#fileBits(), this.count);
  }

  isReady(index: number): boolean {
    return (Atomics.load(this.ready, index >> 3) & bitOf(index)) !== 0;
  }

  /** True when the file says ready: perhaps set by another daemon meanwhile. */
  isReadyInFile(index: number): boolean {
    if (this.#mapping === undefined || this.#forgotten.has(index)) return false;
    return ((this.#fileBits()[index >> 3] ?? 0) & bitOf(index)) !== 0 || this.#allInFile();
  }

  /** True when the file has any ready chunk. */
  anyInFile(): boolean {
    return this.#allInFile() || countReady(this.#fileBits(), this.count) > 0;
  }

  /** Look again at the file. @returns true when the chunk counts as ready now */
  refresh(index: number): boolean {
    if (this.isReady(index)) return true;
    if (this.distrusts || !this.isReadyInFile(index)) return false;
    Atomics.or(this.ready, index >> 3, bitOf(index));
    return true;
  }

  /** The data of a chunk was written (or verified): ready for everybody in this process. */
  mark(index: number): void {
    this.#forgotten.delete(index);
    Atomics.or(this.ready, index >> 3, bitOf(index));
  }

  /** Forget a chunk, in the file as well: its data turned out to be wrong, or is going to be taken away. */
  forget(index: number): void {
    this.#forgotten.add(index);
    this.#withdrawn.add(index);
    Atomics.and(this.ready, index >> 3, ~bitOf(index) & 0xff);
    if (!this.#writable) return;
    this.#cleared = true;
    const file = this.#fileBits();
    if (this.#allInFile()) {
      // that word counts more than the bits: they take over first
      file.fill(0xff, 0, this.count >> 3);
      for (let i = this.count & ~7; i < this.count; i++) Atomics.or(file, i >> 3, bitOf(i));
      chunkMapHeader.put.allReady(viewOf(this.#bytes()), 0, 0);
    }
    Atomics.and(file, index >> 3, ~bitOf(index) & 0xff);
  }

  /** A chunk whose data was written and is not flushed yet: `publish` it later. */
  remember(index: number): void {
    this.#forgotten.delete(index);
    this.touch(index);
    if (this.#writable) this.#unpublished.push(index);
  }

  /** A chunk was read, or has just come. */
  touch(index: number): void {
    this.touched[index >> 3] = (this.touched[index >> 3] ?? 0) | bitOf(index);
  }

  /** Whether a chunk was read since the last call; it counts as not read from now on. */
  takeTouch(index: number): boolean {
    const byte = this.touched[index >> 3] ?? 0;
    this.touched[index >> 3] = byte & ~bitOf(index);
    return (byte & bitOf(index)) !== 0;
  }

  /** Take the chunks that wait to be published. Call before the flush of the data starts. */
  takeUnpublished(): number[] {
    const taken = this.#unpublished;
    this.#unpublished = [];
    this.#withdrawn.clear();
    return taken;
  }

  /** Set bits in the file. The caller has flushed the data of these chunks; those that were forgotten since stay clear. */
  publish(indexes: readonly number[]): void {
    if (!this.#writable || this.#mapping === undefined) return;
    this.seal();
    const file = this.#fileBits();
    for (const index of indexes) if (!this.#forgotten.has(index)) Atomics.or(file, index >> 3, bitOf(index));
  }

  /**
   * See that the note is on the disk, before bits are that it speaks of, and before data goes that bits on the disk still speak
   * of: should the machine go down, every chunk is verified before its first use. Waits for the disk the first time.
   */
  seal(): void {
    if (this.#sealed || !this.#writable) return;
    this.sync();
    this.#sealed = true;
  }

  /** Wait until the file is on the disk as it is. */
  sync(): void {
    this.#mapping?.sync();
    this.#cleared = false;
  }

  /** CRC-32C that the `.blob.meta` file must have; undefined when nobody noted it. */
  get metaCrc(): number | undefined {
    return this.#note?.metaCrc;
  }

  set metaCrc(crc: number | undefined) {
    if (this.#writable && this.#note !== undefined) this.#note.metaCrc = crc;
  }

  /** True when every bit of the file was found good in this process, or never was in doubt. */
  get #isProven(): boolean {
    if (!this.suspect) return true;
    if (!this.distrusts || this.#allInFile()) return this.readyCount === this.count;
    return this.#fileBits().every((byte, at) => (byte & ~(this.ready[at] ?? 0)) === 0);
  }

  /** @param sole true when no other process uses the file: it is noted as closed in order */
  close(sole = false): void {
    // the disk may see the note before the bits that were cleared: it would be believed with bits of chunks that are gone
    if (this.#writable && sole && this.#cleared) this.sync();
    if (this.#writable && sole) this.#note?.write(this.#isProven ? MapState.closed : MapState.suspect);
    this.#mapping?.unmap();
    this.#mapping = undefined;
    this.#note = undefined;
    this.#writable = false;
  }
}
