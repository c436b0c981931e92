// The whole system against the kernel: layers are built and merged, served through nydusd until the cache is complete, and then
// the cache files themselves are mounted by the kernel's EROFS. Both views must be the tree that went in.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, tempDir } from '../support/golden.ts';
import { mountErofs, requireErofs } from '../support/kernel-erofs.ts';
import { nydusImage, requireProgram } from '../support/programs.ts';
import { makeSampleTree } from '../support/sample-tree.ts';
import { compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';

const skip = firstReason(
  requireErofs(),
  requireFuse(),
  requireProgram('nydus-image'),
  requireProgram('nydusd'),
);

/** Numbers that belong to a file system, and what the root of an image from a directory or over FUSE does not carry. */
const OWN = ['ino', 'blocks', 'blksize', 'mtime:/', 'mtime_nsec:/', 'mode:/'];

for (const compressor of ['none', 'lz4_block', 'zstd']) {
  test(
    `nydusd, kernel EROFS: one image (${compressor}) served until the cache is complete, then mounted from it`,
    { skip },
    async (t) => {
      const dir = tempDir(t);
      const source = join(dir, 'source');
      mkdirSync(source);
      makeSampleTree(source, { root: true });
      const ignore = [...OWN, ...directorySizes(walkTree(source))];
      const [blobs, cache] = [join(dir, 'blobs'), join(dir, 'cache')];
      const [boot, json] = [join(dir, 'boot'), join(dir, 'json')];
      mkdirSync(blobs);
      const target = ['--blob-dir', blobs, '--bootstrap', boot, '--output-json', json];
      nydusImage(['create', '--compressor', compressor, ...target, source]);
      const { blobs: ids } = JSON.parse(readFileSync(json, 'utf8')) as { blobs: string[] };
      {
        const config = localConfig(blobs, cache);
        await using daemon = await startDaemon({ workDir: join(dir, 'work'), bootstrap: boot, config });
        assert.deepEqual(compareTrees(source, daemon.mountpoint, { ignore }), []);
        assert.equal(await daemon.stop(), 0, daemon.log);
      }
      const mnt = join(dir, 'mnt');
      mkdirSync(mnt);
      const devices = ids.map((id) => join(cache, `${id}.blob.data`));
      mountErofs(boot, devices, mnt);
      assert.deepEqual(compareTrees(source, mnt, { ignore }), []);
    },
  );
}

test(
  'nydusd: layers with mixed compressors, merged, read as the tree they came from',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const source = join(dir, 'source');
    mkdirSync(source);
    makeSampleTree(source, { root: true });
    const blobs = join(dir, 'blobs');
    mkdirSync(blobs);
    // each layer holds some of the folders; the last one holds the rest and the hard links across folders
    const layers = [['./many'], ['./deep', './modes'], ['.']];
    const boots = layers.map((folders, at) => {
      const tar = join(dir, `layer${at}.tar`);
      const flags = ['--format=pax', '--xattrs', '--xattrs-include=*', '--numeric-owner', '--sort=name'];
      const packed = spawnSync('tar', ['-C', source, ...flags, '-cf', tar, ...folders], { encoding: 'utf8' });
      assert.equal(packed.status, 0, packed.stderr);
      const [boot, json] = [join(dir, `${at}.boot`), join(dir, `${at}.json`)];
      const compressor = ['none', 'lz4_block', 'zstd'][at] ?? 'none';
      const target = ['--blob-dir', blobs, '--bootstrap', boot, '--output-json', json];
      nydusImage(['create', '--type', 'tar-rafs', '--compressor', compressor, ...target, tar]);
      const id = (JSON.parse(readFileSync(json, 'utf8')) as { blobs: string[] }).blobs.at(-1) ?? '';
      const named = join(dir, `${id}.boot`);
      renameSync(boot, named);
      return named;
    });
    const merged = join(dir, 'merged.boot');
    nydusImage(['merge', '--bootstrap', merged, ...boots]);
    const config = localConfig(blobs, join(dir, 'cache'));
    await using daemon = await startDaemon({ workDir: join(dir, 'work'), bootstrap: merged, config });
    const ignore = [...OWN, 'mtime', 'mtime_nsec', ...directorySizes(walkTree(source))];
    assert.deepEqual(compareTrees(source, daemon.mountpoint, { ignore }), []);
  },
);
