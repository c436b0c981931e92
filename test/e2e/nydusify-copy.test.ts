// nydusify copy: between layouts, archives and registries; every digest stays, and what is there is not sent again.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { RegistryServer, type RegistryServerOptions } from '../../src/registry/server/server.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';
import {
  BLOB,
  contents,
  converted,
  fatalOf,
  Layout,
  makeSample,
  nydusify,
  readJson,
  rootOf,
  sha256,
  type Descriptor,
  type Ended,
  type Manifest,
} from './nydusify-sample.ts';

const skip = requirePeer('tar');

async function serve(t: TestContext, options: Partial<RegistryServerOptions> = {}): Promise<RegistryServer> {
  const server = await RegistryServer.start({ dir: join(tempDir(t), 'store'), ...options });
  t.after(() => server.close());
  return server;
}

async function copied(work: string, source: string, target: string, more: string[] = []): Promise<Ended> {
  const ends = ['--source', source, '--target', target, '--work-dir', join(work, 'tmp')];
  const result = await nydusify(['copy', ...ends, ...more]);
  assert.equal(result.status, 0, result.stderr);
  assert.equal(existsSync(join(work, 'tmp')), false);
  return result;
}

/** Content of the blobs of a layout, without those that only another image names. */
function blobs(layout: string): Record<string, string> {
  return contents(join(layout, 'blobs'));
}

test(
  'nydusify copy: layout, registry, neighbour, archive and back have the same bytes',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout } = sample;
    const seen: string[] = [];
    const server = await serve(t, {
      intercept: (request) => {
        seen.push(`${request.method} ${request.url}`);
        return false;
      },
    });
    const image = `${server.host}/lib/app:1.0`;
    const first = await copied(work, `file://${layout.dir}`, image, ['--push-chunk-size', '100KB']);
    assert.match(first.stderr, /3 layers copied/);
    assert.ok(seen.filter((line) => line.startsWith('PATCH')).length > 2, 'large layers go in pieces');
    const again = await copied(work, `file://${layout.dir}`, image);
    assert.match(again.stderr, /0 layers copied \(0 B\), 3 there already/);
    seen.length = 0;
    const neighbour = await copied(work, image, `${server.host}/lib/other:2`);
    assert.match(neighbour.stderr, /0 layers copied \(0 B\), 3 mounted from the source/);
    assert.deepEqual(
      seen.filter((line) => /^GET .*\/blobs\//.test(line)).map((line) => line.split('/blobs/')[1]),
      [readJson<Manifest>(layout.dir, sample.manifest).config.digest],
      'only the config is read',
    );
    const archive = join(work, 'out.tar');
    await copied(work, `${server.host}/lib/other:2`, `file://${archive}`);
    writeFileSync(`${archive}.gz`, gzipSync(readFileSync(archive)));
    await copied(work, `file://${archive}.gz`, `file://${join(work, 'back')}/`);
    assert.deepEqual(blobs(join(work, 'back')), blobs(layout.dir));
    assert.equal(rootOf(join(work, 'back')).digest, sample.manifest.digest);
  },
);

/** The sample's image for two platforms, and an attestation beside them. */
function twoPlatforms(dir: string): Descriptor {
  const layout = new Layout(dir);
  const tar = Buffer.alloc(1024);
  const layers = [layout.put(gzipSync(tar), 'application/vnd.oci.image.layer.v1.tar+gzip')];
  const entries = ['amd64', 'arm64'].map((architecture) => ({
    ...layout.image([tar], architecture, layers),
    platform: { os: 'linux', architecture },
  }));
  const attestation = {
    ...layout.image([tar], 'unknown', layers),
    platform: { os: 'unknown', architecture: 'unknown' },
    annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
  };
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const index = layout.json({ schemaVersion: 2, mediaType, manifests: [...entries, attestation] }, mediaType);
  layout.index([index]);
  return index;
}

test('nydusify copy: one platform, all of them, one that is not there', async (t) => {
  const work = tempDir(t);
  const source = join(work, 'source');
  mkdirSync(source);
  const index = twoPlatforms(source);
  const entries = readJson<{ manifests: Descriptor[] }>(source, index).manifests;
  const all = join(work, 'all');
  await copied(work, `file://${source}`, `file://${all}/`, ['--all-platforms']);
  assert.deepEqual(blobs(all), blobs(source));
  assert.equal(rootOf(all).digest, index.digest);
  const arm = join(work, 'arm');
  await copied(work, `file://${source}`, `file://${arm}/`, ['--platform', 'linux/arm64']);
  assert.equal(rootOf(arm).digest, entries[1]?.digest);
  const both = join(work, 'both');
  await copied(work, `file://${source}`, `file://${both}/`, ['--platform', 'linux/arm64,linux/amd64']);
  assert.deepEqual(readJson<{ manifests: Descriptor[] }>(both, rootOf(both)).manifests, entries.slice(0, 2));
  const args = [
    'copy',
    '--source',
    `file://${arm}`,
    '--target',
    `file://${work}/x.tar`,
    '--platform',
    'linux/amd64',
  ];
  assert.match(fatalOf(await nydusify(args)), /: no image for platform linux\/amd64$/);
  assert.equal(existsSync(join(work, 'x.tar')), false);
});

test('nydusify copy: blobs of a backend become layers of the image', { skip }, async (t) => {
  const sample = makeSample(tempDir(t));
  const { work } = sample;
  const whole = join(work, 'whole/');
  await converted(sample.args(whole));
  const { layers, config } = readJson<Manifest>(whole, rootOf(whole));
  // what a conversion with a backend leaves: the bootstrap alone in the image, the blobs elsewhere
  const dir = join(work, 'blobs');
  mkdirSync(dir);
  const data = layers.filter(({ mediaType }) => mediaType === BLOB);
  for (const { digest } of data)
    cpSync(join(whole, 'blobs/sha256', digest.slice(7)), join(dir, digest.slice(7)));
  const bare = join(work, 'bare');
  mkdirSync(bare);
  const layout = new Layout(bare);
  const value = readJson<{ rootfs: { diff_ids: string[] } }>(whole, config);
  const last = layers.at(-1) as Descriptor;
  layout.put(readFileSync(join(whole, 'blobs/sha256', last.digest.slice(7))), last.mediaType);
  const rootfs = { ...value.rootfs, diff_ids: value.rootfs.diff_ids.slice(-1) };
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: layout.json({ ...value, rootfs }, config.mediaType),
    layers: [
      { ...last, annotations: { ...last.annotations, 'containerd.io/snapshot/nydus-blob-ids': '[]' } },
    ],
  };
  layout.index([layout.json(manifest, manifest.mediaType)]);
  const out = join(work, 'out');
  const backend = ['--source-backend-type', 'localfs', '--source-backend-config', JSON.stringify({ dir })];
  await copied(work, `file://${bare}`, `file://${out}/`, backend);
  const result = readJson<Manifest>(out, rootOf(out));
  assert.deepEqual(
    result.layers.map(({ digest }) => digest).sort(),
    layers.map(({ digest }) => digest).sort(),
  );
  assert.deepEqual(result.layers.at(-1), last);
  const ids = readJson<{ rootfs: { diff_ids: string[] } }>(out, result.config).rootfs.diff_ids;
  assert.deepEqual(ids, [...result.layers.slice(0, -1).map(({ digest }) => digest), rootfs.diff_ids[0]]);
  for (const { digest } of data)
    assert.equal(sha256(readFileSync(join(out, 'blobs/sha256', digest.slice(7)))), digest.slice(7));
  const [one] = readdirSync(dir);
  rmSync(join(dir, one ?? ''));
  const args = ['copy', '--source', `file://${bare}`, '--target', `file://${work}/x.tar`, ...backend];
  assert.match(fatalOf(await nydusify(args)), new RegExp(String(one)));
});

test(
  'nydusify copy: what skopeo and umoci read back',
  { skip: requirePeer('umoci') || requirePeer('skopeo') },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const server = await serve(t);
    const image = `${server.host}/lib/app:1.0`;
    await copied(sample.work, `file://${sample.layout.dir}`, image);
    const pulled = join(sample.work, 'pulled');
    const run = async (program: string, args: string[]): Promise<void> => {
      const { spawn } = await import('node:child_process');
      const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
      let log = '';
      child.stderr.on('data', (piece: Buffer) => (log += piece.toString()));
      assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0, log);
    };
    await run('skopeo', [
      '--insecure-policy',
      'copy',
      '--preserve-digests',
      '--src-tls-verify=false',
      `docker://${image}`,
      `oci:${pulled}:1.0`,
    ]);
    assert.equal(rootOf(pulled).digest, sample.manifest.digest);
    const stat = spawnSync('umoci', ['stat', '--image', `${pulled}:1.0`, '--json'], { encoding: 'utf8' });
    assert.equal(stat.status, 0, stat.stderr);
    const { history } = JSON.parse(stat.stdout) as { history: unknown[] };
    assert.equal(history.length > 0, true);
  },
);

test('nydusify copy: mistakes in its flags', async (t) => {
  const work = tempDir(t);
  const source = ['--source', 'example.org/app:1'];
  for (const [args, message] of [
    [['--target', 'x'], 'Required flag "source" not set'],
    [source, '--target is required'],
    [
      [...source, '--target', `file://${work}/no/where.tar`],
      `target archive directory not accessible: ${work}/no`,
    ],
    [
      [...source, '--target', 'x', '--source-backend-type', 'nfs'],
      '--source-backend-type should be one of [oss s3 localfs]',
    ],
    [
      [...source, '--target', 'x', '--source-backend-type', 'oss'],
      "backend configuration is empty, please specify option '--source-backend-config'",
    ],
    [
      [
        ...source,
        '--target',
        'x',
        '--source-backend-type',
        'oss',
        '--source-backend-config',
        '{',
        '--source-backend-config-file',
        'y',
      ],
      '--source-backend-config conflicts with --source-backend-config-file',
    ],
    [
      [
        ...source,
        '--target',
        'x',
        '--source-backend-type',
        'oss',
        '--source-backend-config',
        '{"access_key_secret":x',
      ],
      '--source-backend-config is no JSON',
    ],
  ] as [string[], string][]) {
    assert.equal(fatalOf(await nydusify(['copy', ...args])), message);
  }
});
