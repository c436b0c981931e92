// Our v6 images in front of two judges that share no code with us: the kernel's EROFS and erofs-utils.
// The device is the `.blob.data` file of --blob-cache-dir: the uncompressed address space of the blob.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimes } from '../support/file-attributes.ts';
import {
  firstReason,
  percentEncode,
  prepareDirInput,
  readManifest,
  requirePeer,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { mountErofs, requireErofs } from '../support/kernel-erofs.ts';
import { nydusImage, requireProgram } from '../support/programs.ts';
import { makeSampleTree } from '../support/sample-tree.ts';
import { compareTree, compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';

/** What a kernel and the tree that was built may show differently: numbers of the file system itself. */
const OWN_NUMBERS = ['ino', 'blocks', 'blksize'];

/** The root of an image made from a directory has no time of its own: v6 stores 0, as upstream does. */
const ROOT_TIME = ['mtime:/', 'mtime_nsec:/'];

/** Devices of an image in the order of its blob table, which is how the kernel counts them. */
function devicesOf(cacheDir: string, result: string): string[] {
  const { blobs } = JSON.parse(readFileSync(result, 'utf8')) as { blobs: string[] };
  return blobs.map((id) => join(cacheDir, `${id}.blob.data`));
}

interface Built {
  bootstrap: string;
  devices: string[];
}

/** Build a tree or a tar into `dir`. */
function build(dir: string, source: string, type: string, ...more: string[]): Built {
  const cache = join(dir, 'cache');
  mkdirSync(cache, { recursive: true });
  const bootstrap = join(dir, 'bootstrap');
  const result = join(dir, 'result.json');
  const args = [
    'create',
    '--type',
    type,
    '--fs-version',
    '6',
    '--blob-cache-dir',
    cache,
    '--bootstrap',
    bootstrap,
  ];
  nydusImage([...args, '--output-json', result, ...more, source]);
  return { bootstrap, devices: devicesOf(cache, result) };
}

const noBuilder = firstReason(requireErofs(), requireProgram('nydus-image'));

for (const chunkSize of ['0x1000', '0x10000', '0x100000']) {
  test(
    `kernel EROFS: a directory built with chunks of ${chunkSize} is seen byte for byte`,
    { skip: noBuilder },
    (t) => {
      const dir = tempDir(t);
      const source = join(dir, 'source');
      mkdirSync(source);
      makeSampleTree(source, { root: true });
      const image = build(dir, source, 'dir-rafs', '--chunk-size', chunkSize);
      const target = join(dir, 'mnt');
      mkdirSync(target);
      mountErofs(image.bootstrap, image.devices, target);
      const ignore = [...OWN_NUMBERS, ...ROOT_TIME, ...directorySizes(walkTree(source))];
      assert.deepEqual(compareTrees(source, target, { ignore }), []);
    },
  );
}

test('kernel EROFS: a tar is seen as GNU tar unpacks it', { skip: noBuilder }, (t) => {
  const dir = tempDir(t);
  const source = join(dir, 'source');
  mkdirSync(source);
  makeSampleTree(source, { root: true });
  const tar = join(dir, 'layer.tar');
  const flags = ['--format=pax', '--xattrs', '--xattrs-include=*', '--numeric-owner', '--sort=name'];
  const packed = spawnSync('tar', ['-C', source, ...flags, '-cf', tar, '.'], { encoding: 'utf8' });
  assert.equal(packed.status, 0, packed.stderr);
  const image = build(dir, tar, 'tar-rafs');
  const target = join(dir, 'mnt');
  mkdirSync(target);
  mountErofs(image.bootstrap, image.devices, target);
  const ignore = [...OWN_NUMBERS, ...ROOT_TIME, ...directorySizes(walkTree(source))];
  // pax times of the comparison are those of the source: tar keeps nanoseconds in its records, RAFS takes them or drops them
  assert.deepEqual(compareTrees(source, target, { ignore: [...ignore, 'mtime_nsec', 'mtime'] }), []);
});

for (const name of ['tiny', 'odd', 'xattr', 'nodata', 'emptyroot']) {
  const skip = firstReason(noBuilder, skipUnlessGolden('input', `${name}.tar.gz`));
  test(`kernel EROFS: golden input ${name} is seen as upstream's manifest says`, { skip }, (t) => {
    const dir = tempDir(t);
    const source = join(dir, 'source');
    prepareDirInput(name, source);
    const small = name === 'odd' ? ['--chunk-size', '0x10000'] : [];
    const image = build(dir, source, 'dir-rafs', ...small);
    const target = join(dir, 'mnt');
    mkdirSync(target);
    mountErofs(image.bootstrap, image.devices, target);
    const seen = readManifest(`manifests/${MANIFESTS[name]}.jsonl`);
    // where FUSE shows the time of the mount the stored seconds are 0, and the kernel shows what is stored
    const timeless = seen.filter((entry) => entry.mtime === 'mount');
    const manifest = seen.map((entry) => ({ ...entry, mtime: entry.mtime === 'mount' ? 0 : entry.mtime }));
    // the kernel shows the stored permissions of the root, FUSE forces 0755 (golden/README section 2)
    const ignore = ['blocks', 'blksize', 'ctime', 'atime', 'mode:/'];
    ignore.push(...timeless.map((entry) => `mtime_nsec:${percentEncode(entry.path)}`));
    assert.deepEqual(compareTree(target, manifest, { ignore }), []);
  });
}

/** Manifests of `<input>-v6` cases. */
const MANIFESTS: Record<string, string> = {
  tiny: 'tiny-v6-711f5ef29c',
  odd: 'odd-v6-3f7dedae5c',
  xattr: 'xattr-v6-90911f799e',
  nodata: 'nodata-v6-e6d3f0b1f8',
  emptyroot: 'emptyroot-v6-8fa221f422',
};

test('kernel EROFS: three merged layers are seen as the layers stacked by hand', { skip: noBuilder }, (t) => {
  const dir = tempDir(t);
  const expected = join(dir, 'expected');
  const cache = join(dir, 'cache');
  mkdirSync(expected);
  mkdirSync(cache);
  const layers = [
    { 'etc/a': 'a1', 'etc/b': 'b1', 'data/x': 'x1', 'data/y': 'y1', 'bin/tool': 't1'.repeat(50_000) },
    { 'etc/.wh.b': '', 'etc/c': 'c2', 'data/.wh..wh..opq': '', 'data/z': 'z2' },
    { 'bin/.wh.tool': '', 'bin/other': 'o3', 'etc/a': 'a3 replaces' },
  ];
  const bootstraps: string[] = [];
  layers.forEach((files, at) => {
    const layer = join(dir, `layer${at}`);
    for (const [path, data] of Object.entries(files)) {
      mkdirSync(join(layer, path, '..'), { recursive: true });
      writeTimed(join(layer, path), data);
    }
    for (const name of readdirSync(layer)) timed(join(layer, name));
    timed(layer);
    const tar = join(dir, `layer${at}.tar`);
    assert.equal(
      spawnSync('tar', ['-C', layer, '--numeric-owner', '--sort=name', '-cf', tar, '.']).status,
      0,
    );
    const boot = join(dir, `layer${at}.boot`);
    const result = join(dir, `layer${at}.json`);
    const args = ['create', '--type', 'tar-rafs', '--blob-cache-dir', cache, '--bootstrap', boot];
    nydusImage([...args, '--output-json', result, tar]);
    bootstraps.push(boot);
  });
  const stack: Record<string, string> = {
    'etc/a': 'a3 replaces',
    'etc/c': 'c2',
    'data/z': 'z2',
    'bin/other': 'o3',
  };
  for (const [path, data] of Object.entries(stack)) {
    mkdirSync(join(expected, path, '..'), { recursive: true });
    writeTimed(join(expected, path), data);
  }
  for (const name of readdirSync(expected)) timed(join(expected, name));
  timed(expected);

  const merged = join(dir, 'merged.boot');
  const result = join(dir, 'merged.json');
  const ids = bootstraps.map((_, at) => blobOf(join(dir, `layer${at}.json`)));
  nydusImage([
    'merge',
    '--bootstrap',
    merged,
    '--output-json',
    result,
    '--original-blob-ids',
    ids.join(','),
    ...bootstraps,
  ]);
  const devices = devicesOf(cache, result);
  assert.ok(devices.length >= 2, 'the layers that still have content are separate devices');
  const target = join(dir, 'mnt');
  mkdirSync(target);
  mountErofs(merged, devices, target);
  const ignore = [...OWN_NUMBERS, ...directorySizes(walkTree(expected)), 'mtime_nsec'];
  assert.deepEqual(compareTrees(expected, target, { ignore }), []);
});

function blobOf(result: string): string {
  return (JSON.parse(readFileSync(result, 'utf8')) as { blobs: string[] }).blobs[0] ?? '';
}

function timed(path: string): void {
  setTimes(Buffer.from(path), 1_600_000_000);
}

function writeTimed(path: string, data: string): void {
  writeFileSync(path, data);
  timed(path);
}

const noUtils = firstReason(requireRoot(), requireProgram('nydus-image'), requirePeer('fsck.erofs'));

test('fsck.erofs, dump.erofs: accept an image and see its numbers', { skip: noUtils }, (t) => {
  const dir = tempDir(t);
  const source = join(dir, 'source');
  mkdirSync(source);
  makeSampleTree(source, { root: true });
  const image = build(dir, source, 'dir-rafs');
  const devices = image.devices.map((device) => `--device=${device}`);
  const fsck = spawnSync('fsck.erofs', [...devices, '--extract', image.bootstrap], { encoding: 'utf8' });
  assert.equal(fsck.status, 0, fsck.stderr + fsck.stdout);
  const dump = spawnSync('dump.erofs', [...devices, '-s', image.bootstrap], { encoding: 'utf8' });
  assert.equal(dump.status, 0, dump.stderr);
  const field = (name: string): string =>
    new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(dump.stdout)?.[1] ?? dump.stdout;
  assert.equal(field('Filesystem magic number'), '0xE0F5E1E2');
  // RAFS counts names: upstream writes the same number, and a hard link counts again
  assert.equal(field('Filesystem inode count'), String(walkTree(source).length));
});
