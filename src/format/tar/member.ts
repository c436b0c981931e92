// Writes members of a tar: ustar headers, and a pax header in front of what they cannot hold.
// Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; nydus-image-and-nydusify.md 5.3; GNU tar
// manual for base 256 and for `=` in names of attributes.
import { FormatError } from '../../base/errors.ts';
import { TAR_BLOCK, TarType } from './archive-header.ts';

const NAME_SIZE = 100;
/** Room for a name of a user or group. */
const OWNER_SIZE = 32;
const SLASH = 0x2f;
const XATTR_KEY = 'SCHILY.xattr.';

/** One member. Names and targets are raw bytes. */
export interface TarMember {
  /** without slashes in front and behind */
  path: Buffer;
  /** TarType */
  type: number;
  mode: number;
  uid: number;
  gid: number;
  /** '' = unknown */
  userName: string;
  groupName: string;
  /** seconds; may be negative */
  mtime: number;
  /** bytes of data that follow */
  size: number;
  /** target of a link */
  link?: Buffer;
  /** of devices */
  major?: number;
  minor?: number;
  /** full name (latin1 of the raw bytes) and value */
  xattrs?: Iterable<readonly [string, Uint8Array]>;
}

/** Two zero blocks end an archive. */
export const TAR_END: Uint8Array = Buffer.alloc(2 * TAR_BLOCK);

/** Zero bytes that follow the data of a member. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/** A number as octal digits and NUL, in base 256 where they do not hold it. */
function putNumber(block: Buffer, value: number, offset: number, length: number): void {
  if (!Number.isSafeInteger(value))
    throw new FormatError({ struct: 'tarHeader', offset }, `cannot hold ${value}`);
  if (value >= 0 && value < 8 ** (length - 1)) {
    block.write(value.toString(8).padStart(length - 1, '0'), offset, 'latin1');
    return;
  }
  block.fill(value < 0 ? 0xff : 0, offset, offset + length);
  block.writeBigInt64BE(BigInt(value), offset + length - 8);
  // the highest bit marks base 256, the next one is the sign
  block[offset] = value < 0 ? 0xff : 0x80 | (block[offset] ?? 0);
}

/** Bytes cut to the room of a field, not inside of a UTF-8 character. */
function cut(bytes: Buffer): Buffer {
  if (bytes.length <= NAME_SIZE) return bytes;
  let end = NAME_SIZE;
  while (end > NAME_SIZE - 4 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

function putOwner(block: Buffer, name: string, offset: number): void {
  if (Buffer.byteLength(name) < OWNER_SIZE) block.write(name, offset, 'utf8');
}

function header(member: TarMember, isPax: boolean): Buffer {
  const block = Buffer.alloc(TAR_BLOCK);
  cut(member.path).copy(block);
  putNumber(block, member.mode & 0o7777, 100, 8);
  putNumber(block, member.uid, 108, 8);
  putNumber(block, member.gid, 116, 8);
  putNumber(block, member.size, 124, 12);
  putNumber(block, member.mtime, 136, 12);
  block[156] = member.type;
  if (member.link !== undefined) cut(member.link).copy(block, 157);
  block.write('ustar\x0000', 257, 'latin1');
  putOwner(block, member.userName, 265);
  putOwner(block, member.groupName, 297);
  if (!isPax) {
    putNumber(block, member.major ?? 0, 329, 8);
    putNumber(block, member.minor ?? 0, 337, 8);
  }
  block.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** `<length> <key>=<value>\n`, where the length counts its own digits. */
function paxRecord(key: Buffer, value: Uint8Array): Buffer {
  const rest = key.length + value.length + 3;
  let total = rest + 1;
  while (rest + String(total).length !== total) total = rest + String(total).length;
  return Buffer.concat([Buffer.from(`${total} `), key, Buffer.from('='), value, Buffer.from('\n')]);
}

/** Key of an attribute. Readers end a key at the first `=`; GNU tar writes such names in this way, and reads them. */
function xattrKey(name: string): string {
  return XATTR_KEY + (name.includes('=') ? name.replaceAll('%', '%25').replaceAll('=', '%3D') : name);
}

/** The records of a member, by key. */
function paxRecords(member: TarMember): Buffer[] {
  const records = new Map<string, Uint8Array>();
  if (member.path.length > NAME_SIZE) records.set('path', member.path);
  if (member.link !== undefined && member.link.length > NAME_SIZE) records.set('linkpath', member.link);
  for (const [name, value] of member.xattrs ?? []) records.set(xattrKey(name), value);
  return [...records]
    .map(([key, value]) => ({ key: Buffer.from(key, 'latin1'), value }))
    .sort((a, b) => Buffer.compare(a.key, b.key))
    .map(({ key, value }) => paxRecord(key, value));
}

function paxPath(path: Buffer): Buffer {
  const slash = path.lastIndexOf(SLASH);
  return Buffer.concat([path.subarray(0, slash + 1), Buffer.from('PaxHeaders.0/'), path.subarray(slash + 1)]);
}

/**
 * Everything that stands in front of a member's data: a pax header where one is needed, and the header.
 *
 * @throws FormatError EINVAL  a number that no header holds
 */
export function encodeMember(member: TarMember): Buffer {
  const main = header(member, false);
  const records = paxRecords(member);
  if (records.length === 0) return main;
  const size = records.reduce((sum, record) => sum + record.length, 0);
  const pax = header(
    {
      path: paxPath(member.path),
      type: TarType.paxLocal,
      mode: 0o644,
      uid: 0,
      gid: 0,
      userName: '',
      groupName: '',
      mtime: 0,
      size,
    },
    true,
  );
  return Buffer.concat([pax, ...records, Buffer.alloc(tarPadding(size)), main]);
}
