// The 512-byte header of a tar member: ustar, GNU, v7, and pax records. Source: POSIX.1-2017 pax, "ustar Interchange
// Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format". Numbers: octal text, or base 256 when bit 7 is set.
import { FormatError } from '../../base/errors.ts';
import { MAX_BLOB_UNCOMPRESSED } from '../../base/limits.ts';
import { ascii, bytes, struct } from '../struct.ts';

export const TAR_BLOCK = 512;

/** Header of one member. All numbers are text or base 256. */
export const tarHeader = struct('tarHeader', {
  size: TAR_BLOCK,
  source: 'POSIX.1-2017 pax, ustar Interchange Format; GNU tar src/tar.h',
  fields: {
    name: bytes(100, 'path, NUL terminated unless full'),
    mode: bytes(8, 'permission bits; file type bits are ignored'),
    uid: bytes(8, 'owner'),
    gid: bytes(8, 'group'),
    size: bytes(12, 'bytes of data that follow, padded to 512'),
    mtime: bytes(12, 'seconds since 1970; negative in base 256'),
    checksum: bytes(8, 'sum of all header bytes, these eight taken as blanks'),
    typeflag: bytes(1, 'TarType'),
    linkname: bytes(100, 'link target, NUL terminated unless full'),
    magic: ascii(6, '`ustar` for POSIX, `ustar ` for GNU, empty for v7'),
    version: ascii(2, '`00` for POSIX'),
    uname: bytes(32, 'owner name, ignored'),
    gname: bytes(32, 'group name, ignored'),
    devMajor: bytes(8, 'device major number'),
    devMinor: bytes(8, 'device minor number'),
    prefix: bytes(155, 'POSIX: path before the name and a slash'),
    padding: bytes(12, 'zero'),
  },
});

/** Member types, as the byte of `typeflag`. */
export const TarType = {
  regularOld: 0x00,
  regular: 0x30,
  hardlink: 0x31,
  symlink: 0x32,
  char: 0x33,
  block: 0x34,
  directory: 0x35,
  fifo: 0x36,
  contiguous: 0x37,
  paxGlobal: 0x67,
  paxLocal: 0x78,
  gnuLongName: 0x4c,
  gnuLongLink: 0x4b,
  gnuSparse: 0x53,
} as const;

/** Values of one header. */
export interface TarHeaderValues {
  name: Buffer;
  link: Buffer;
  /** byte of the type flag */
  type: number;
  /** permission bits, 12 of them */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: number;
  /** undefined when the fields are blank, as GNU tar leaves them for everything but devices */
  devMajor: number | undefined;
  devMinor: number | undefined;
}

function fail(field: string, offset: number, problem: string): never {
  throw new FormatError({ struct: 'tarHeader', field, offset }, problem);
}

function textField(raw: Uint8Array): Buffer {
  const end = raw.indexOf(0);
  return Buffer.from(raw.subarray(0, end < 0 ? raw.length : end));
}

/** Base 256: bit 7 of the first byte marks it, the last 8 bytes hold a big-endian signed number. */
function base256(raw: Uint8Array, field: string, offset: number): number {
  const buffer = Buffer.from(raw);
  if (raw.length === 8) buffer[0] = (buffer[0] ?? 0) ^ 0x80;
  const value = buffer.readBigInt64BE(raw.length - 8);
  const number = Number(value);
  if (!Number.isSafeInteger(number)) fail(field, offset, `holds ${value}, out of range`);
  return number;
}

/** Value of a numeric field, undefined when it is blank. */
function numericField(raw: Uint8Array, field: string, offset: number): number | undefined {
  if (((raw[0] ?? 0) & 0x80) !== 0) return base256(raw, field, offset);
  let at = 0;
  while (at < raw.length && raw[at] === 0x20) at++;
  const start = at;
  let value = 0;
  for (; at < raw.length; at++) {
    const digit = (raw[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  const digits = at - start;
  while (at < raw.length && raw[at] === 0x20) at++;
  if (at < raw.length && raw[at] !== 0)
    fail(field, offset, `is no octal number: "${Buffer.from(raw).toString('latin1')}"`);
  return digits === 0 ? undefined : value;
}

function id(raw: Uint8Array, field: string, offset: number): number {
  const value = numericField(raw, field, offset) ?? 0;
  if (value < 0 || value > 0xffff_ffff) fail(field, offset, `holds ${value}, not a 32-bit id`);
  return value;
}

function checkSum(view: DataView, offset: number): void {
  let sum = 8 * 0x20;
  for (let i = 0; i < TAR_BLOCK; i++) if (i < 148 || i >= 156) sum += view.getUint8(i);
  const stored = numericField(tarHeader.field.checksum(view, 0), 'checksum', offset);
  if (stored === undefined) fail('checksum', offset, 'is blank');
  if (stored !== sum) fail('checksum', offset, `is ${stored}, the header adds up to ${sum}`);
}

/** Path of a header: POSIX headers put the prefix in front, others have other things in that place. */
function pathOf(view: DataView): Buffer {
  const name = textField(tarHeader.field.name(view, 0));
  if (tarHeader.field.magic(view, 0) !== 'ustar' || tarHeader.field.version(view, 0) !== '00') return name;
  const prefix = textField(tarHeader.field.prefix(view, 0));
  return prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.of(0x2f), name]);
}

/**
 * Values of one header block.
 *
 * @param block  512 bytes
 * @param offset of the block in the archive, for messages
 * @throws FormatError EINVAL  the checksum is wrong or a number is none or out of range
 */
export function parseTarHeader(block: Uint8Array, offset: number): TarHeaderValues {
  const view = new DataView(block.buffer, block.byteOffset, TAR_BLOCK);
  const field = tarHeader.field;
  checkSum(view, offset);
  const size = numericField(field.size(view, 0), 'size', offset) ?? 0;
  if (size < 0 || size > MAX_BLOB_UNCOMPRESSED)
    fail('size', offset, `is ${size}, limit ${MAX_BLOB_UNCOMPRESSED}`);
  return {
    name: pathOf(view),
    link: textField(field.linkname(view, 0)),
    type: view.getUint8(156),
    mode: (numericField(field.mode(view, 0), 'mode', offset) ?? 0) & 0o7777,
    uid: id(field.uid(view, 0), 'uid', offset),
    gid: id(field.gid(view, 0), 'gid', offset),
    size,
    mtime: numericField(field.mtime(view, 0), 'mtime', offset) ?? 0,
    devMajor: numericField(field.devMajor(view, 0), 'devMajor', offset),
    devMinor: numericField(field.devMinor(view, 0), 'devMinor', offset),
  };
}

/** One record of a pax header. */
export interface PaxRecord {
  /** latin1 of the raw bytes */
  key: string;
  /** view of the header's bytes */
  value: Buffer;
}

function paxFail(offset: number, problem: string): never {
  throw new FormatError({ struct: 'paxHeader', offset }, problem);
}

/**
 * Records of a pax header: `<length> <key>=<value>\n`, length counting everything. Values may hold any byte.
 *
 * @param offset of the body in the archive, for messages
 * @throws FormatError EINVAL  a length is none or does not fit, or a record has no `=` or no newline
 */
export function parsePax(body: Uint8Array, offset: number): PaxRecord[] {
  const raw = Buffer.from(body.buffer, body.byteOffset, body.length);
  const records: PaxRecord[] = [];
  for (let at = 0; at < raw.length;) {
    // Some writers pad the body with NUL.
    if (raw[at] === 0) break;
    const blank = raw.indexOf(0x20, at);
    const digits = blank < 0 ? '' : raw.toString('latin1', at, Math.min(blank, at + 12));
    if (!/^[0-9]{1,10}$/.test(digits)) paxFail(offset + at, 'record does not start with its length');
    const end = at + Number(digits);
    if (end <= blank + 1 || end > raw.length)
      paxFail(offset + at, `record of ${digits} bytes, ${raw.length - at} are left`);
    if (raw[end - 1] !== 0x0a) paxFail(offset + at, `record of ${digits} bytes does not end in a newline`);
    const equals = raw.subarray(blank + 1, end - 1).indexOf(0x3d);
    if (equals <= 0) paxFail(offset + at, 'record has no key');
    records.push({
      key: raw.toString('latin1', blank + 1, blank + 1 + equals),
      value: raw.subarray(blank + 2 + equals, end - 1),
    });
    at = end;
  }
  return records;
}
