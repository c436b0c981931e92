// Prefetch makes exactly the chunks of what is listed ready: by a list, by the table of the image, or everything.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectingLogger } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData } from '../../test/conformance/make-image.ts';
import { goldenDir, goldenPath, percentEncode, skipUnlessGolden } from '../../test/support/golden.ts';
import { tempDir } from '../../test/support/temporary.ts';
import type { PrefetchConfig } from '../storage/config.ts';
import { RafsInstance } from './instance.ts';
import { newChunkRef } from '../format/image.ts';
import { walkTree } from './walk.ts';
import { FileType6 } from '../format/rafs6/layout.ts';

interface Source {
  bootstrap: string;
  blobDir: string;
}

async function open(
  t: TestContext,
  source: Source,
  prefetch: Partial<PrefetchConfig>,
  lines: string[] = [],
): Promise<RafsInstance> {
  const instance = await RafsInstance.open({
    bootstrap: source.bootstrap,
    id: 'prefetch',
    logger: collectingLogger(lines),
    decodeThreads: 0,
    config: instanceConfig({
      blobDir: source.blobDir,
      workDir: tempDir(t),
      prefetch: { enable: true, prefetch_all: false, ...prefetch },
    }),
  });
  t.after(() => instance.close());
  return instance;
}

/** `blob:chunk` of everything that is ready. */
function readyChunks({ share }: RafsInstance): string[] {
  return share.blobs.flatMap(({ ready, chunkCount }, blob) => {
    const bits = new Uint8Array(ready);
    const all = Array.from({ length: chunkCount }, (_, i) => i);
    return all.filter((i) => ((bits[i >> 3] ?? 0) & (0x80 >> (i & 7))) !== 0).map((i) => `${blob}:${i}`);
  });
}

/** `blob:chunk` of the files at these paths and below them, worked out from the whole tree. */
function chunksBelow({ image }: RafsInstance, paths: readonly string[]): string[] {
  const out = new Set<string>();
  const ref = newChunkRef();
  for (const { ino, path, fileType } of walkTree(image)) {
    const text = percentEncode(path);
    const listed = paths.some((each) => text === each || text.startsWith(`${each}/`));
    if (fileType !== FileType6.regular || !listed) continue;
    for (let position = 0; position < image.chunkCount(ino); position++) {
      image.chunk(ino, position, ref);
      out.add(`${ref.blobIndex}:${ref.chunkIndex}`);
    }
  }
  return sortedChunks(out);
}

function sortedChunks(chunks: Iterable<string>): string[] {
  const number = (text: string): number => Number(text.slice(text.indexOf(':') + 1));
  return [...chunks].sort((a, b) => parseInt(a, 10) - parseInt(b, 10) || number(a) - number(b));
}

/** Files and directories of the golden prefetch lists that exist. Source: command.txt of the cases, standard input. */
const GOLDEN_LIST = [
  '/size',
  '/names/a',
  '/hl/z/orig',
  '/size/t4096',
  '/not/there',
  '/hl',
  '/hl/empty1',
  '/dup/a',
];

for (const name of [
  'odd-v5-prefetch-fs',
  'odd-v5-prefetch-blob',
  'odd-v6-prefetch-fs',
  'odd-v6-prefetch-blob',
]) {
  const skip = skipUnlessGolden('cases', name, 'bootstrap');
  const golden = (): Source => ({
    bootstrap: goldenPath('cases', name, 'bootstrap') ?? '',
    blobDir: join(goldenDir() ?? '', 'cases', name, 'blobs'),
  });

  test(`prefetch by list, golden ${name}: exactly the chunks of the listed files`, { skip }, async (t) => {
    const list = ['/names/a', '/hl', '/not/there', '/size/t4096'];
    const lines: string[] = [];
    const instance = await open(t, golden(), {}, lines);
    instance.startPrefetch(list);
    await instance.prefetchFinished;
    const expected = chunksBelow(instance, list);
    assert.ok(expected.length > 0 && expected.length < chunksBelow(instance, ['']).length);
    assert.deepEqual(readyChunks(instance), expected);
    const { prefetch_data_amount: bytes, prefetch_requests_count: requests } = instance.metrics().blobcache;
    assert.ok(bytes > 0 && requests > 0);
    assert.deepEqual(lines, []);
  });

  test(
    `prefetch by table, golden ${name}: what the builder was told, when the policy is fs`,
    { skip },
    async (t) => {
      const instance = await open(t, golden(), {});
      const table = instance.image.prefetchInos();
      const command = readFileSync(goldenPath('cases', name, 'command.txt') ?? '', 'utf8');
      for (const path of GOLDEN_LIST)
        assert.ok(command.includes(`${path}\\n`), `${path} is in the list of the case`);
      instance.startPrefetch();
      await instance.prefetchFinished;
      const fs = name.endsWith('-fs');
      assert.equal(table.length > 0, fs);
      assert.deepEqual(readyChunks(instance), fs ? chunksBelow(instance, GOLDEN_LIST) : []);
    },
  );

  test(`prefetch of everything, golden ${name}: every chunk of the tree`, { skip }, async (t) => {
    for (const list of [['/'], undefined]) {
      const instance = await open(t, golden(), { prefetch_all: list === undefined });
      instance.startPrefetch(list);
      await instance.prefetchFinished;
      assert.deepEqual(readyChunks(instance), chunksBelow(instance, ['']));
    }
  });
}

function sample(t: TestContext, version: 5 | 6): Source & { chunkCount: number } {
  const made = makeImage(
    tempDir(t),
    ['a', 'b', 'c'].map((name, at) => ({ name, data: sampleData(300_000, at) })),
    { version, compressor: 'zstd' },
  );
  return { ...made, chunkCount: made.chunks.length };
}

for (const version of [5, 6] as const) {
  test(`Prefetcher v${version}: the request alone fetches nothing, and is warned of when the cache has it disabled`, async (t) => {
    const source = sample(t, version);
    const lines: string[] = [];
    const off = { ...instanceConfig({ blobDir: source.blobDir, workDir: tempDir(t) }) };
    assert.ok(off.rafs !== null);
    off.rafs.prefetch = { ...off.rafs.prefetch, enable: true, prefetch_all: true };
    const instance = await RafsInstance.open({
      bootstrap: source.bootstrap,
      id: 'off',
      logger: collectingLogger(lines),
      config: off,
      decodeThreads: 0,
    });
    t.after(() => instance.close());
    instance.startPrefetch(['/a']);
    await instance.prefetchFinished;
    assert.deepEqual(readyChunks(instance), []);
    assert.deepEqual(lines, ['warn prefetch is requested, but cache.prefetch is not enabled']);
  });

  test(`Prefetcher v${version}: starts once`, async (t) => {
    const instance = await open(t, sample(t, version), {});
    instance.startPrefetch(['/a']);
    instance.startPrefetch(['/b']);
    await instance.prefetchFinished;
    instance.startPrefetch(['/c']);
    await instance.prefetchFinished;
    assert.deepEqual(readyChunks(instance), chunksBelow(instance, ['/a']));
  });

  test(`Prefetcher v${version}: a bandwidth limit and one worker still fetch everything that is listed`, async (t) => {
    const instance = await open(t, sample(t, version), {
      bandwidth_limit: 8 << 20,
      threads: 1,
      batch_size: 0,
    });
    instance.startPrefetch(['/a', '/c']);
    await instance.prefetchFinished;
    assert.deepEqual(readyChunks(instance), chunksBelow(instance, ['/a', '/c']));
    assert.equal(instance.metrics().blobcache.prefetch_workers, 1);
  });

  test(`Prefetcher v${version}: closing the instance ends a prefetch that is under way`, async (t) => {
    const source = sample(t, version);
    const instance = await open(t, source, {
      bandwidth_limit: 1,
      threads: 1,
      batch_size: 0,
      prefetch_all: true,
    });
    instance.startPrefetch();
    await instance.close();
    await instance.prefetchFinished;
    assert.ok(readyChunks(instance).length < source.chunkCount);
  });
}
