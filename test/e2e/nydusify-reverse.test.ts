// nydusify convert --reverse: an image goes to nydus and back; tar, skopeo and umoci find what was in it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync, zstdDecompressSync } from 'node:zlib';
import { RegistryServer } from '../../src/registry/server/server.ts';
import {
  firstReason,
  goldenPath,
  prepareTarInput,
  readManifest,
  requirePeer,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { compareTree, compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';
import {
  converted,
  extractAll,
  fatalOf,
  Layout,
  makeSample,
  nydusify,
  OCI_LAYER,
  OCI_MANIFEST,
  readBlob,
  readJson,
  rootOf,
  sha256,
  type Descriptor,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requirePeer('tar'), requireRoot());
const NAME = 'example.org/app:1.0';

function reverseArgs(work: string, source: string, target: string, more: string[] = []): string[] {
  const ends = ['--source', NAME, '--source-archive', source, '--target', NAME, '--target-archive', target];
  return ['--reverse', ...ends, '--platform', 'linux/amd64', '--work-dir', join(work, 'tmp'), ...more];
}

function run(program: string, args: string[], cwd: string): string {
  const done = spawnSync(program, args, { cwd, encoding: 'utf8' });
  assert.equal(done.status, 0, `${program}: ${done.stderr}`);
  return done.stdout;
}

function extract(tar: Buffer, into: string): void {
  mkdirSync(into, { recursive: true });
  const flags = ['-x', '-p', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-C', into, '-f', '-'];
  const done = spawnSync('tar', flags, { input: tar });
  assert.equal(done.status, 0, String(done.stderr));
}

/** The root has no entry of its own in a layer that comes from an image. */
function differences(want: string, found: string, more: string[] = []): string[] {
  const sizes = directorySizes(walkTree(want));
  const root = ['mtime:/', 'mtime_nsec:/', 'mode:/', 'xattrs:/'];
  return compareTrees(want, found, { ignore: ['ino', 'blocks', 'blksize', ...root, ...sizes, ...more] });
}

for (const version of ['5', '6']) {
  test(
    `nydusify convert --reverse: layers, config and history are back (v${version})`,
    { skip: firstReason(skip, requirePeer('skopeo'), requirePeer('umoci')) },
    async (t) => {
      const sample = makeSample(tempDir(t));
      const { work, layout, trees, tars } = sample;
      await converted(sample.args(join(work, 'nydus/'), ['--fs-version', version]));
      const back = join(work, 'back');
      await converted(reverseArgs(work, join(work, 'nydus'), `${back}/`));
      assert.equal(existsSync(join(work, 'tmp')), false);
      const manifest = readJson<Manifest>(back, rootOf(back));
      assert.equal(rootOf(back).mediaType, OCI_MANIFEST);
      assert.equal(manifest.annotations, undefined);
      const config = readJson<{ rootfs: { diff_ids: string[] } }>(back, manifest.config);
      const before = readJson<{ rootfs: { diff_ids: string[] } }>(
        layout.dir,
        readJson<Manifest>(layout.dir, sample.manifest).config,
      );
      assert.deepEqual({ ...config, rootfs: 0 }, { ...before, rootfs: 0 });
      manifest.layers.forEach((layer, i) => {
        assert.equal(layer.mediaType, `${OCI_LAYER}+gzip`);
        const tar = gunzipSync(readBlob(back, layer));
        const diffId = `sha256:${sha256(tar)}`;
        assert.equal(config.rootfs.diff_ids[i], diffId);
        assert.deepEqual(layer.annotations, { 'containerd.io/uncompressed': diffId });
        extract(tar, join(work, `found-${i}`));
        extract(tars[i] as Buffer, join(work, `want-${i}`));
        assert.deepEqual(differences(join(work, `want-${i}`), join(work, `found-${i}`)), []);
      });
      const seen = JSON.parse(run('skopeo', ['inspect', `oci:${back}:1.0`], work)) as { Layers: string[] };
      assert.deepEqual(
        seen.Layers,
        manifest.layers.map(({ digest }) => digest),
      );
      run('skopeo', ['copy', `oci:${back}:1.0`, `dir:${join(work, 'copied')}`], work);
      run('umoci', ['unpack', '--image', `${back}:1.0`, join(work, 'bundle')], work);
      extractAll(trees, tars, join(work, 'whole'));
      assert.deepEqual(
        differences(join(work, 'whole'), join(work, 'bundle/rootfs'), ['mtime', 'mtime_nsec']),
        [],
      );
      // once more, into one archive with zstd: the same layers
      const archive = join(work, 'back.tar');
      await converted(reverseArgs(work, join(work, 'nydus'), archive, ['--compressor', 'zstd']));
      mkdirSync(join(work, 'opened'));
      run('tar', ['-xf', archive, '-C', join(work, 'opened')], work);
      const second = readJson<Manifest>(join(work, 'opened'), rootOf(join(work, 'opened')));
      const plain = second.layers.map((layer) => zstdDecompressSync(readBlob(join(work, 'opened'), layer)));
      assert.deepEqual(
        plain.map((tar) => `sha256:${sha256(tar)}`),
        config.rootfs.diff_ids,
      );
    },
  );
}

for (const [input, golden] of [
  ['oddtar', 'odd-tar-v6'],
  ['xattrtar', 'xattr-tar-v6'],
] as const) {
  test(
    `nydusify convert --reverse: golden input ${input} survives the way there and back`,
    {
      skip: firstReason(
        skip,
        skipUnlessGolden('input', `${input}.tar.gz`),
        skipUnlessGolden('cases', golden, 'case.json'),
      ),
    },
    async (t) => {
      const work = tempDir(t);
      prepareTarInput(input, join(work, 'in.tar'));
      const tar = readFileSync(join(work, 'in.tar'));
      const layout = new Layout(join(work, 'source'));
      const layer = layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`);
      const name = { 'org.opencontainers.image.ref.name': '1.0' };
      layout.index([{ ...layout.image([tar], 'amd64', [layer]), annotations: name }]);
      const from = ['--source', NAME, '--source-archive', layout.dir, '--platform', 'linux/amd64'];
      const to = ['--target', NAME, '--work-dir', join(work, 'tmp'), '--target-archive'];
      await converted([...from, ...to, join(work, 'nydus/')]);
      await converted(reverseArgs(work, join(work, 'nydus'), join(work, 'back/')));
      const manifest = readJson<Manifest>(join(work, 'back'), rootOf(join(work, 'back')));
      // a tmpfs: other file systems do not hold attributes of 60000 bytes
      const found = mkdtempSync('/dev/shm/nydus-test-');
      t.after(() => rmSync(found, { recursive: true }));
      extract(gunzipSync(readBlob(join(work, 'back'), manifest.layers[0] as Descriptor)), found);
      // what upstream shows of an image of this tar, which is not all that GNU tar reads in it
      const path = join(goldenPath('cases', golden) as string, 'case.json');
      const shown = readManifest((JSON.parse(readFileSync(path, 'utf8')) as { manifest: string }).manifest);
      const stored = shown.map((entry) => ({ ...entry, mtime: entry.mtime === 'mount' ? 0 : entry.mtime }));
      const ignore = [
        'ino',
        'blocks',
        'blksize',
        'nlink',
        'ctime',
        'atime',
        'mtime:/',
        'mode:/',
        'uid:/',
        'gid:/',
      ];
      const more = ['mtime_nsec', 'xattrs:/', ...directorySizes(stored)];
      assert.deepEqual(compareTree(found, stored, { ignore: [...ignore, ...more] }), []);
    },
  );
}

test('nydusify convert --reverse: from a registry into a registry', { skip }, async (t) => {
  const sample = makeSample(tempDir(t));
  const { work } = sample;
  const server = await RegistryServer.start({ dir: join(work, 'store') });
  t.after(() => server.close());
  const [nydus, back] = [`${server.host}/app:nydus`, `${server.host}/app:back`];
  const shared = ['--platform', 'linux/amd64', '--plain-http', '--work-dir', join(work, 'tmp')];
  await converted(['--source', NAME, '--source-archive', sample.layout.dir, '--target', nydus, ...shared]);
  await converted(['--reverse', '--source', nydus, '--target', back, ...shared]);
  const again = join(work, 'again');
  const copied = await nydusify([
    'copy',
    '--source',
    back,
    '--target',
    `file://${again}/`,
    '--platform',
    'linux/amd64',
  ]);
  assert.equal(copied.status, 0, copied.stderr);
  assert.equal(readJson<Manifest>(again, rootOf(again)).layers.length, 3);
  const twice = await nydusify(['convert', '--reverse', '--source', back, '--target', back, ...shared]);
  assert.match(fatalOf(twice), /the source is no nydus image$/);
});
