// A tar archive as a stream of bytes: pushed in pieces of any size, given out as members and their data.
// Knows pax local and global headers and GNU long names. No I/O. Source: POSIX.1-2017 pax; GNU tar manual.
import { FormatError } from '../../base/errors.ts';
import { isZero } from '../../base/bytes.ts';
import { MAX_BLOB_UNCOMPRESSED, MAX_TAR_LONG_NAME, MAX_TAR_PAX } from '../../base/limits.ts';
import {
  parsePax,
  parseTarHeader,
  TAR_BLOCK,
  TarType,
  type PaxRecord,
  type TarHeaderValues,
} from './archive-header.ts';

/** One member with everything its extension headers said applied. */
export interface TarEntry extends TarHeaderValues {
  /** full names (latin1 of the raw bytes) of SCHILY.xattr records; undefined when there are none */
  xattrs: Map<string, Buffer> | undefined;
  /** the data is GNU sparse in pax form: it is stored as it comes, holes not expanded (as upstream does) */
  sparse: boolean;
  /** byte offset of the member's header in the archive */
  offset: number;
}

/**
 * What the parser found next. After `entry` come the pieces of its data and one `end`, unless the member is empty or the
 * caller said `skipData`. The bytes are a view of what was fed, valid until the next `feed`.
 */
export type TarEvent =
  { type: 'entry'; entry: TarEntry } | { type: 'data'; bytes: Uint8Array } | { type: 'end' };

/** Body of an extension header while it is collected. */
interface Extension {
  type: number;
  offset: number;
  body: Buffer;
  filled: number;
}

const XATTR_KEY = 'SCHILY.xattr.';
const LIMITS: Record<number, number> = {
  [TarType.paxLocal]: MAX_TAR_PAX,
  [TarType.paxGlobal]: MAX_TAR_PAX,
  [TarType.gnuLongName]: MAX_TAR_LONG_NAME,
  [TarType.gnuLongLink]: MAX_TAR_LONG_NAME,
};

function decimal(record: PaxRecord, limit: number, offset: number): number {
  const text = record.value.toString('latin1');
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= limit)) {
    throw new FormatError(
      { struct: 'paxHeader', field: record.key, offset },
      `"${text}" is no number of 0 to ${limit}`,
    );
  }
  return value;
}

const END: TarEvent = { type: 'end' };

/**
 * Streaming tar parser: `feed` it bytes, ask for the `next` event until there is none, feed again, `finish` at the end.
 * Zero blocks are skipped wherever they are, so concatenated archives are read through.
 */
export class TarParser {
  #input: Uint8Array = new Uint8Array(0);
  #at = 0;
  readonly #block = Buffer.alloc(TAR_BLOCK);
  #filled = 0;
  /** bytes of the archive consumed so far */
  #position = 0;
  #event: TarEvent | undefined;
  #extension: Extension | undefined;
  /** data and padding of the current member still to come */
  #dataLeft = 0;
  #skipLeft = 0;
  #wanted = false;
  /** from extension headers, for the next member */
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;
  #local: PaxRecord[] | undefined;
  #global: PaxRecord[] = [];

  /** Bytes of the archive consumed so far. */
  get position(): number {
    return this.#position;
  }

  /** Give the parser the next bytes of the archive; `next` must have answered undefined before. */
  feed(bytes: Uint8Array): void {
    this.#input = bytes;
    this.#at = 0;
  }

  /** The data of the member just given out is not wanted: no `data` and no `end` will come for it. */
  skipData(): void {
    this.#wanted = false;
  }

  /**
   * The next event, undefined when the bytes fed so far hold none.
   *
   * @throws FormatError EINVAL  a header breaks the format or a limit
   */
  next(): TarEvent | undefined {
    if (this.#wanted && this.#dataLeft === 0) {
      this.#wanted = false;
      return END;
    }
    this.#event = undefined;
    while (this.#event === undefined && this.#at < this.#input.length) this.#step();
    return this.#event;
  }

  /** Consume bytes for the current state. */
  #step(): void {
    const left = this.#input.length - this.#at;
    if (this.#dataLeft > 0) {
      this.#takeData(Math.min(left, this.#dataLeft));
    } else if (this.#skipLeft > 0) {
      const count = Math.min(left, this.#skipLeft);
      this.#skipLeft -= count;
      this.#consume(count);
    } else {
      this.#takeHeader(Math.min(left, TAR_BLOCK - this.#filled));
    }
  }

  #consume(count: number): void {
    this.#at += count;
    this.#position += count;
  }

  #takeHeader(count: number): void {
    this.#block.set(this.#input.subarray(this.#at, this.#at + count), this.#filled);
    this.#filled += count;
    this.#consume(count);
    if (this.#filled < TAR_BLOCK) return;
    this.#filled = 0;
    if (this.#block[0] !== 0 || !isZero(this.#block)) this.#header(this.#position - TAR_BLOCK);
  }

  #takeData(count: number): void {
    const piece = this.#input.subarray(this.#at, this.#at + count);
    this.#consume(count);
    this.#dataLeft -= count;
    const extension = this.#extension;
    if (extension !== undefined) {
      extension.body.set(piece, extension.filled);
      extension.filled += count;
      if (this.#dataLeft === 0) this.#remember(extension);
    } else if (this.#wanted) {
      this.#event = { type: 'data', bytes: piece };
    }
  }

  #header(offset: number): void {
    const header = parseTarHeader(this.#block, offset);
    const limit = LIMITS[header.type];
    if (limit === undefined) {
      this.#member(header, offset);
      return;
    }
    // The size of the pending pax header is for the member it describes, not for a header in between: else a
    // crafted archive shows different members to different readers.
    if (header.size > limit) {
      throw new FormatError(
        { struct: 'tarHeader', field: 'size', offset },
        `extension header of ${header.size} bytes, limit ${limit}`,
      );
    }
    this.#extension = { type: header.type, offset, body: Buffer.alloc(header.size), filled: 0 };
    this.#begin(header.size);
    if (header.size === 0) this.#remember(this.#extension);
  }

  #begin(size: number): void {
    this.#dataLeft = size;
    this.#skipLeft = Math.ceil(size / TAR_BLOCK) * TAR_BLOCK - size;
  }

  /** Keep what an extension header says about the next member. */
  #remember(extension: Extension): void {
    const { type, offset, body } = extension;
    this.#extension = undefined;
    const twice = (known: unknown): void => {
      if (known === undefined) return;
      throw new FormatError(
        { struct: 'tarHeader', field: 'typeflag', offset },
        'two extension headers of one kind for one member',
      );
    };
    switch (type) {
      case TarType.paxLocal:
        twice(this.#local);
        this.#local = parsePax(body, offset + TAR_BLOCK);
        return;
      case TarType.paxGlobal:
        this.#setGlobal(parsePax(body, offset + TAR_BLOCK), offset);
        return;
      case TarType.gnuLongName:
        twice(this.#longName);
        this.#longName = cutNul(body);
        return;
      default:
        twice(this.#longLink);
        this.#longLink = cutNul(body);
    }
  }

  /** Global records are defaults for all later members; one that would rename or resize them all is refused. */
  #setGlobal(records: PaxRecord[], offset: number): void {
    for (const record of records) {
      if (record.key === 'path' || record.key === 'linkpath' || record.key === 'size') {
        throw new FormatError(
          { struct: 'paxHeader', field: record.key, offset },
          'does not belong into a global header',
        );
      }
      this.#global = this.#global.filter((known) => known.key !== record.key);
      if (this.#global.length >= MAX_GLOBAL_RECORDS) {
        throw new FormatError(
          { struct: 'paxHeader', offset },
          `more than ${MAX_GLOBAL_RECORDS} global records`,
        );
      }
      this.#global.push({ key: record.key, value: Buffer.from(record.value) });
    }
  }

  #member(header: TarHeaderValues, offset: number): void {
    if (header.type === TarType.gnuSparse) {
      throw new FormatError(
        { struct: 'tarHeader', field: 'typeflag', offset },
        'GNU sparse files of the old format are not supported',
        {
          hint: 'write the archive with tar --format=pax and without --sparse',
        },
      );
    }
    const entry: TarEntry = { ...header, xattrs: undefined, sparse: false, offset };
    for (const record of this.#global) this.#apply(entry, record);
    for (const record of this.#local ?? []) this.#apply(entry, record);
    if (this.#longName !== undefined) entry.name = this.#longName;
    if (this.#longLink !== undefined) entry.link = this.#longLink;
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#local = undefined;
    this.#wanted = entry.size > 0;
    this.#begin(entry.size);
    this.#event = { type: 'entry', entry };
  }

  #apply(entry: TarEntry, record: PaxRecord): void {
    const { key, value } = record;
    // An empty value takes a record back (POSIX), except that an xattr may be empty.
    if (key.startsWith(XATTR_KEY))
      (entry.xattrs ??= new Map()).set(key.slice(XATTR_KEY.length), Buffer.from(value));
    else if (value.length === 0) return;
    else if (key === 'path') entry.name = Buffer.from(value);
    else if (key === 'linkpath') entry.link = Buffer.from(value);
    else if (key === 'size') entry.size = decimal(record, MAX_BLOB_UNCOMPRESSED, entry.offset);
    else if (key === 'uid') entry.uid = decimal(record, 0xffff_ffff, entry.offset);
    else if (key === 'gid') entry.gid = decimal(record, 0xffff_ffff, entry.offset);
    else if (key.startsWith('GNU.sparse.')) entry.sparse = true;
  }

  /**
   * The archive ends here.
   *
   * @throws FormatError EINVAL  it is empty or ends inside a header, data or padding, or after an extension header
   */
  finish(): void {
    if (this.#position === 0) throw new FormatError({ struct: 'tar' }, 'is empty: not even an end mark');
    const missing = this.#dataLeft + this.#skipLeft;
    if (missing > 0)
      throw new FormatError(
        { struct: 'tar', offset: this.#position },
        `ends ${missing} bytes before the end of a member`,
      );
    if (this.#filled > 0)
      throw new FormatError(
        { struct: 'tar', offset: this.#position },
        `ends ${this.#filled} bytes into a header`,
      );
    if (this.#local !== undefined || this.#longName !== undefined || this.#longLink !== undefined) {
      throw new FormatError(
        { struct: 'tar', offset: this.#position },
        'ends after an extension header, without its member',
      );
    }
  }
}

/** Records a global header may keep: it is applied to every later member. */
const MAX_GLOBAL_RECORDS = 256;

function cutNul(body: Buffer): Buffer {
  const end = body.indexOf(0);
  return end < 0 ? body : body.subarray(0, end);
}
