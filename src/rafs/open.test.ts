import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { specVector5, specVector6 } from '../format/testing/spec-vectors.ts';
import { effectiveBlobId, idOfBootstrapPath, PLACEHOLDER_BLOB_ID } from './blob-id.ts';
import { openBootstrap } from './open.ts';
import { resolvePath } from './path.ts';
import { walkTree } from './walk.ts';

const dir = mkdtempSync(join(tmpdir(), 'nydus-open-'));
after(() => rmSync(dir, { recursive: true }));

function file(name: string, bytes: Uint8Array): string {
  const path = join(dir, name);
  writeFileSync(path, bytes);
  return path;
}

test('openBootstrap: maps both versions and unmaps once', () => {
  for (const [version, bytes] of [
    [5, specVector5()],
    [6, specVector6()],
  ] as const) {
    const path = file(`v${version}`, bytes);
    const opened = openBootstrap(path);
    assert.equal(opened.path, path);
    assert.equal(opened.image.super.version, version);
    assert.ok(resolvePath(opened.image, '/d/h') > 0);
    opened.close();
    opened.close();
  }
});

test('openBootstrap: missing, short and foreign files are errors that name the path', () => {
  assert.throws(() => openBootstrap(join(dir, 'none')), {
    code: 'ERR_NYDUS_BACKEND',
    message: /cannot open bootstrap .*none/,
  });
  assert.throws(() => openBootstrap(dir), { code: 'ERR_NYDUS_BACKEND', message: /is no regular file/ });
  const invalid = { code: 'ERR_NYDUS_FORMAT', message: /^invalid RAFS superblock: .*\(.*\)$/ };
  assert.throws(() => openBootstrap(file('empty', Buffer.alloc(0))), invalid);
  assert.throws(() => openBootstrap(file('short', specVector6().subarray(0, 4096))), invalid);
  assert.throws(() => openBootstrap(file('foreign', Buffer.alloc(9000, 1))), invalid);
});

test('resolvePath: text and bytes, dots and slashes, names that are not there', () => {
  const { image, close } = openBootstrap(file('paths', specVector6()));
  const rows: [string, number][] = [
    ['/', 128],
    ['', 128],
    ['/d', 135],
    ['//d//f/', 139],
    ['/d/../s', 132],
    ['/d/./h', 139],
    ['/x', 0],
    ['/d/f/x', 0],
    ['/s/x', 0],
  ];
  for (const [path, nid] of rows) {
    assert.equal(resolvePath(image, path), nid, path);
    assert.equal(resolvePath(image, Buffer.from(path)), nid, path);
  }
  close();
});

test('walkTree: depth first, names in byte order', () => {
  for (const bytes of [specVector5(), specVector6()]) {
    const { image, close } = openBootstrap(file('walk', bytes));
    const rows = [...walkTree(image)].map((e) => [e.path.toString(), e.depth, e.fileType]);
    assert.deepEqual(rows, [
      ['/', 0, 2],
      ['/d', 1, 2],
      ['/d/f', 2, 1],
      ['/d/h', 2, 1],
      ['/s', 1, 7],
    ]);
    close();
  }
});

test('walkTree: a directory that holds its parent is refused', () => {
  const bytes = specVector6();
  // /d/f and its type become the root
  bytes.writeUInt32LE(128, 0x3138);
  const { image, close } = openBootstrap(file('cycle', bytes));
  assert.throws(() => [...walkTree(image)], /directory 128 is reached twice/);
  close();
});

test('effectiveBlobId: placeholders take the file name, cut at the first dot', () => {
  const id = 'ab'.repeat(32);
  const plain = { id, features: 0x4000_0001 };
  const inlined = { id: PLACEHOLDER_BLOB_ID, features: 0x5000_0003 };
  const separate = { id, features: 0x5000_0013 };
  assert.equal(effectiveBlobId(plain, '/x/cafe.image.boot'), id);
  assert.equal(effectiveBlobId(inlined, '/x/cafe.image.boot'), 'cafe');
  assert.equal(effectiveBlobId(inlined, undefined), PLACEHOLDER_BLOB_ID);
  assert.equal(effectiveBlobId(separate, '/x/cafe.image.boot'), id);
  assert.equal(idOfBootstrapPath('/a/b'), 'b');
});
