import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { goldenPath, skipUnlessGolden } from '../../test/support/golden.ts';
import { FormatError, NydusError } from '../base/errors.ts';
import { openImage } from '../format/detect.ts';
import { superblock5 } from '../format/rafs5/layout.ts';
import { nodeAt, walkNumbering } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';
import { writeBootstrap } from './bootstrap.ts';
import { loadImage } from './load-image.ts';

function golden(name: string): Buffer {
  return readFileSync(goldenPath('cases', name, 'bootstrap') ?? '');
}

function at(root: TreeNode, path: string): TreeNode {
  const node = nodeAt(root, Buffer.from(path));
  assert.ok(node !== undefined, path);
  return node;
}

for (const name of [
  'odd-v5-none',
  'odd-v6-none',
  'odd-tar-v5',
  'odd-tar-v6',
  'emptyroot-v5',
  'emptyroot-v6',
  'small-v6-batch-none',
]) {
  test(
    `loadImage: golden ${name} written again is the same`,
    { skip: skipUnlessGolden('cases', name) },
    () => {
      const bytes = golden(name);
      const image = openImage(bytes);
      const { root, blobs } = loadImage(image, 0);
      const again = writeBootstrap(root, blobs, { ...image.super, prefetchPatterns: [] });
      assert.ok(again.equals(bytes));
    },
  );
}

test(
  'loadImage: hard links of v5 keep the attributes of their own record',
  { skip: skipUnlessGolden('cases', 'odd-tar-v5') },
  () => {
    const { root } = loadImage(openImage(golden('odd-tar-v5')), 3);
    const links = new Map<number, TreeNode[]>();
    walkNumbering(root, (node) => {
      if ((node.mode & 0o170000) === 0o100000)
        links.set(node.sourceIno, [...(links.get(node.sourceIno) ?? []), node]);
      assert.equal(node.layer, 3);
    });
    const groups = [...links.values()].filter((group) => group.length > 1);
    assert.ok(groups.length > 0);
    assert.ok(groups.some((group) => new Set(group.map(({ mtime }) => mtime)).size > 1));
  },
);

test(
  'loadImage: v6 links share a nid, chunks have file offsets',
  { skip: skipUnlessGolden('cases', 'odd-v6-none') },
  () => {
    const { root } = loadImage(openImage(golden('odd-v6-none')), 0);
    let most = 0;
    walkNumbering(root, (node) => {
      most = Math.max(most, node.chunks.length);
      assert.deepEqual(
        node.chunks.map(({ fileOffset }) => fileOffset),
        node.chunks.map((_, i) => i * 0x10000),
      );
    });
    assert.ok(most > 1);
  },
);

test(
  'loadImage: an entry used twice is refused, so that no image loops',
  { skip: skipUnlessGolden('cases', 'odd-v5-none') },
  () => {
    const bytes = Buffer.from(golden('odd-v5-none'));
    const table = superblock5.read(new DataView(bytes.buffer, bytes.byteOffset), 0).inodeTableOffset;
    const root = bytes.readUInt32LE(table) * 8;
    // the first child of the root becomes the root's own record
    bytes.writeUInt32LE(root / 8, table + 4);
    assert.throws(() => loadImage(openImage(bytes), 0), FormatError);
  },
);

for (const name of ['tiny-v5-none-sha256', 'tiny-v6-none-sha256', 'xattr-v5', 'xattr-v6']) {
  test(
    `loadImage: mutations of ${name} give a tree or one of our errors`,
    { skip: skipUnlessGolden('cases', name) },
    () => {
      const original = golden(name);
      let state = 7;
      const next = (limit: number): number => {
        state = (state * 1664525 + 1013904223) % 4294967296;
        return Math.floor((state / 4294967296) * limit);
      };
      let loaded = 0;
      for (let seed = 0; seed < 300; seed++) {
        const bytes = Buffer.from(original);
        for (let i = next(4); i >= 0; i--) bytes[next(bytes.length)] = next(256);
        try {
          loadImage(openImage(bytes), 0);
          loaded++;
        } catch (error) {
          assert.ok(error instanceof NydusError, `seed ${seed}: ${String(error)}`);
        }
      }
      assert.ok(loaded > 0);
    },
  );
}

test(
  'loadImage: a path of the tree has its attributes',
  { skip: skipUnlessGolden('cases', 'tiny-v6-none-sha256') },
  () => {
    const { root, blobs } = loadImage(openImage(golden('tiny-v6-none-sha256')), 0);
    assert.equal(blobs.length, 1);
    assert.deepEqual([at(root, '/').mode & 0o170000, at(root, '/').inherited], [0o040000, true]);
  },
);
