import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import { openImage } from '../format/detect.ts';
import { sampleTar, type SampleMember } from '../format/tar/archive-samples.ts';
import type { TreeBlob } from '../tree/node.ts';
import { sampleNode } from '../tree/tree-samples.ts';
import { createImage } from './create.ts';
import { loadImage } from './load-image.ts';
import { mergeImages, pruneBlobs } from './merge.ts';
import type { MergeOptions } from './options.ts';
import { optionsOf, quietContext } from './testing/golden-command.ts';

/** Build a layer; returns the path of its bootstrap. */
async function layer(
  work: string,
  name: string,
  members: SampleMember[],
  version: 5 | 6,
  compressor: CompressorName = 'none',
): Promise<string> {
  const tar = join(work, `${name}.tar`);
  mkdirSync(join(work, 'blobs'), { recursive: true });
  writeFileSync(tar, sampleTar(members));
  const words =
    `--type tar-rafs --fs-version ${version} --compressor ${compressor} --bootstrap ${name}.boot --blob-dir blobs x`.split(
      ' ',
    );
  const result = await createImage(optionsOf(words, undefined, { work, input: () => tar }), quietContext());
  return result.bootstrap;
}

function merge(
  options: Partial<MergeOptions> & Pick<MergeOptions, 'sources'>,
): ReturnType<typeof mergeImages> {
  return mergeImages(
    {
      bootstrap: undefined,
      blobDir: undefined,
      parentBootstrap: undefined,
      chunkDict: undefined,
      prefetchPolicy: 'none',
      prefetchPatterns: [],
      blobDigests: undefined,
      originalBlobIds: undefined,
      blobSizes: undefined,
      blobTocDigests: undefined,
      blobTocSizes: undefined,
      trustIds: false,
      ...options,
    },
    quietContext(),
  );
}

const data = (text: string): Buffer => Buffer.from(text);
const twoLayers = async (
  t: TestContext,
  version: 5 | 6,
  upper: CompressorName = 'none',
): Promise<{ work: string; sources: string[] }> => {
  const work = tempDir(t);
  const big = Buffer.alloc(5000, 'compressible');
  const lower = await layer(
    work,
    'lower',
    [
      { name: 'a', data: data('lower') },
      { name: 'z', data: data('zz') },
    ],
    version,
  );
  return {
    work,
    sources: [
      lower,
      await layer(work, 'upper', [{ name: 'a', data: big }, { name: '.wh.z' }], version, upper),
    ],
  };
};

test('mergeImages: a blob that is fully hidden disappears', async (t) => {
  const { work, sources } = await twoLayers(t, 6);
  const result = await merge({ sources, blobDir: work, originalBlobIds: ['low', 'up'] });
  assert.deepEqual(result.blobs, ['up']);
  const bytes = readFileSync(result.bootstrap);
  assert.equal(basename(result.bootstrap), createHash('sha256').update(bytes).digest('hex'));
  assert.deepEqual(
    loadImage(openImage(bytes), 0).root.children?.map(({ name }) => name.toString()),
    ['a'],
  );
});

test('mergeImages: sources that are still to come give the same image, one that never comes its error', async (t) => {
  const { work, sources } = await twoLayers(t, 6);
  await merge({ sources, bootstrap: join(work, 'at-once') });
  let give: ((path: string) => void) | undefined;
  const later = new Promise<string>((resolve) => (give = resolve));
  const merging = merge({ sources: [sources[0] as string, later], bootstrap: join(work, 'later') });
  await new Promise((resolve) => setTimeout(resolve, 20));
  give?.(sources[1] as string);
  await merging;
  assert.deepEqual(readFileSync(join(work, 'later')), readFileSync(join(work, 'at-once')));
  const failed = Promise.reject<string>(new Error('the layer broke'));
  failed.catch(() => {});
  const lost = merge({ sources: [sources[0] as string, failed], bootstrap: join(work, 'lost') });
  await assert.rejects(lost, { message: 'the layer broke' });
});

test('mergeImages: ids come from the file name, the lists, or the bootstrap when it is trusted', async (t) => {
  const { work, sources } = await twoLayers(t, 6);
  const upper = [sources[1] as string];
  const inside = openImage(readFileSync(upper[0] as string)).blobs[0]?.id as string;
  const digest = 'cd'.repeat(32);
  const ids = async (options: Partial<MergeOptions>): Promise<string[]> =>
    (await merge({ sources: upper, blobDir: work, ...options })).blobs;
  assert.deepEqual(await ids({}), ['upper']);
  assert.deepEqual(await ids({ originalBlobIds: ['given'] }), ['given']);
  assert.deepEqual(await ids({ originalBlobIds: ['given'], blobDigests: [digest] }), [digest]);
  assert.deepEqual(await ids({ trustIds: true }), [inside]);
});

test('mergeImages: sizes and TOC fields of the lists are stored', async (t) => {
  const { work, sources } = await twoLayers(t, 6);
  const result = await merge({
    sources: [sources[1] as string],
    bootstrap: join(work, 'out'),
    blobSizes: [12345],
    blobTocDigests: ['ef'.repeat(32)],
    blobTocSizes: [1024],
  });
  const [blob] = openImage(readFileSync(result.bootstrap)).blobs;
  assert.deepEqual(
    [blob?.compressedSize, blob?.tocSize, Buffer.from(blob?.tocDigest ?? []).toString('hex')],
    [12345, 1024, 'ef'.repeat(32)],
  );
});

test('mergeImages: v5 layers with different compressors are refused, v6 ones are not', async (t) => {
  const five = await twoLayers(t, 5, 'zstd');
  await assert.rejects(merge({ sources: five.sources, bootstrap: join(five.work, 'out') }), {
    message: 'Inconsistent RAFS Filesystem: RAFS v5 can not support different compressors, none vs zstd',
    exitCode: 2,
  });
  assert.ok(!readdirSync(five.work).includes('out'));
  const six = await twoLayers(t, 6, 'zstd');
  const result = await merge({ sources: six.sources, bootstrap: join(six.work, 'out') });
  assert.deepEqual(
    [result.compressor, openImage(readFileSync(result.bootstrap)).super.compressor],
    ['none', 'zstd'],
  );
});

test('mergeImages: hard links of one layer stay together, equal numbers of two layers do not', async (t) => {
  const work = tempDir(t);
  const members = (name: string): SampleMember[] => [
    { name: `${name}1`, data: data(name) },
    { name: `${name}2`, type: 0x31, link: `${name}1` },
  ];
  const sources = [await layer(work, 'a', members('a'), 6), await layer(work, 'b', members('b'), 6)];
  const result = await merge({ sources, bootstrap: join(work, 'out') });
  const [a1, a2, b1, b2] = loadImage(openImage(readFileSync(result.bootstrap)), 0).root.children ?? [];
  assert.ok(
    a1?.sourceIno === a2?.sourceIno && b1?.sourceIno === b2?.sourceIno && a1?.sourceIno !== b1?.sourceIno,
  );
});

test('pruneBlobs: order of first use in W-order, unused rows dropped', () => {
  const file = (name: string, ...blobs: number[]): ReturnType<typeof sampleNode> =>
    sampleNode(name, 0o100644, {
      chunks: blobs.map((blobIndex) => ({
        digest: Buffer.alloc(32),
        blobIndex,
        flags: 0,
        compressedSize: 1,
        uncompressedSize: 1,
        compressedOffset: 0,
        uncompressedOffset: 0,
        fileOffset: 0,
        index: 0,
        crc32: 0,
      })),
    });
  const dir = sampleNode('d', 0o040755, { children: [file('x', 0)] });
  const root = sampleNode('', 0o040755, { children: [dir, file('e', 3, 2), file('f', 2)] });
  const rows = ['zero', 'one', 'two', 'three'].map((id) => ({ id }) as TreeBlob);
  assert.deepEqual(
    pruneBlobs(root, rows).map(({ id }) => id),
    ['three', 'two', 'zero'],
  );
  assert.deepEqual(
    root.children?.map(({ chunks }) => chunks.map(({ blobIndex }) => blobIndex)),
    [[], [0, 1], [1]],
  );
});
