import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { FormatError } from '../../base/errors.ts';
import { newAttr, newChunkRef } from '../image.ts';
import { specVector6 } from '../testing/spec-vectors.ts';
import { openRafs6 } from './reader.ts';

const name = (text: string) => Buffer.from(text);

function patched(patches: [number, string][]): Buffer {
  const bytes = specVector6();
  for (const [offset, hex] of patches) Buffer.from(hex, 'hex').copy(bytes, offset);
  return bytes;
}

test('specVector6: has the digest that the specification names', () => {
  const digest = createHash('sha256').update(specVector6()).digest('hex');
  assert.equal(digest, '1c5a6efde89fad2df2023cbabd07a3a0c6bf4f50c18d44ffe60375b9b8d2e48c');
});

test('openRafs6: superblock and blob table of the vector', () => {
  const image = openRafs6(specVector6());
  assert.deepEqual(image.super, {
    version: 6,
    flags: 0x100_0039,
    chunkSize: 0x10_0000,
    compressor: 'none',
    digester: 'sha256',
    explicitUidGid: true,
    hasXattr: true,
    inodesCount: 5,
    blockSize: 4096,
  });
  assert.equal(image.rootIno, 128);
  const [blob] = image.blobs;
  assert.equal(blob?.id, '350fea00b001c21bc5901eeb0cf2a04ab7a282b23fefce94b5b01c809a0fd779');
  assert.equal(blob?.chunkCount, 1);
  assert.equal(blob?.features, 0x4000_0001);
  assert.equal(blob?.compressedSize, 4118);
  assert.equal(blob?.uncompressedSize, 4096);
  assert.equal(blob?.ciOffset, 6);
  assert.equal(blob?.ciUncompressedSize, 16);
  assert.equal(blob?.mappedBlkaddr, 0x80);
});

test('lookup: finds every name and no other', () => {
  const image = openRafs6(specVector6());
  const rows: [number, string, number][] = [
    [128, 'd', 135],
    [128, 's', 132],
    [128, '.', 128],
    [128, '..', 128],
    [135, 'f', 139],
    [135, 'h', 139],
    [135, '.', 135],
    [135, '..', 128],
    [135, 'g', 0],
    [135, '', 0],
    [128, 'zz', 0],
  ];
  for (const [dir, text, nid] of rows) assert.equal(image.lookup(dir, name(text)), nid, `${dir}/${text}`);
  assert.equal(image.parentOf(135), 128);
  assert.equal(image.parentOf(128), 128);
  assert.throws(() => image.lookup(139, name('x')), { code: 'ERR_NYDUS_FORMAT', errno: 'ENOTDIR' });
});

test('attr, xattrs, readlink: values of the vector', () => {
  const image = openRafs6(specVector6());
  const attr = newAttr();
  image.attr(139, attr);
  assert.deepEqual(attr, {
    ino: 139,
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
  const xattrs = [...image.xattrs(139)].map((x) => [x.name.toString(), Buffer.from(x.value).toString()]);
  assert.deepEqual(xattrs, [['user.k', 'v']]);
  assert.deepEqual([...image.xattrs(128)], []);
  assert.equal(Buffer.from(image.readlink(132)).toString(), 'd/f');
});

test('readdir: entries in stored order with cookies, and resuming after each of them', () => {
  const image = openRafs6(specVector6());
  const list = (cookie: number) => {
    const entries: [number, string, number, number][] = [];
    image.readdir(128, cookie, (nid, bytes, type, next) => {
      entries.push([nid, Buffer.from(bytes).toString(), type, next]);
      return true;
    });
    return entries;
  };
  const all: [number, string, number, number][] = [
    [128, '.', 2, 1],
    [128, '..', 2, 2],
    [135, 'd', 2, 3],
    [132, 's', 7, 4],
  ];
  for (let cookie = 0; cookie <= 5; cookie++)
    assert.deepEqual(list(cookie), all.slice(cookie), `cookie ${cookie}`);
});

test('readdir: other calls on the image during the visit do not disturb it', () => {
  const image = openRafs6(specVector6());
  const names: string[] = [];
  image.readdir(128, 0, (nid, bytes) => {
    names.push(Buffer.from(bytes).toString());
    image.lookup(135, name('h'));
    image.attr(nid, newAttr());
    return true;
  });
  assert.deepEqual(names, ['.', '..', 'd', 's']);
});

test('chunk: address from the index, record from the chunk table', () => {
  const image = openRafs6(specVector6());
  const ref = newChunkRef();
  assert.equal(image.chunkCount(139), 1);
  image.chunk(139, 0, ref);
  assert.deepEqual(ref, {
    blobIndex: 0,
    chunkIndex: 0,
    uncompressedOffset: 0,
    uncompressedSize: 6,
    fileOffset: 0,
    recordOffset: 0,
  });
  assert.equal(image.chunkRecordOffset(0, 0), 0x4000);
  assert.equal(image.chunkRecordOffset(0, 1), 0);
});

test('chunk: index bits 16 to 23 come from the high byte of the device id', () => {
  // chunk count and compression information grow with it, so that the blob has such a chunk
  const image = openRafs6(
    patched([
      [0x1048, '02000100'],
      [0x1078, '20001000'],
      [0x1080, '20001000'],
      [0x31b8, '01000101'],
    ]),
  );
  const ref = newChunkRef();
  image.chunk(139, 0, ref);
  assert.equal(ref.chunkIndex, 0x1_0001);
  assert.equal(ref.blobIndex, 0);
});

test('attr: a compact inode has no time and 16-bit owners', () => {
  // the symlink at nid 132, rewritten: format 4, mode, nlink, size, ino, uid, gid, then its target at 32 bytes
  const compact = '04000000ffa10100030000000000000003000000030000000700080000000000642f66';
  const image = openRafs6(patched([[0x3080, compact]]));
  const attr = newAttr();
  image.attr(132, attr);
  assert.deepEqual(attr, {
    ino: 132,
    mode: 0o120777,
    nlink: 1,
    uid: 7,
    gid: 8,
    size: 3,
    blocks: 1,
    rdev: 0,
    mtime: 0,
    mtimeNsec: 0,
  });
  assert.equal(Buffer.from(image.readlink(132)).toString(), 'd/f');
});

test('openRafs6: refuses damaged superblocks in the words scripts know', () => {
  const rows: [string, [number, string][]][] = [
    ['magic', [[0x400, '00']]],
    ['checksum', [[0x404, '01']]],
    ['plain EROFS', [[0x408, '00000000']]],
    ['block size', [[0x40c, '0d']]],
    ['no inodes', [[0x410, '00']]],
    ['metadata past the end', [[0x428, 'ff']]],
    ['shared xattrs', [[0x42c, '01']]],
    ['incompatible features', [[0x450, '0d']]],
    ['device count', [[0x456, '02']]],
    ['device slots elsewhere', [[0x458, '0c']]],
    ['two compressors', [[0x480, '3b']]],
    ['no digester', [[0x480, '31']]],
    ['unknown flag', [[0x481, '04']]],
    ['blob table unaligned', [[0x488, '08']]],
    ['blob table size', [[0x490, 'ff00']]],
    ['chunk size', [[0x494, '01']]],
    ['chunk table past the end', [[0x498, '0000ff']]],
    ['chunk table over the blob table', [[0x498, '0010']]],
    [
      'prefetch table unaligned',
      [
        [0x4a8, '04110000'],
        [0x4b0, '04'],
      ],
    ],
  ];
  for (const [label, patches] of rows) {
    assert.throws(() => openRafs6(patched(patches)), /^FormatError: invalid RAFS superblock: /, label);
  }
});

test('openRafs6: refuses damaged blob records and device slots', () => {
  const rows: [string, [number, string][]][] = [
    ['row number', [[0x1040, '01']]],
    ['chunk size differs', [[0x1044, '000020']]],
    ['too many chunks', [[0x1048, '01000001']]],
    ['unknown compressor', [[0x104c, '09']]],
    ['unknown digester', [[0x1050, '09']]],
    ['not aligned', [[0x1054, '00']]],
    ['unknown feature', [[0x1055, '10']]],
    ['internal feature bit', [[0x1057, 'c0']]],
    ['cipher', [[0x10d8, '02']]],
    ['entries do not fit', [[0x1080, '20']]],
    [
      'id with a slash',
      [
        [0x1000, '2f'],
        [0x580, '2f'],
      ],
    ],
    ['slot names another blob', [[0x580, '30']]],
    ['slot without blocks', [[0x5c0, '00']]],
  ];
  for (const [label, patches] of rows) assert.throws(() => openRafs6(patched(patches)), FormatError, label);
});

test('load: refuses damaged inodes when they are touched, not before', () => {
  const rows: [string, [number, string][]][] = [
    ['format bits', [[0x3160, '19']]],
    ['layout of a file', [[0x3160, '01']]],
    ['no type bits', [[0x3164, 'a401']]],
    ['nlink 0', [[0x318c, '00']]],
    ['chunk list past the end', [[0x316c, 'ffff']]],
    ['xattrs past the end', [[0x3162, 'ffff']]],
  ];
  for (const [label, patches] of rows) {
    const image = openRafs6(patched(patches));
    assert.throws(() => image.attr(139, newAttr()), FormatError, label);
  }
  for (const nid of [0, -1, 0.5, 560, 2 ** 40, Number.NaN]) {
    assert.throws(() => openRafs6(specVector6()).attr(nid, newAttr()), FormatError, String(nid));
  }
});

test('readdir: refuses damaged directory blocks', () => {
  const rows: [string, [number, string][]][] = [
    ['first name offset', [[0x3128, '31']]],
    ['first name offset 0', [[0x3128, '00']]],
    [
      'name offsets go back',
      [
        [0x3134, '30'],
        [0x3140, '2f'],
      ],
    ],
    ['name past the block', [[0x314c, 'ff0f']]],
    ['names do not ascend', [[0x3153, '7a']]],
    ['name with a slash', [[0x3154, '2f']]],
    ['nid 0', [[0x3138, '00']]],
    ['nid past the file', [[0x313d, '01']]],
    ['. is another directory', [[0x3120, '80']]],
  ];
  for (const [label, patches] of rows) {
    const image = openRafs6(patched(patches));
    assert.throws(() => image.readdir(135, 0, () => true), FormatError, label);
  }
});

test('chunk: refuses device 0, a device past the table, and a chunk outside its blob', () => {
  const ref = newChunkRef();
  assert.throws(() => openRafs6(patched([[0x31ba, '00']])).chunk(139, 0, ref), /chunkIndex6\.deviceId/);
  assert.throws(() => openRafs6(patched([[0x31ba, '02']])).chunk(139, 0, ref), /chunkIndex6\.deviceId/);
  assert.throws(() => openRafs6(patched([[0x31b8, '01']])).chunk(139, 0, ref), /chunkIndex6\.indexLow/);
});
