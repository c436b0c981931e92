// Partitions of a disk. Source: UEFI specification 2.10, section 5.3 "GUID Partition Table (GPT) Disk Layout"; sectors of 512 bytes.
import { FormatError } from '../../base/errors.ts';
import { MIB } from '../../base/limits.ts';
import { bytes, struct, u32, u64n } from '../../format/struct.ts';

/** Loaded when it is needed: a daemon that serves what is local never does. */
function zlib(): typeof import('node:zlib') {
  return process.getBuiltinModule('node:zlib');
}

export const SECTOR = 512;

const gptHeader = struct('gptHeader', {
  size: 92,
  source: 'UEFI 2.10, table 5.5 "GPT Header"',
  fields: {
    signature: bytes(8, '"EFI PART"'),
    revision: u32('0x10000'),
    headerSize: u32('bytes covered by headerCrc, 92 or more'),
    headerCrc: u32('CRC-32 of the header with this field zero'),
    reserved: u32('zero'),
    myLba: u64n('sector of this header'),
    alternateLba: u64n('sector of the other header'),
    firstUsableLba: u64n('first sector for partitions'),
    lastUsableLba: u64n('last sector for partitions'),
    diskGuid: bytes(16, 'GUID of the disk'),
    entriesLba: u64n('first sector of the entries'),
    entryCount: u32('entries'),
    entrySize: u32('bytes of one entry, 128 times a power of two'),
    entriesCrc: u32('CRC-32 of the entries'),
  },
});

const gptEntry = struct('gptEntry', {
  size: 128,
  source: 'UEFI 2.10, table 5.6 "GPT Partition Entry"',
  fields: {
    typeGuid: bytes(16, 'kind of the partition; zero = unused'),
    partitionGuid: bytes(16, 'GUID of the partition'),
    firstLba: u64n('first sector'),
    lastLba: u64n('last sector, inclusive'),
    attributes: bytes(8, 'flags'),
    name: bytes(72, 'UTF-16LE, zero-terminated when shorter than 36 characters'),
  },
});

/** Entries of one table that are read. */
const MAX_ENTRIES = 4096;
const MAX_TABLE = MIB;

export interface Partition {
  /** GUID of its type and of itself, 32 lower-case hex digits as they are written between dashes */
  type: string;
  guid: string;
  name: string;
  /** bytes */
  start: number;
  end: number;
}

/** Reads bytes of the disk; fewer where it ends. */
export type ReadDisk = (offset: number, length: number) => Uint8Array;

/** GUIDs are stored with their first three groups little-endian. Source: UEFI 2.10, appendix A. */
function guidText(raw: Uint8Array): string {
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Buffer.from(order.map((at) => raw[at] ?? 0)).toString('hex');
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

function readHeader(read: ReadDisk, lba: number): Partition[] | string {
  const sector = read(lba * SECTOR, SECTOR);
  if (sector.length < SECTOR) return `the disk ends before sector ${lba}`;
  const header = gptHeader.read(viewOf(sector), 0);
  if (Buffer.from(header.signature).toString('latin1') !== 'EFI PART') return 'no "EFI PART" signature';
  if (header.headerSize < gptHeader.size || header.headerSize > SECTOR)
    return `a header of ${header.headerSize} bytes`;
  const covered = Buffer.from(sector.subarray(0, header.headerSize));
  covered.fill(0, 16, 20);
  if (zlib().crc32(covered) !== header.headerCrc) return 'the checksum of the header is wrong';
  const { entryCount, entrySize, entriesLba } = header;
  if (entrySize < gptEntry.size || entryCount > MAX_ENTRIES || entryCount * entrySize > MAX_TABLE)
    return `${entryCount} entries of ${entrySize} bytes`;
  const table = read(entriesLba * SECTOR, entryCount * entrySize);
  if (table.length < entryCount * entrySize) return 'the disk ends inside the partition entries';
  if (zlib().crc32(table) !== header.entriesCrc) return 'the checksum of the partition entries is wrong';
  const partitions: Partition[] = [];
  for (let index = 0; index < entryCount; index++) {
    const entry = gptEntry.read(viewOf(table), index * entrySize);
    if (entry.typeGuid.every((byte) => byte === 0)) continue;
    partitions.push({
      type: guidText(entry.typeGuid),
      guid: guidText(entry.partitionGuid),
      name: Buffer.from(entry.name).toString('utf16le').replace(/\0.*$/s, ''),
      start: entry.firstLba * SECTOR,
      end: (entry.lastLba + 1) * SECTOR,
    });
  }
  return partitions;
}

/**
 * Partitions of a disk, from its first table, or from the one at its end when that is damaged.
 *
 * @param size bytes of the disk
 * @throws FormatError EINVAL  neither table can be used
 */
export function readGpt(read: ReadDisk, size: number): Partition[] {
  const first = readHeader(read, 1);
  if (typeof first !== 'string') return first;
  const last = readHeader(read, Math.floor(size / SECTOR) - 1);
  if (typeof last !== 'string') return last;
  throw new FormatError({ struct: 'gptHeader', offset: SECTOR }, `${first}; at the end of the disk: ${last}`);
}
