// nydusify chunkdict generate: a dictionary of images in a registry, pushed as an image that conversions make use of.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { firstReason, repoRoot, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { noise } from '../support/sample-tree.ts';
import {
  BLOB,
  bootstrapOf,
  converted,
  fatalOf,
  good,
  Layout,
  nydusify,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  PREFIX,
  readBlob,
  readJson,
  rootOf,
  tarOf,
  type Descriptor,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));
const SHARED = noise('shared', 2_000_000);

/** An OCI image of one layer: what all versions share, and something of its own. */
function sourceImage(work: string, name: string): string[] {
  const tree = join(work, `tree-${name}`);
  mkdirSync(tree, { recursive: true });
  writeFileSync(join(tree, 'shared'), SHARED);
  writeFileSync(join(tree, 'own'), noise(name, 50_000));
  const tar = tarOf(tree);
  const layout = new Layout(join(work, `source-${name}`));
  const image = layout.image([tar], 'amd64', [layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`)]);
  layout.index([{ ...image, annotations: { 'org.opencontainers.image.ref.name': '1' } }]);
  return ['--source', 'example.org/app:1', '--source-archive', layout.dir, '--platform', 'linux/amd64'];
}

/** An image of a registry as a layout. */
async function pulled(reference: string, dir: string): Promise<Manifest> {
  await good(['copy', '--source', reference, '--target', `file://${dir}/`, '--platform', 'linux/amd64']);
  return readJson<Manifest>(dir, rootOf(dir));
}

for (const version of ['5', '6']) {
  test(
    `nydusify chunkdict generate: versions of an image become a dictionary (v${version})`,
    { skip },
    async (t) => {
      const work = tempDir(t);
      await using server = await RegistryServer.start({ dir: join(work, 'registry') });
      const [one, two, dict] = [1, 2, 'dict'].map((tag) => `${server.host}/lib/app:${tag}`) as [
        string,
        string,
        string,
      ];
      const tmp = ['--work-dir', join(work, 'tmp'), '--fs-version', version];
      await converted([...sourceImage(work, 'one'), '--target', one, ...tmp]);
      await converted([...sourceImage(work, 'two'), '--target', two, ...tmp]);
      const output = join(work, 'output');
      mkdirSync(output);
      const flags = ['--platform', 'linux/amd64', '--work-dir', output];
      const made = await good([
        'chunkdict',
        'generate',
        '--sources',
        `${one}, ${two}`,
        '--target',
        dict,
        ...flags,
      ]);
      assert.match(made.stderr, /pushed the chunk dictionary as .*:dict: sha256:[0-9a-f]{64}, 1 blobs/);
      const folder = one.replaceAll('/', ':');
      assert.deepEqual(
        readdirSync(output).sort(),
        [
          folder,
          two.replaceAll('/', ':'),
          'chunkdict_bootstrap',
          'database.db',
          'nydus_bootstrap_output.json',
        ].sort(),
      );
      assert.deepEqual(readdirSync(join(output, folder)), ['nydus_bootstrap']);
      const database = new DatabaseSync(join(output, 'database.db'));
      t.after(() => database.close());
      const rows = database
        .prepare('SELECT image_reference AS image, version, count(*) AS chunks FROM chunk GROUP BY 1, 2')
        .all();
      assert.deepEqual(
        rows.map((row) => ({ ...row })),
        [
          { image: 'app', version: '1', chunks: 3 },
          { image: 'app', version: '2', chunks: 3 },
        ],
      );
      // the image: blobs of the sources, and a last layer as upstream writes it
      const first = await pulled(one, join(work, 'first'));
      const manifest = await pulled(dict, join(work, 'dict'));
      assert.equal(manifest.mediaType, OCI_MANIFEST);
      assert.deepEqual(manifest.layers[0], first.layers[0]);
      assert.equal(manifest.layers[0]?.mediaType, BLOB);
      const last = manifest.layers[1] as Descriptor;
      assert.equal(last.mediaType, 'application/vnd.docker.image.rootfs.diff.tar.gzip');
      assert.deepEqual(last.annotations, {
        [`${PREFIX}bootstrap`]: 'true',
        [`${PREFIX}fs-version`]: version,
      });
      const listed = spawnSync('tar', ['-tvf', '-'], {
        input: gunzipSync(readBlob(join(work, 'dict'), last)),
        encoding: 'utf8',
      });
      assert.deepEqual(
        listed.stdout
          .trim()
          .split('\n')
          .map((line) => line.split(/\s+/)[0]),
        ['drwxrwx---', '-rw-rw-rw-'],
      );
      const bootstrap = bootstrapOf(join(work, 'dict'), manifest, join(work, 'boot'));
      assert.deepEqual(readFileSync(bootstrap), readFileSync(join(output, 'chunkdict_bootstrap')));
      // and a conversion stores nothing that it has
      const third = ['--target', `${server.host}/lib/app:3`, '--chunk-dict', `bootstrap:registry:${dict}`];
      const saved = await converted([...sourceImage(work, 'three'), ...third, ...tmp]);
      assert.match(saved.stderr, /chunk dictionary: 2 chunks \(1\.9 MiB\) not stored again/);
    },
  );
}

test(
  'nydusify chunkdict generate: blobs of a backend, another builder, and its own work directory',
  { skip },
  async (t) => {
    const work = tempDir(t);
    await using server = await RegistryServer.start({ dir: join(work, 'registry') });
    const [one, two, dict] = [1, 2, 'dict'].map((tag) => `${server.host}/app:${tag}`) as [
      string,
      string,
      string,
    ];
    const backend = [
      '--backend-type',
      'localfs',
      '--backend-config',
      JSON.stringify({ dir: join(work, 'blobs') }),
    ];
    const tmp = ['--work-dir', join(work, 'tmp')];
    await converted([...sourceImage(work, 'one'), '--target', one, ...tmp, ...backend]);
    await converted([...sourceImage(work, 'two'), '--target', two, ...tmp, ...backend]);
    const builder = join(work, 'builder');
    const own = join(repoRoot, 'src/bin/nydus-image.ts');
    writeFileSync(builder, `#!/bin/sh\necho "$@" >> ${work}/calls\nexec ${process.execPath} ${own} "$@"\n`, {
      mode: 0o755,
    });
    const flags = ['--sources', `${one},${two}`, '--target', dict, '--platform', 'linux/amd64', ...tmp];
    const without = await nydusify(['chunkdict', 'generate', ...flags]);
    assert.match(fatalOf(without), /names blob [0-9a-f]{64}, which no source has/);
    await good(['chunkdict', 'generate', ...flags, ...backend, '--nydus-image', builder]);
    assert.match(
      readFileSync(join(work, 'calls'), 'utf8'),
      /^chunkdict generate --log-level warn --bootstrap \S+\/chunkdict_bootstrap --database sqlite:\/\/\S+\/database\.db --output-json \S+\/nydus_bootstrap_output\.json \S+:app:1\/nydus_bootstrap \S+:app:2\/nydus_bootstrap\n$/,
    );
    assert.equal(existsSync(join(work, 'tmp')), false);
    const { layers } = await pulled(dict, join(work, 'dict'));
    assert.deepEqual(
      layers.map(({ mediaType }) => mediaType === BLOB),
      [true, false],
    );
  },
);

test('nydusify chunkdict generate: --all-platforms takes every image of an index', { skip }, async (t) => {
  const work = tempDir(t);
  await using server = await RegistryServer.start({ dir: join(work, 'registry') });
  const layout = new Layout(join(work, 'source'));
  const entries = ['amd64', 'arm64'].map((architecture) => {
    const tree = join(work, architecture);
    mkdirSync(tree);
    writeFileSync(join(tree, 'shared'), SHARED);
    writeFileSync(join(tree, 'own'), noise(architecture, 50_000));
    const tar = tarOf(tree);
    const image = layout.image([tar], architecture, [layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`)]);
    return { ...image, platform: { os: 'linux', architecture } };
  });
  const root = layout.json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries }, OCI_INDEX);
  layout.index([{ ...root, annotations: { 'org.opencontainers.image.ref.name': '1' } }]);
  const [one, dict] = [`${server.host}/lib/app:1`, `${server.host}/lib/app:dict`];
  const tmp = ['--work-dir', join(work, 'tmp'), '--all-platforms'];
  const source = ['--source', 'example.org/app:1', '--source-archive', layout.dir];
  await converted([...source, '--target', one, ...tmp]);
  const output = join(work, 'output');
  mkdirSync(output);
  const flags = ['--sources', one, '--target', dict, '--work-dir', output];
  await good(['chunkdict', 'generate', ...flags, '--all-platforms']);
  const name = `${server.host}:lib:app`;
  assert.deepEqual(
    readdirSync(output)
      .filter((entry) => entry.startsWith(name))
      .sort(),
    [`${name}-linux-amd64:1`, `${name}-linux-arm64:1`],
  );
  const database = new DatabaseSync(join(output, 'database.db'));
  t.after(() => database.close());
  const rows = database
    .prepare(
      'SELECT image_reference AS image, version, count(*) AS chunks FROM chunk GROUP BY 1, 2 ORDER BY 1',
    )
    .all();
  assert.deepEqual(
    rows.map((row) => ({ ...row })),
    [
      { image: 'app-linux-amd64', version: '1', chunks: 3 },
      { image: 'app-linux-arm64', version: '1', chunks: 3 },
    ],
  );
  const { layers } = await pulled(dict, join(work, 'dict'));
  assert.deepEqual(
    layers.map(({ mediaType }) => mediaType === BLOB),
    [true, false],
  );
  // one platform alone shares with nobody
  const alone = await good(['chunkdict', 'generate', ...flags, '--platform', 'linux/arm64']);
  assert.match(alone.stderr, /pushed the chunk dictionary/);
});

test('nydusify chunkdict generate: mistakes', async (t) => {
  const work = tempDir(t);
  await using server = await RegistryServer.start({ dir: join(work, 'registry') });
  const source = `${server.host}/plain:1`;
  const [, , , dir = ''] = sourceImage(work, 'plain');
  await good(['copy', '--source', `file://${dir}`, '--target', source]);
  const tmp = ['--platform', 'linux/amd64', '--work-dir', join(work, 'tmp')];
  const generate = async (args: string[]): Promise<string> =>
    fatalOf(await nydusify(['chunkdict', 'generate', ...args, ...tmp]));
  assert.equal(await generate([]), 'Required flag "sources" not set');
  assert.equal(await generate(['--sources', ' , ']), '--sources names no image');
  assert.equal(await generate(['--sources', source]), `${source} is no nydus image for linux/amd64`);
  assert.equal(
    await generate(['--sources', source, '--backend-type', 'ftp']),
    '--backend-type should be one of [oss s3 localfs]',
  );
  assert.equal(fatalOf(await nydusify(['chunkdict', 'make'])), 'unknown command "make"');
  const help = await nydusify(['chunkdict', '--help']);
  assert.match(help.stdout, /generate\s+Make a chunk dictionary/);
  assert.equal(existsSync(join(work, 'tmp')), false);
});
