// The test support itself: inputs come out as their manifests say, encodings are exact.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  goldenPath,
  percentDecode,
  percentEncode,
  prepareDirInput,
  prepareTarInput,
  readManifest,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from './golden.ts';
import { compareTree, compareTrees, splitDevice } from './tree-manifest.ts';
import type { ManifestEntry } from './golden.ts';

/** An input manifest in the terms of an image manifest: permission bits get their type, hard links their file. */
function asTree(entries: ManifestEntry[]): ManifestEntry[] {
  const format: Record<string, number> = {
    dir: 0o040000,
    file: 0o100000,
    symlink: 0o120000,
    char: 0o020000,
    block: 0o060000,
    fifo: 0o010000,
    socket: 0o140000,
  };
  const byPath = new Map(entries.map((entry) => [entry.path.toString('latin1'), entry]));
  return entries.map((entry) => {
    let file = entry;
    while (file.type === 'hardlink' && file.link !== undefined) {
      const next = byPath.get(file.link.toString('latin1'));
      if (next === undefined)
        throw new Error(`hard link to ${percentEncode(file.link)}, which is not listed`);
      file = next;
    }
    return { ...file, path: entry.path, mode: (format[file.type] ?? 0) | file.mode };
  });
}

for (const name of ['tiny', 'odd', 'xattr', 'nodata', 'emptyroot', 'base', 'up-ovl', 'fusetree']) {
  const reason = skipUnlessGolden('input', `${name}.tar.gz`) || requireRoot();
  test(`prepareDirInput: ${name} comes out as its manifest says`, { skip: reason }, (t) => {
    const dir = tempDir(t);
    prepareDirInput(name, dir);
    const manifest = asTree(readManifest(`input/${name}.manifest.jsonl`));
    assert.deepEqual(compareTree(dir, manifest, { ignore: ['ctime', 'atime'] }), []);
  });
}

test(
  'prepareTarInput: the plain tar has the listed digest',
  { skip: skipUnlessGolden('input', 'tiny.tar.gz') },
  (t) => {
    const path = join(tempDir(t), 'tiny.tar');
    prepareTarInput('tiny', path);
    assert.equal(readFileSync(path).length % 512, 0);
  },
);

test(
  'goldenPath: links of the golden data are files with content',
  { skip: skipUnlessGolden('cases', 'tiny-v6-none-blake3') },
  () => {
    const bootstrap = readFileSync(goldenPath('cases/tiny-v6-none-blake3/bootstrap') ?? '');
    assert.equal(bootstrap.length, 20480);
    assert.equal(bootstrap.readUInt32LE(1024), 0xe0f5e1e2);
  },
);

test('percentDecode, percentEncode: every byte survives, blank % " and \\ are encoded', () => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  assert.deepEqual(percentDecode(percentEncode(all)), all);
  assert.equal(percentEncode(Buffer.from('a b%"\\~\xff', 'latin1')), 'a%20b%25%22%5C~%FF');
});

test('splitDevice: numbers beyond 8 bits are put together again', () => {
  assert.deepEqual(splitDevice(0x0103n), [1, 3]);
  assert.deepEqual(
    splitDevice(((511n % 4096n) << 8n) | (1048575n & 0xffn) | ((1048575n & ~0xffn) << 12n)),
    [511, 1048575],
  );
});

test('compareTrees: names what differs', (t) => {
  const dir = tempDir(t);
  for (const side of ['a', 'b']) {
    mkdirSync(join(dir, side));
    writeFileSync(join(dir, side, 'same'), 'x', { mode: 0o600 });
    writeFileSync(join(dir, side, 'data'), side);
    symlinkSync(side, join(dir, side, 'link'));
  }
  writeFileSync(join(dir, 'b', 'extra'), '');
  const ignore = ['ino', 'mtime', 'mtime_nsec'];
  const lines = compareTrees(join(dir, 'a'), join(dir, 'b'), { ignore });
  assert.equal(lines.length, 3);
  assert.match(lines[0] ?? '', /^\/data sha256: expected [0-9a-f]{64}, found [0-9a-f]{64}$/);
  assert.equal(lines[1], '/link target: expected a, found b');
  assert.equal(lines[2], '/extra is there, the manifest has no such entry');
});
