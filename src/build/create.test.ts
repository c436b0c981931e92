import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { goldenPath, skipUnlessGolden, tempDir } from '../../test/support/golden.ts';
import { decompress } from '../codec/compress.ts';
import { digestOf } from '../codec/digest.ts';
import { openImage } from '../format/detect.ts';
import { ChunkFlag } from '../format/flags.ts';
import type { TreeNode } from '../tree/node.ts';
import { createImage } from './create.ts';
import { loadImage } from './load-image.ts';
import type { BuildContext, BuildProgress, CreateOptions } from './options.ts';
import { quietContext } from './testing/golden-command.ts';

function options(source: string, out: string, more: Partial<CreateOptions> = {}): CreateOptions {
  return {
    source,
    type: 'dir-rafs',
    version: 6,
    compressor: 'none',
    digester: 'sha256',
    chunkSize: 0x10_0000,
    batchSize: 0,
    alignedChunk: false,
    whiteoutSpec: 'oci',
    prefetchPolicy: 'none',
    prefetchPatterns: [],
    repeatable: false,
    blobToc: false,
    inlineMeta: false,
    blobId: undefined,
    blobOffset: 0,
    blob: undefined,
    blobDir: join(out, 'blobs'),
    blobCacheDir: undefined,
    bootstrap: join(out, 'boot'),
    parentBootstrap: undefined,
    chunkDict: undefined,
    threads: 0,
    ...more,
  };
}

/** A fresh output directory with `blobs` in it. */
function outDir(): string {
  const dir = tempDir();
  mkdirSync(join(dir, 'blobs'));
  return dir;
}

/** Builds; the bootstrap and the blob. */
async function build(
  source: string,
  more: Partial<CreateOptions> = {},
): Promise<{ boot: Buffer; blob: Buffer }> {
  const out = outDir();
  const { bootstrap } = await createImage(options(source, out, more), quietContext());
  const [name = ''] = readdirSync(join(out, 'blobs'));
  return { boot: readFileSync(bootstrap), blob: readFileSync(join(out, 'blobs', name)) };
}

function filesOf(boot: Buffer): Map<string, TreeNode> {
  const files = new Map<string, TreeNode>();
  const visit = (node: TreeNode, path: string): void => {
    files.set(path, node);
    for (const child of node.children ?? []) visit(child, `${path}/${child.name.toString()}`);
  };
  visit(loadImage(openImage(boot), 0).root, '');
  return files;
}

/** A tree with small, empty, hard-linked, repeated and large files, nested. */
function sampleSource(): string {
  const dir = tempDir();
  for (const sub of ['b/c', 'a', 'z/y/x']) mkdirSync(join(dir, sub), { recursive: true });
  const data = randomBytes(300_000);
  writeFileSync(join(dir, 'b/large'), Buffer.concat([data, Buffer.alloc(6_000_000, 'l'), data]));
  writeFileSync(join(dir, 'a/empty'), '');
  for (let i = 0; i < 300; i++)
    writeFileSync(join(dir, `z/y/small${i}`), `file ${i % 250} `.repeat(1 + (i % 50)));
  writeFileSync(join(dir, 'z/linked'), 'linked data');
  linkSync(join(dir, 'z/linked'), join(dir, 'a/link'));
  linkSync(join(dir, 'z/linked'), join(dir, 'z/y/x/link'));
  linkSync(join(dir, 'z/linked'), join(dir, 'z/a-link'));
  writeFileSync(join(dir, 'b/c/copy'), data);
  return dir;
}

test('createImage: bytes depend neither on the number of workers nor on whether the scan runs ahead', async () => {
  const source = sampleSource();
  for (const more of [{}, { version: 5 }, { compressor: 'zstd' }] satisfies Partial<CreateOptions>[]) {
    const one = await build(source, { ...more, threads: 1 });
    const three = await build(source, { ...more, threads: 3 });
    // a pattern that names nothing: the tree is read before anything is stored
    const ordered = await build(source, {
      ...more,
      threads: 2,
      prefetchPolicy: 'fs',
      prefetchPatterns: ['/nothing/here'],
    });
    assert.ok(one.blob.equals(three.blob) && one.boot.equals(three.boot));
    assert.ok(one.blob.equals(ordered.blob) && one.boot.equals(ordered.boot));
  }
});

test('createImage: data is stored in the order of entry numbers, a hard link once', async () => {
  const source = sampleSource();
  const { boot, blob } = await build(source);
  const files = filesOf(boot);
  for (const path of ['a/link', 'z/a-link', 'z/linked', 'z/y/x/link'])
    assert.equal(files.get(`/${path}`)?.chunks[0]?.index, 0, path);
  assert.equal(files.get('/a/link')?.sourceIno, files.get('/z/y/x/link')?.sourceIno);
  for (const path of ['b/large', 'b/c/copy', 'z/y/small7']) {
    const chunks = files.get(`/${path}`)?.chunks ?? [];
    const data = Buffer.concat(
      chunks.map((chunk) =>
        blob.subarray(chunk.compressedOffset, chunk.compressedOffset + chunk.compressedSize),
      ),
    );
    assert.ok(data.equals(readFileSync(join(source, path))), path);
  }
});

/** A context that does something when the tree was read; the data of a small tree is read after that. */
function afterScan(act: () => void): BuildContext {
  let done = false;
  const progress = ({ phase, files }: BuildProgress): void => {
    if (phase !== 'scan' || files === 0 || done) return;
    done = true;
    act();
  };
  return { ...quietContext(), progress };
}

const CHANGES: [string, (path: string) => void, RegExp][] = [
  ['shrinks', (path) => truncateSync(path, 100), /file ".*\/sub\/victim" ended at 100 bytes/],
  ['grows', (path) => appendFileSync(path, 'more'), /file ".*\/sub\/victim" has more than 5000 bytes/],
  ['vanishes', (path) => rmSync(path), /cannot read ".*\/sub\/victim": ENOENT/],
];
for (const [change, act, message] of CHANGES) {
  test(`createImage: a file that ${change} during the build is named, nothing is left`, async () => {
    const source = tempDir();
    mkdirSync(join(source, 'sub'));
    const victim = join(source, 'sub/victim');
    writeFileSync(join(source, 'other'), 'other');
    writeFileSync(victim, Buffer.alloc(5000, 'v'));
    const out = outDir();
    await assert.rejects(
      createImage(
        options(source, out),
        afterScan(() => act(victim)),
      ),
      message,
    );
    assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
  });
}

test('createImage: an aborted build leaves nothing', async () => {
  const source = sampleSource();
  const out = outDir();
  const controller = new AbortController();
  const context = { ...afterScan(() => controller.abort(new Error('enough'))), signal: controller.signal };
  await assert.rejects(createImage(options(source, out), context), /enough/);
  assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
});

for (const [output, more] of Object.entries({
  '--blob-dir': {},
  '--blob-cache-dir': { blobDir: undefined, blobCacheDir: 'blobs' },
}) as [string, Partial<CreateOptions>][]) {
  test(`createImage ${output}: an abort in the moment an output is created leaves nothing`, async () => {
    const source = sampleSource();
    for (let round = 0; round < 20; round++) {
      const out = outDir();
      const controller = new AbortController();
      const cached = more.blobCacheDir === undefined ? {} : { blobCacheDir: join(out, more.blobCacheDir) };
      const build = createImage(options(source, out, { ...more, ...cached }), {
        ...quietContext(),
        signal: controller.signal,
      });
      const rejected = assert.rejects(build, /enough/);
      // the file is there before the promise of its handle is settled
      while (readdirSync(join(out, 'blobs')).length === 0) await setImmediate();
      controller.abort(new Error('enough'));
      await rejected;
      assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
    }
  });
}

test(
  'createImage: a full disk is an error and leaves nothing',
  { skip: process.getuid?.() === 0 ? false : 'needs root: mounts a small tmpfs' },
  async (t) => {
    const source = sampleSource();
    const out = tempDir();
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', out]);
    t.after(() => execFileSync('umount', [out]));
    mkdirSync(join(out, 'blobs'));
    await assert.rejects(createImage(options(source, out), quietContext()), { code: 'ENOSPC' });
    assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
    const cached = { blobDir: undefined, blobCacheDir: join(out, 'blobs') };
    await assert.rejects(createImage(options(source, out, cached), quietContext()), { code: 'ENOSPC' });
    assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
  },
);

test('createImage: chunks of 16 MiB with batches are refused before anything is written', async () => {
  const out = outDir();
  const big = { batchSize: 0x10_0000, chunkSize: 0x100_0000 };
  await assert.rejects(
    createImage(options(tempDir(), out, big), quietContext()),
    /chunks of 16777216 bytes do not go with batches.*limit 8388608/,
  );
  assert.deepEqual(readdirSync(out, { recursive: true }), ['blobs']);
});

test('createImage: a blob offset is added to the place of every chunk and to nothing else', async () => {
  const source = sampleSource();
  const plain = await build(source);
  const moved = await build(source, { blobOffset: 0x1_0000 });
  const before = filesOf(plain.boot);
  let chunks = 0;
  for (const [path, node] of filesOf(moved.boot)) {
    node.chunks.forEach((chunk, i) => {
      const other = before.get(path)?.chunks[i];
      assert.deepEqual(chunk, { ...other, compressedOffset: (other?.compressedOffset ?? 0) + 0x1_0000 });
      chunks++;
    });
  }
  assert.ok(chunks > 300);
  const dataEnd = Math.max(
    ...[...before.values()].flatMap((n) => n.chunks.map((c) => c.compressedOffset + c.compressedSize)),
  );
  assert.ok(plain.blob.subarray(0, dataEnd).equals(moved.blob.subarray(0, dataEnd)));
});

test('createImage: a v5 dictionary or parent with another compressor is refused, a v6 dictionary is not', async () => {
  const source = sampleSource();
  for (const version of [5, 6] as const) {
    const out = outDir();
    await createImage(options(source, out, { version, compressor: 'lz4_block' }), quietContext());
    const dictionary = { version, compressor: 'zstd', chunkDict: join(out, 'boot') } as const;
    if (version === 5) {
      const different = /RAFS v5 can not support different compressors, zstd vs lz4_block/;
      await assert.rejects(createImage(options(source, outDir(), dictionary), quietContext()), different);
      const parent = { version, compressor: 'zstd', parentBootstrap: join(out, 'boot') } as const;
      await assert.rejects(
        createImage(options(source, outDir(), parent), quietContext()),
        /RAFS v5 can not support different compressors/,
      );
    } else {
      const again = outDir();
      await createImage(options(source, again, dictionary), quietContext());
      assert.deepEqual(readdirSync(join(again, 'blobs')), []);
    }
  }
});

for (const name of ['odd-v5-lz4', 'odd-v5-zstd', 'bounds1m-v5-zstd']) {
  test(
    `createImage: chunks of golden ${name} decode to their digests`,
    { skip: skipUnlessGolden('cases', name) },
    () => {
      const dir = goldenPath('cases', name) as string;
      const boot = readFileSync(join(dir, 'bootstrap'));
      const image = openImage(boot);
      const id = image.blobs[0]?.id ?? '';
      const blob = readFileSync(join(dir, 'blobs', id));
      let compressed = 0;
      for (const node of filesOf(boot).values()) {
        for (const chunk of node.chunks) {
          const stored = blob.subarray(chunk.compressedOffset, chunk.compressedOffset + chunk.compressedSize);
          const isCompressed = (chunk.flags & ChunkFlag.compressed) !== 0;
          if (isCompressed) compressed++;
          const plain = isCompressed
            ? decompress(image.super.compressor, stored, chunk.uncompressedSize)
            : stored;
          assert.equal(plain.length, chunk.uncompressedSize);
          assert.deepEqual(digestOf(image.super.digester, plain), Buffer.from(chunk.digest));
        }
      }
      assert.ok(compressed > 0);
    },
  );
}
