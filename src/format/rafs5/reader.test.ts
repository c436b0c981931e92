import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { FormatError } from '../../base/errors.ts';
import { newAttr, newChunkRef } from '../image.ts';
import { specVector5 } from '../testing/spec-vectors.ts';
import { openRafs5 } from './reader.ts';

const name = (text: string) => Buffer.from(text);

function patched(patches: [number, string][]): Buffer {
  const bytes = specVector5();
  for (const [offset, hex] of patches) Buffer.from(hex, 'hex').copy(bytes, offset);
  return bytes;
}

test('specVector5: has the digest that the specification names', () => {
  const digest = createHash('sha256').update(specVector5()).digest('hex');
  assert.equal(digest, '80ada33b7111682a0de1c1710edf34c5522ab4c23aaead73dc0c1d1c898a1a37');
});

test('openRafs5: superblock and blob table of the vector', () => {
  const image = openRafs5(specVector5());
  assert.deepEqual(image.super, {
    version: 5,
    flags: 0x39,
    chunkSize: 0x10_0000,
    compressor: 'none',
    digester: 'sha256',
    explicitUidGid: true,
    hasXattr: true,
    inodesCount: 4,
    blockSize: 4096,
  });
  assert.equal(image.rootIno, 1);
  assert.equal(image.blobs.length, 1);
  const [blob] = image.blobs;
  assert.equal(blob?.id, '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03');
  assert.equal(blob?.chunkCount, 1);
  assert.equal(blob?.features, 0x4000_0000);
  assert.equal(blob?.compressedSize, 6);
  assert.deepEqual(image.prefetchInos(), []);
});

test('lookup: finds every name and no other, both links of a file have one inode', () => {
  const image = openRafs5(specVector5());
  const rows: [number, string, number][] = [
    [1, 'd', 2],
    [1, 's', 3],
    [1, '.', 1],
    [1, '..', 1],
    [2, 'f', 4],
    [2, 'h', 4],
    [2, '.', 2],
    [2, '..', 1],
    [2, 'g', 0],
    [2, '', 0],
    [1, 'dd', 0],
    [1, 'z', 0],
  ];
  for (const [dir, text, ino] of rows) assert.equal(image.lookup(dir, name(text)), ino, `${dir}/${text}`);
  assert.equal(image.parentOf(2), 1);
  assert.equal(image.parentOf(1), 1);
});

test('lookup: a file as directory is ENOTDIR', () => {
  const image = openRafs5(specVector5());
  assert.throws(() => image.lookup(4, name('x')), { code: 'ERR_NYDUS_FORMAT', errno: 'ENOTDIR' });
});

test('attr: attributes of the linked file', () => {
  const attr = newAttr();
  openRafs5(specVector5()).attr(4, attr);
  assert.deepEqual(attr, {
    ino: 4,
    mode: 0o100644,
    nlink: 2,
    uid: 1000,
    gid: 1001,
    size: 6,
    blocks: 1,
    rdev: 0,
    mtime: 1700000001,
    mtimeNsec: 5,
  });
});

test('attr: the index of a second hard link, 0, and numbers past the table are no inodes', () => {
  const image = openRafs5(specVector5());
  for (const ino of [0, 5, 6, -1, 1.5, Number.NaN]) {
    assert.throws(() => image.attr(ino, newAttr()), FormatError, String(ino));
  }
});

test('readdir: entries with cookies, and resuming after each of them', () => {
  const image = openRafs5(specVector5());
  const list = (cookie: number) => {
    const entries: [number, string, number, number][] = [];
    image.readdir(2, cookie, (ino, bytes, type, next) => {
      entries.push([ino, Buffer.from(bytes).toString(), type, next]);
      return true;
    });
    return entries;
  };
  const all: [number, string, number, number][] = [
    [2, '.', 2, 1],
    [1, '..', 2, 2],
    [4, 'f', 1, 3],
    [4, 'h', 1, 4],
  ];
  for (let cookie = 0; cookie <= 5; cookie++)
    assert.deepEqual(list(cookie), all.slice(cookie), `cookie ${cookie}`);
});

test('chunk: place of the only chunk, and its record', () => {
  const image = openRafs5(specVector5());
  const ref = newChunkRef();
  assert.equal(image.chunkCount(4), 1);
  image.chunk(4, 0, ref);
  assert.deepEqual(ref, {
    blobIndex: 0,
    chunkIndex: 0,
    uncompressedOffset: 0,
    uncompressedSize: 6,
    fileOffset: 0,
    recordOffset: 0x2250,
  });
  assert.equal(image.chunkRecordOffset(0, 0), 0x2250);
  assert.equal(image.chunkRecordOffset(0, 1), 0);
  assert.equal(image.chunkRecordOffset(7, 0), 0);
  assert.throws(() => image.chunk(4, 1, ref), FormatError);
});

test('xattrs and readlink: values of the vector', () => {
  const image = openRafs5(specVector5());
  const xattrs = [...image.xattrs(4)].map((x) => [x.name.toString(), Buffer.from(x.value).toString()]);
  assert.deepEqual(xattrs, [['user.k', 'v']]);
  assert.equal(Buffer.from(image.xattr(4, name('user.k')) ?? []).toString(), 'v');
  assert.equal(image.xattr(4, name('user.x')), undefined);
  assert.equal(Buffer.from(image.readlink(3)).toString(), 'd/f');
  assert.throws(() => image.readlink(4), FormatError);
});

test('openRafs5: refuses damaged superblocks in the words scripts know', () => {
  const rows: [string, [number, string][]][] = [
    ['magic', [[0, '00']]],
    ['version', [[4, '0006']]],
    ['superblock size', [[8, '0010']]],
    ['chunk size not a power of two', [[0xc, '01001000']]],
    ['chunk size 0', [[0xc, '00000000']]],
    ['unknown flag', [[0x11, '04']]],
    ['flag above bit 31', [[0x14, '01']]],
    ['more inodes than entries', [[0x18, '09']]],
    [
      'no entries',
      [
        [0x18, '00'],
        [0x38, '00000000'],
      ],
    ],
    ['inode table past the end', [[0x20, '0000000001']]],
    ['inode table unaligned', [[0x20, '04']]],
    ['inode table too long', [[0x38, 'ffffffff']]],
    ['blob table in the superblock', [[0x30, '0000']]],
    ['extended table over the inode table', [[0x48, '0020']]],
  ];
  for (const [label, patches] of rows) {
    assert.throws(
      () => openRafs5(patched(patches)),
      /^FormatError: invalid RAFS superblock: superblock5/,
      label,
    );
  }
});

test('load: refuses damaged records when they are touched, not before', () => {
  const rows: [string, [number, string][], number][] = [
    ['nlink 0', [[0x21b0 + 0x58, '00']], 4],
    ['name size 0', [[0x21b0 + 0x64, '0000']], 4],
    ['no type bits', [[0x21b0 + 0x3c, 'a401']], 4],
    ['chunk count', [[0x21b0 + 0x60, '02']], 4],
    ['parent 0', [[0x21b0 + 0x20, '00']], 4],
    ['name with a slash', [[0x2230, '2f']], 4],
    ['xattrs past the end', [[0x2238, 'ffffff7f']], 4],
    ['slot past the end', [[0x200c, 'ffffff1f']], 4],
    ['size past 2^53', [[0x21b0 + 0x47, '10']], 4],
    ['children past the table', [[0x2128 + 0x60, 'ff']], 2],
    ['children before the directory', [[0x2128 + 0x5c, '01']], 2],
    ['symlink size 0', [[0x2390 + 0x66, '0000']], 3],
  ];
  for (const [label, patches, ino] of rows) {
    const image = openRafs5(patched(patches));
    image.attr(1, newAttr());
    assert.throws(() => image.attr(ino, newAttr()), FormatError, label);
  }
});

test('readdir: refuses names that do not ascend', () => {
  const image = openRafs5(patched([[0x2230, '7a']]));
  assert.throws(() => image.readdir(2, 0, () => true), /not in ascending order/);
});

test('chunk: refuses a blob outside the table and a chunk outside its blob', () => {
  const ref = newChunkRef();
  assert.throws(
    () => openRafs5(patched([[0x2270, '01']])).chunk(4, 0, ref),
    /chunkRecord\.blobIndex.* has 1 rows/,
  );
  assert.throws(
    () => openRafs5(patched([[0x2298, '01']])).chunk(4, 0, ref),
    /chunkRecord\.index.* has 1 chunks/,
  );
  assert.throws(() => openRafs5(patched([[0x2290, '01']])).chunk(4, 0, ref), /chunkRecord\.fileOffset/);
});
