// Writes small archives for the tests of the parser and of the builder. Not used by the programs.
import { TAR_BLOCK, tarHeader, TarType } from './archive-header.ts';

/** One member of a sample archive. Numbers are written as octal unless given as bytes. */
export interface SampleMember {
  name: string | Uint8Array;
  type?: number;
  mode?: number;
  uid?: number | Uint8Array;
  gid?: number;
  mtime?: number | Uint8Array;
  link?: string;
  data?: Uint8Array;
  /** size field, when it is not the length of the data */
  size?: number;
  devMajor?: string;
  devMinor?: string;
  magic?: string;
  version?: string;
  prefix?: string;
  /** records of a pax header written in front */
  pax?: [string, string | Uint8Array][];
}

function octal(value: number, width: number): Buffer {
  return Buffer.from(`${value.toString(8).padStart(width - 1, '0')}\0`);
}

function number(value: number | Uint8Array | undefined, width: number): Uint8Array {
  return value instanceof Uint8Array ? value : octal(value ?? 0, width);
}

function raw(text: string | Uint8Array | undefined): Uint8Array {
  return text instanceof Uint8Array ? text : Buffer.from(text ?? '');
}

function padded(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc(Math.ceil(data.length / TAR_BLOCK) * TAR_BLOCK - data.length)]);
}

/** Header block of a member, checksum included. */
export function sampleHeader(member: SampleMember): Buffer {
  const type = member.type ?? TarType.regular;
  const block = tarHeader.encode({
    name: raw(member.name),
    mode: octal(member.mode ?? 0o644, 8),
    uid: number(member.uid, 8),
    gid: number(member.gid, 8),
    size: octal(member.size ?? member.data?.length ?? 0, 12),
    mtime: number(member.mtime ?? 1_700_000_000, 12),
    checksum: Buffer.alloc(8, 0x20),
    typeflag: Uint8Array.of(type),
    linkname: raw(member.link),
    magic: member.magic ?? 'ustar',
    version: member.version ?? '00',
    devMajor: raw(member.devMajor),
    devMinor: raw(member.devMinor),
    prefix: raw(member.prefix),
  });
  return withChecksum(block);
}

/** The block with its checksum field set. */
export function withChecksum(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Body of a pax header. */
export function samplePax(records: readonly [string, string | Uint8Array][]): Buffer {
  return Buffer.concat(
    records.map(([key, value]) => {
      const body = Buffer.concat([Buffer.from(` ${key}=`), raw(value), Buffer.from('\n')]);
      let length = body.length + 1;
      while (String(length).length + body.length !== length) length = String(length).length + body.length;
      return Buffer.concat([Buffer.from(String(length)), body]);
    }),
  );
}

/** Header, extension headers and data of a member. */
export function sampleMember(member: SampleMember): Buffer {
  const parts: Buffer[] = [];
  if (member.pax !== undefined) {
    const body = samplePax(member.pax);
    parts.push(sampleHeader({ name: 'PaxHeaders/x', type: TarType.paxLocal, data: body }), padded(body));
  }
  parts.push(sampleHeader(member));
  if (member.data !== undefined) parts.push(padded(member.data));
  return Buffer.concat(parts);
}

/** A whole archive with its end mark. */
export function sampleTar(members: readonly SampleMember[]): Buffer {
  return Buffer.concat([...members.map(sampleMember), Buffer.alloc(2 * TAR_BLOCK)]);
}
