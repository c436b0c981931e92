// What a first-time user is told: full and read-only disks, images that are too old.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { firstReason, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { fatalOf, Layout, makeSample, nydusify } from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

/** A small file system of its own; it goes with the test's directory. */
function disk(at: string, options: string): string {
  mkdirSync(at);
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', at]);
  return at;
}

test('nydusify convert: a disk that is full is named, with what to do', { skip }, async (t) => {
  const { work, args } = makeSample(tempDir(t));
  const full = disk(join(work, 'full'), 'size=100k');
  const target = await nydusify(['convert', ...args(join(full, 'out/'))]);
  assert.match(fatalOf(target), new RegExp(`cannot write to ${full}/out/: its disk is full`));
  assert.match(
    target.stderr,
    /hint="make room, or choose another place with --target-archive or --work-dir"/,
  );
  const backend = ['--backend-type', 'localfs', '--backend-config', JSON.stringify({ dir: `${full}/blobs` })];
  const blobs = await nydusify(['convert', ...args(join(work, 'out/'), backend)]);
  assert.match(fatalOf(blobs), new RegExp(`cannot write to ${full}/blobs: its disk is full`));
  assert.deepEqual(
    readdirSync(full).filter((name) => name !== 'blobs'),
    [],
  );
});

test('nydusify convert: a place that must not be written is named', { skip }, async (t) => {
  const { work, args } = makeSample(tempDir(t));
  const fixed = disk(join(work, 'fixed'), 'ro');
  const target = await nydusify(['convert', ...args(join(fixed, 'out/'))]);
  assert.match(fatalOf(target), new RegExp(`cannot write ${fixed}.*Read-only file system`));
  assert.match(target.stderr, /hint="choose another place with --target-archive/);
});

test('nydusify convert: an image of schema 1 is refused with the reason', { skip }, async (t) => {
  const work = tempDir(t);
  const layout = new Layout(join(work, 'old'));
  const old = { schemaVersion: 1, name: 'app', tag: '1', architecture: 'amd64', fsLayers: [] };
  const mediaType = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
  layout.index([layout.json(old, mediaType)]);
  const source = ['--source', 'app:1', '--source-archive', layout.dir, '--target', 'app:n'];
  const result = await nydusify(['convert', ...source, '--target-archive', join(work, 'out/')]);
  assert.match(fatalOf(result), /media type application\/vnd\.docker\.distribution\.manifest\.v1\+prettyjws/);
  assert.match(result.stderr, /hint="images of Docker before 1\.10 must be pushed anew"/);
});
