import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../../base/errors.ts';
import { MAX_TAR_PAX } from '../../base/limits.ts';
import { parsePax, parseTarHeader, TarType } from './archive-header.ts';
import {
  sampleHeader,
  sampleMember,
  samplePax,
  sampleTar,
  withChecksum,
  type SampleMember,
} from './archive-samples.ts';
import { TarParser, type TarEntry } from './archive.ts';

interface Seen {
  entry: TarEntry;
  data: Buffer;
  ended: boolean;
}

/** All members, the archive fed in pieces of `step` bytes. */
function parse(tar: Uint8Array, step = tar.length || 1): Seen[] {
  const parser = new TarParser();
  const seen: Seen[] = [];
  for (let at = 0; at < tar.length; at += step) {
    parser.feed(tar.subarray(at, at + step));
    for (let event = parser.next(); event !== undefined; event = parser.next()) {
      const last = seen.at(-1);
      if (event.type === 'entry') seen.push({ entry: event.entry, data: Buffer.alloc(0), ended: false });
      else if (event.type === 'data' && last !== undefined)
        last.data = Buffer.concat([last.data, event.bytes]);
      else if (last !== undefined) last.ended = true;
    }
  }
  parser.finish();
  return seen;
}

function one(member: SampleMember): TarEntry {
  const [seen] = parse(sampleTar([member]));
  assert.ok(seen !== undefined);
  return seen.entry;
}

const fails = (tar: Uint8Array, pattern: RegExp): void => {
  assert.throws(
    () => parse(tar),
    (error) => error instanceof FormatError && pattern.test(error.message),
  );
};

test('TarParser: gives the same members whatever the size of the pieces', () => {
  const tar = sampleTar([
    { name: 'a/', type: TarType.directory, mode: 0o755 },
    { name: 'a/b', data: Buffer.from('hello') },
    { name: 'a/full', data: Buffer.alloc(1024, 7) },
    { name: 'a/empty' },
    { name: 'a/long', pax: [['path', `a/${'n'.repeat(200)}`]], data: Buffer.from('x') },
  ]);
  const whole = parse(tar);
  assert.deepEqual(
    whole.map(({ entry, data, ended }) => [
      entry.name.toString(),
      entry.size,
      data.toString('latin1').slice(0, 5),
      ended,
    ]),
    [
      ['a/', 0, '', false],
      ['a/b', 5, 'hello', true],
      ['a/full', 1024, '\x07'.repeat(5), true],
      ['a/empty', 0, '', false],
      [`a/${'n'.repeat(200)}`, 1, 'x', true],
    ],
  );
  for (const step of [1, 7, 511, 512, 513, 4096])
    assert.deepEqual(parse(tar, step), whole, `pieces of ${step} bytes`);
});

test('TarParser: an archive that ends right after the data gives the end of the last member', () => {
  const tar = sampleMember({ name: 'a', data: Buffer.alloc(512, 1) });
  assert.equal(parse(tar)[0]?.ended, true);
});

test('TarParser: skipData leaves out data and end', () => {
  const tar = sampleTar([{ name: 'a', data: Buffer.from('secret') }, { name: 'b' }]);
  const parser = new TarParser();
  parser.feed(tar);
  const kinds: string[] = [];
  for (let event = parser.next(); event !== undefined; event = parser.next()) {
    kinds.push(event.type);
    if (event.type === 'entry') parser.skipData();
  }
  assert.deepEqual(kinds, ['entry', 'entry']);
});

test('TarParser: numbers in base 256, negative times, 32-bit ids', () => {
  const entry = one({
    name: 'f',
    uid: Buffer.from('80000000ee6b2800', 'hex'),
    mtime: Buffer.from('ffffffffffffffffffffff9c', 'hex'),
  });
  assert.deepEqual([entry.uid, entry.mtime], [4_000_000_000, -100]);
  fails(
    sampleTar([{ name: 'f', uid: Buffer.from('8000000100000000', 'hex') }]),
    /tarHeader\.uid at byte 0: holds 4294967296/,
  );
  fails(
    sampleTar([{ name: 'f', mtime: Buffer.from('800000007fffffffffffffff', 'hex') }]),
    /mtime at byte 0: holds 9223372036854775807/,
  );
});

test('TarParser: a pax size is that of the data, and of the member only', () => {
  const pax = samplePax([
    ['size', '5'],
    ['path', 'p'],
    ['uid', '3000000'],
  ]);
  const tar = Buffer.concat([
    sampleHeader({ name: 'PaxHeaders/x', type: TarType.paxLocal, data: pax }),
    Buffer.concat([pax, Buffer.alloc(512 - pax.length)]),
    sampleHeader({ name: '././@LongLink', type: TarType.gnuLongLink, size: 600 }),
    Buffer.concat([Buffer.alloc(599, 0x74), Buffer.alloc(425)]),
    sampleHeader({ name: 'short', size: 0 }),
    Buffer.concat([Buffer.from('12345'), Buffer.alloc(507)]),
    Buffer.alloc(1024),
  ]);
  const [seen] = parse(tar);
  assert.deepEqual(
    [seen?.entry.name.toString(), seen?.entry.uid, seen?.data.toString(), seen?.entry.link.length],
    ['p', 3_000_000, '12345', 599],
  );
});

test('TarParser: xattrs keep binary values, newlines and empty ones', () => {
  const entry = one({
    name: 'f',
    pax: [
      ['SCHILY.xattr.user.bin', Buffer.from([0, 10, 255, 61])],
      ['SCHILY.xattr.user.empty', ''],
      ['LIBARCHIVE.xattr.user.k', 'dg=='],
    ],
  });
  assert.deepEqual(
    [...(entry.xattrs ?? [])],
    [
      ['user.bin', Buffer.from([0, 10, 255, 61])],
      ['user.empty', Buffer.alloc(0)],
    ],
  );
});

test('TarParser: global records are defaults for later members', () => {
  const body = samplePax([
    ['uid', '77'],
    ['comment', 'of git archive'],
  ]);
  const tar = Buffer.concat([
    sampleHeader({ name: 'g', type: TarType.paxGlobal, data: body }),
    Buffer.concat([body, Buffer.alloc(512 - body.length)]),
    sampleTar([{ name: 'a' }, { name: 'b', pax: [['uid', '8']] }]),
  ]);
  assert.deepEqual(
    parse(tar).map(({ entry }) => entry.uid),
    [77, 8],
  );
  const rename = samplePax([['path', 'x']]);
  fails(
    Buffer.concat([
      sampleHeader({ name: 'g', type: TarType.paxGlobal, data: rename }),
      rename,
      Buffer.alloc(512 - rename.length),
    ]),
    /paxHeader\.path at byte 0: does not belong into a global header/,
  );
});

test('TarParser: the prefix counts in POSIX headers only', () => {
  assert.equal(one({ name: 'n', prefix: 'dir' }).name.toString(), 'dir/n');
  assert.equal(one({ name: 'n', prefix: 'dir', magic: 'ustar ', version: ' ' }).name.toString(), 'n');
  assert.equal(one({ name: 'n', prefix: 'dir', magic: '', version: '' }).name.toString(), 'n');
});

const GARBAGE = Buffer.alloc(512, 'garbage');
const refused: [string, Uint8Array, RegExp][] = [
  ['nothing at all', Buffer.alloc(0), /tar: is empty/],
  [
    'garbage after the end',
    Buffer.concat([sampleTar([{ name: 'a' }]), GARBAGE]),
    /checksum at byte 1536: is no octal number/,
  ],
  [
    'a wrong checksum',
    Buffer.from(sampleTar([{ name: 'a' }]).fill(0x62, 0, 1)),
    /checksum at byte 0: is \d+, the header adds up to/,
  ],
  ['half a header', sampleTar([{ name: 'a' }]).subarray(0, 700), /ends 188 bytes into a header/],
  [
    'missing data',
    sampleMember({ name: 'a', data: Buffer.alloc(2000) }).subarray(0, 1500),
    /ends 1060 bytes before the end/,
  ],
  [
    'missing padding',
    sampleMember({ name: 'a', data: Buffer.alloc(100) }).subarray(0, 612),
    /ends 412 bytes before the end/,
  ],
  ['an extension header alone', sampleHeader({ name: 'x', type: TarType.gnuLongName }), /without its member/],
  [
    'an extension header beyond the limit',
    sampleHeader({ name: 'x', type: TarType.paxLocal, size: MAX_TAR_PAX + 1 }),
    /limit 4194304/,
  ],
  ['old GNU sparse', sampleHeader({ name: 'x', type: TarType.gnuSparse }), /GNU sparse/],
];
for (const [name, tar, pattern] of refused) {
  test(`TarParser: refuses ${name}`, () => fails(tar, pattern));
}

test('TarParser: refuses a size in base 256 beyond the limit before it reads on', () => {
  const block = sampleHeader({ name: 'x' });
  block.set(Buffer.from('800000000000100000000001', 'hex'), 124);
  fails(withChecksum(block), /size at byte 0: is 17592186044417, limit 17592186044416/);
});

test('TarParser: refuses two pax headers for one member', () => {
  const twice = sampleMember({ name: 'a', pax: [['uid', '1']] }).subarray(0, 1024);
  fails(
    Buffer.concat([twice, sampleTar([{ name: 'a', pax: [['uid', '1']] }])]),
    /two extension headers of one kind/,
  );
});

test('parsePax: refuses lengths that lie', () => {
  for (const text of [
    'x',
    '5 a=b',
    '99 a=b\n',
    '6 a=bc',
    '0 a=b\n',
    '6 abc\n',
    '-1 a=b\n',
    '12345678901 a=b\n',
    '3 \n',
  ]) {
    assert.throws(() => parsePax(Buffer.from(text), 512), FormatError, JSON.stringify(text));
  }
  assert.deepEqual(parsePax(Buffer.from('6 a=b\n\0\0'), 0), [{ key: 'a', value: Buffer.from('b') }]);
});

test('parseTarHeader: blank numbers are 0, blank device numbers are unknown', () => {
  const block = sampleHeader({ name: 'p', type: TarType.fifo });
  block.fill(0, 108, 124);
  const header = parseTarHeader(withChecksum(block), 0);
  assert.deepEqual([header.uid, header.gid, header.devMajor, header.devMinor], [0, 0, undefined, undefined]);
  const device = parseTarHeader(
    sampleHeader({ name: 'c', type: TarType.char, devMajor: '     1 ', devMinor: '     3 ' }),
    0,
  );
  assert.deepEqual([device.devMajor, device.devMinor], [1, 3]);
});
