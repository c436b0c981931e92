// nydusify convert with a build cache, with a chunk dictionary, and into a merged index.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { noise } from '../support/sample-tree.ts';
import { compareTrees } from '../support/tree-manifest.ts';
import {
  BLOB,
  bootstrapOf,
  converted,
  directories,
  extractAll,
  makeSample,
  nydusify,
  fatalOf,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  PREFIX,
  sha256,
  tarOf,
  type Descriptor,
  type Manifest,
  type Sample,
} from './nydusify-sample.ts';
import { blobOf, digestOf, documentOf, pullImage, pushImage, serve } from './registry-images.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

type Event = Record<string, unknown>;

function flags(sample: Sample, host: string, target: string, source = 'lib/app'): string[] {
  const work = ['--work-dir', join(sample.work, 'tmp'), '--platform', 'linux/amd64', '--progress', 'json'];
  return ['--source', `${host}/${source}:1.0`, '--target', `${host}/${target}:1.0`, '--plain-http', ...work];
}

function eventsOf(stdout: string): Event[] {
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Event);
}

function howOf(stdout: string): unknown[] {
  return eventsOf(stdout)
    .filter((event) => event['state'] === 'done')
    .map((event) => event['how']);
}

describe('nydusify convert with other images', { skip }, () => {
  it('--build-cache: what it has is not read or built again, and the image is the same', async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout, manifest: source } = sample;
    const seen: string[] = [];
    const server = await serve(t, {
      intercept: (request) => (seen.push(`${request.method} ${request.url}`), false),
    });
    const { host } = server;
    await pushImage(layout, source, host, 'lib/app', '1.0');
    const cache = ['--build-cache', `${host}/cache:c`];
    const metrics = join(work, 'metrics.json');
    const first = await converted([...flags(sample, host, 'one'), ...cache]);
    assert.deepEqual(howOf(first.stdout), ['built', 'built', 'built']);
    const { layers: sources } = JSON.parse(layout.read(source).toString()) as Manifest;
    const { layers: blobs } = await documentOf<Manifest>(host, 'one', '1.0');
    const index = await documentOf<{ mediaType: string; manifests: Descriptor[] }>(host, 'cache', 'c');
    assert.equal(index.mediaType, OCI_INDEX);
    assert.deepEqual(
      index.manifests.map(({ platform }) => platform),
      [{ os: 'linux', architecture: 'amd64' }],
    );
    const kept = await documentOf<Manifest>(host, 'cache', index.manifests[0]?.digest ?? '');
    assert.equal(kept.config.mediaType, OCI_CONFIG);
    assert.deepEqual(kept.annotations, { [`${PREFIX}cache-version`]: 'v1' });
    assert.deepEqual(
      kept.layers,
      sources.map((layer, i) => ({
        ...(blobs[i] as Descriptor),
        annotations: { [`${PREFIX}blob`]: 'true', [`${PREFIX}source-digest`]: layer.digest },
      })),
    );

    seen.length = 0;
    const again = await converted([...flags(sample, host, 'two'), ...cache, '--output-json', metrics]);
    assert.deepEqual(howOf(again.stdout), ['cached', 'cached', 'cached']);
    assert.equal(await digestOf(host, 'two'), await digestOf(host, 'one'));
    for (const { digest } of sources) assert.equal(seen.includes(`GET /v2/lib/app/blobs/${digest}`), false);
    assert.equal(
      seen.some((line) => line.startsWith('PATCH')),
      false,
    );
    const size = sources.reduce((sum, layer) => sum + layer.size, 0);
    const saved = eventsOf(again.stdout).find((event) => event['event'] === 'saved');
    assert.deepEqual(saved, {
      event: 'saved',
      cachedLayers: 3,
      cachedBytes: size,
      dictionaryChunks: 0,
      dictionaryBytes: 0,
    });
    const numbers = JSON.parse(readFileSync(metrics, 'utf8')) as Record<string, number>;
    assert.deepEqual([numbers['BuildCacheLayers'], numbers['BuildCacheSavedSize']], [3, size]);

    // other options: the records do not fit, the layers are built; new records are first, the oldest are lost
    const other = await converted([
      ...flags(sample, host, 'three'),
      ...cache,
      '--chunk-size=0x10000',
      '--build-cache-max-records=2',
    ]);
    assert.deepEqual(howOf(other.stdout), ['built', 'built', 'built']);
    assert.match(
      other.stderr,
      /is built anew: cached blob .* with chunks of 1048576 bytes, 6 and 65536 are wanted/,
    );
    const cut = await documentOf<{ manifests: Descriptor[] }>(host, 'cache', 'c');
    const cutManifest = await documentOf<Manifest>(host, 'cache', cut.manifests[0]?.digest ?? '');
    const three = await documentOf<Manifest>(host, 'three', '1.0');
    assert.deepEqual(
      cutManifest.layers.map((layer) => layer.digest),
      three.layers.slice(0, 2).map((layer) => layer.digest),
    );
  });

  it('--build-cache-tag, --build-cache-version: the cache is beside the target, of one version', async (t) => {
    const sample = makeSample(tempDir(t));
    const { host } = await serve(t);
    await pushImage(sample.layout, sample.manifest, host, 'lib/app', '1.0');
    const cache = ['--build-cache-tag', 'cache', '--build-cache-version', 'v7'];
    await converted([...flags(sample, host, 'one'), ...cache]);
    const index = await documentOf<{ manifests: Descriptor[] }>(host, 'one', 'cache');
    const kept = await documentOf<Manifest>(host, 'one', index.manifests[0]?.digest ?? '');
    assert.equal(kept.annotations[`${PREFIX}cache-version`], 'v7');
    const v8 = await converted([...flags(sample, host, 'one'), ...cache, '--build-cache-version', 'v8']);
    assert.deepEqual(howOf(v8.stdout), ['built', 'built', 'built']);
  });

  it('--build-cache: a record whose blob is gone, costs nothing but time', async (t) => {
    const sample = makeSample(tempDir(t));
    let gone = '';
    const server = await serve(t, {
      intercept: (request, response) => {
        if (gone === '' || !(request.url ?? '').startsWith(`/v2/cache/blobs/${gone}`)) return false;
        response.writeHead(404, { 'Content-Length': 0 }).end();
        return true;
      },
    });
    const { host } = server;
    await pushImage(sample.layout, sample.manifest, host, 'lib/app', '1.0');
    const cache = ['--build-cache', `${host}/cache:c`];
    await converted([...flags(sample, host, 'one'), ...cache]);
    gone = (await documentOf<Manifest>(host, 'one', '1.0')).layers[1]?.digest ?? '';
    const again = await converted([...flags(sample, host, 'two'), ...cache]);
    assert.deepEqual(
      howOf(again.stdout)
        .map(String)
        .toSorted((a, b) => (a < b ? -1 : 1)),
      ['built', 'cached', 'cached'],
    );
    assert.equal(await digestOf(host, 'two'), await digestOf(host, 'one'));
  });

  it(
    '--chunk-dict: chunks of the dictionary are not stored, its blobs become layers',
    { skip: requireFuse() },
    async (t) => {
      const sample = makeSample(tempDir(t));
      const { work, layout, trees } = sample;
      const { host } = await serve(t);
      await pushImage(layout, sample.manifest, host, 'lib/app', '1.0');
      await converted(flags(sample, host, 'dictionary'));
      // another image: one file that the dictionary has, one that it does not
      const tree = join(work, 'other');
      mkdirSync(tree);
      writeFileSync(join(tree, 'known'), readFileSync(join(trees[0] as string, 'usr/share/big')));
      writeFileSync(join(tree, 'new'), noise('new', 200_000));
      const tar = tarOf(tree);
      const other = layout.image([tar], 'amd64', [layout.put(tar, OCI_LAYER)]);
      await pushImage(layout, other, host, 'lib/other', '1.0');
      const dictionary = await documentOf<Manifest>(host, 'dictionary', '1.0');
      const dict = ['--chunk-dict', `bootstrap:registry:${host}/dictionary:1.0`];
      const metrics = join(work, 'metrics.json');
      const run = await converted([
        ...flags(sample, host, 'small', 'lib/other'),
        ...dict,
        '--output-json',
        metrics,
      ]);
      const saved = eventsOf(run.stdout).find((event) => event['event'] === 'saved');
      assert.deepEqual([saved?.['dictionaryChunks'], saved?.['dictionaryBytes']], [3, 3_000_000]);
      const numbers = JSON.parse(readFileSync(metrics, 'utf8')) as Record<string, number>;
      assert.deepEqual([numbers['ChunkDictChunks'], numbers['ChunkDictSavedSize']], [3, 3_000_000]);
      const pulled = join(work, 'pulled');
      const manifest = await pullImage(host, 'small', '1.0', pulled);
      assert.deepEqual(
        manifest.layers.map((layer) => layer.mediaType),
        [BLOB, BLOB, `${OCI_LAYER}+gzip`],
      );
      assert.deepEqual(manifest.layers[1], dictionary.layers[0]);
      assert.ok((manifest.layers[0]?.size ?? Infinity) < 300_000);
      const expected = join(work, 'expected');
      extractAll([tree], [tar], expected);
      await using daemon = await startDaemon({
        workDir: join(work, 'daemon'),
        bootstrap: bootstrapOf(pulled, manifest, join(work, 'boot')),
        config: { ...localConfig(join(pulled, 'blobs/sha256'), join(work, 'cache')), digest_validate: true },
      });
      const ignore = ['ino', 'blocks', 'nlink', 'mtime:/', 'mtime_nsec:/'];
      ignore.push(...directories(expected).map((path) => `size:${path}`));
      assert.deepEqual(compareTrees(expected, daemon.mountpoint, { ignore }), []);

      // the same from a file: its blobs are nowhere
      const whole = join(work, 'whole');
      const boot = bootstrapOf(whole, await pullImage(host, 'dictionary', '1.0', whole), join(work, 'boot2'));
      const lost = await nydusify([
        'convert',
        ...flags(sample, host, 'lost', 'lib/other'),
        '--chunk-dict',
        `bootstrap:local:${boot}`,
      ]);
      assert.match(fatalOf(lost), /blob [0-9a-f]{64} of the chunk dictionary .* is nowhere to be found/);

      // a dictionary with other chunks does not fit: upstream converts once more without it, and so do we
      await converted([...flags(sample, host, 'wide'), '--chunk-size', '0x200000']);
      const without = await converted([
        ...flags(sample, host, 'plain', 'lib/other'),
        '--chunk-dict',
        `bootstrap:registry:${host}/wide:1.0`,
      ]);
      assert.match(without.stderr, /converting once more, without build cache and chunk dictionary/);
      assert.equal((await documentOf<Manifest>(host, 'plain', '1.0')).layers.length, 2);
    },
  );

  it('--merge-platform: source and nydus images in one index, told apart', async (t) => {
    const sample = makeSample(tempDir(t));
    const { layout, manifest: source } = sample;
    const { host } = await serve(t);
    await pushImage(layout, source, host, 'lib/app', '1.0');
    await converted([...flags(sample, host, 'merged'), '--merge-platform']);
    const index = await documentOf<{
      mediaType: string;
      manifests: (Descriptor & { artifactType?: string })[];
    }>(host, 'merged', '1.0');
    assert.equal(index.mediaType, OCI_INDEX);
    const [plain, nydus] = index.manifests as [Descriptor, Descriptor & { artifactType?: string }];
    const platform = { os: 'linux', architecture: 'amd64' };
    const annotations = { [`${PREFIX}source-digest`]: source.digest };
    assert.deepEqual([plain.platform, plain.annotations], [platform, annotations]);
    assert.deepEqual([nydus.platform, nydus.annotations], [platform, annotations]);
    assert.equal(nydus.artifactType, 'application/vnd.nydus.image.manifest.v1+json');
    const plainManifest = await documentOf<Manifest>(host, 'merged', plain.digest);
    const original = JSON.parse(layout.read(source).toString()) as Manifest;
    assert.equal(plainManifest.mediaType, OCI_MANIFEST);
    assert.deepEqual(plainManifest.annotations, annotations);
    assert.deepEqual(plainManifest.layers.slice(1), original.layers);
    assert.deepEqual(plainManifest.layers[0]?.annotations, { [`${PREFIX}empty-layer`]: 'true' });
    const empty = await blobOf(host, 'merged', plainManifest.layers[0] as Descriptor);
    assert.equal(
      sha256(gunzipSync(empty)),
      '5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef',
    );
    const config = JSON.parse((await blobOf(host, 'merged', plainManifest.config)).toString()) as {
      rootfs: { diff_ids: string[] };
      history: object[];
    };
    assert.deepEqual(config.rootfs.diff_ids, [
      `sha256:${sha256(gunzipSync(empty))}`,
      ...sample.tars.map((tar) => `sha256:${sha256(tar)}`),
    ]);
    assert.deepEqual(config.history[0], { created_by: 'Nydus Converter', comment: 'Nydus Empty Layer' });
    const nydusManifest = await documentOf<Manifest & { artifactType: string }>(host, 'merged', nydus.digest);
    assert.equal(nydusManifest.artifactType, 'application/vnd.nydus.image.manifest.v1+json');
    assert.equal(nydusManifest.config.mediaType, 'application/vnd.nydus.image.config.v1+json');
    assert.equal(nydusManifest.layers.length, 4);
    for (const layer of original.layers)
      assert.equal(sha256(await blobOf(host, 'merged', layer)), layer.digest.slice(7));
  });
});
