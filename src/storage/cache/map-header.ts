// Head of a chunk map file, and the note that we keep in the part upstream leaves zero: whether the bits can be believed.
// Bits are set after their data was flushed, but other writers of the file do not flush (upstream), and disks lie: when the
// machine went down with the file in use, every chunk is verified before its first use. Source: blob-and-cache.md 17.3.
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { viewOf } from '../../base/bytes.ts';
import { crc32c } from '../../codec/crc32c.ts';
import { bytes, struct, u32, u64n } from '../../format/struct.ts';

export const MAP_MAGIC = 0x424d_4150;
export const MAP_MAGIC2 = 0x434d_4150;
export const MAP_ALL_READY = 0x4d4d_4150;
export const MAP_HEADER_SIZE = 4096;
const NOTE_MAGIC = 0x4354_4f4e;

/** What the note says about the bits. */
export const MapState = {
  /** in use; believed while the machine is up that the boot id names */
  inUse: 1,
  /** the last user has closed it in order */
  closed: 2,
  /** in use or left by a machine that went down, not every chunk was verified since */
  suspect: 3,
} as const;

/** Head of a chunk map file; the bitmap follows, most significant bit first. */
export const chunkMapHeader = struct('chunkMapHeader', {
  size: MAP_HEADER_SIZE,
  source: 'upstream storage/src/cache/state/persist_map.rs, Header; from noteMagic on ours, zero upstream',
  fields: {
    magic: u32('0x424D4150, file bytes PAMB'),
    version: u32('1'),
    magic2: u32('0x434D4150, file bytes PAMC'),
    allReady: u32('0, or 0x4D4D4150 when every chunk is ready'),
    noteMagic: u32('0x43544F4E, file bytes NOTC, when the fields that follow are filled'),
    state: u32('MapState: 1 in use, 2 closed in order, 3 suspect'),
    bootId: bytes(16, 'of the machine that uses it'),
    metaCrc: u32('CRC-32C of the .blob.meta file'),
    hasMetaCrc: u32('1 when metaCrc is filled'),
    lastUsed: u64n('seconds since 1970 of the last open or close'),
    bitsCrc: u32('CRC-32C of the bitmap when it was closed in order'),
    reserved: bytes(4036, 'zero'),
  },
});
const { field, put } = chunkMapHeader;

/** Bytes of a new header. */
export function encodeMapHeader(): Buffer {
  return chunkMapHeader.encode({ magic: MAP_MAGIC, version: 1, magic2: MAP_MAGIC2 });
}

let boot: Uint8Array | undefined;

/** Id of this boot of the machine; zeros where the kernel does not say. Source: random(4). */
export function bootId(): Uint8Array {
  if (boot === undefined) {
    try {
      const text = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim().replaceAll('-', '');
      boot = Buffer.from(text.padEnd(32, '0').slice(0, 32), 'hex');
    } catch {
      boot = new Uint8Array(16);
    }
  }
  return boot;
}

/** The note in a mapped header. */
export class MapNote {
  readonly #view: DataView;
  readonly #bits: Uint8Array;

  /** @param file the mapped file, header and bitmap */
  constructor(file: Uint8Array) {
    this.#view = viewOf(file.subarray(0, MAP_HEADER_SIZE));
    this.#bits = file.subarray(MAP_HEADER_SIZE);
  }

  get #filled(): boolean {
    return field.noteMagic(this.#view, 0) === NOTE_MAGIC;
  }

  /**
   * True when the bits may say more than the data has: the machine went down while the file was in use, the bitmap changed
   * after it was closed, or nobody knows.
   *
   * @param writtenMs mtime of the file
   */
  isSuspect(writtenMs: number): boolean {
    if (!this.#filled) return writtenMs < Date.now() - uptime() * 1000;
    const state = field.state(this.#view, 0);
    if (state === MapState.closed) return field.bitsCrc(this.#view, 0) !== crc32c(this.#bits);
    return state !== MapState.inUse || Buffer.compare(field.bootId(this.#view, 0), bootId()) !== 0;
  }

  /** Say in what state the file is. */
  write(state: number): void {
    const view = this.#view;
    if (!this.#filled) put.hasMetaCrc(view, 0, 0);
    put.noteMagic(view, 0, NOTE_MAGIC);
    put.bootId(view, 0, bootId());
    put.lastUsed(view, 0, Math.floor(Date.now() / 1000));
    put.bitsCrc(view, 0, state === MapState.closed ? crc32c(this.#bits) : 0);
    put.state(view, 0, state);
  }

  /** Seconds since 1970, 0 when the note does not say. */
  get lastUsed(): number {
    return this.#filled ? field.lastUsed(this.#view, 0) : 0;
  }

  get metaCrc(): number | undefined {
    return this.#filled && field.hasMetaCrc(this.#view, 0) === 1 ? field.metaCrc(this.#view, 0) : undefined;
  }

  set metaCrc(crc: number | undefined) {
    put.metaCrc(this.#view, 0, crc ?? 0);
    put.hasMetaCrc(this.#view, 0, crc === undefined ? 0 : 1);
  }
}
