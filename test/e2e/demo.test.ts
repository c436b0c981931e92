// `make demo` keeps its promise: it works, shows true numbers, and leaves nothing behind, also when interrupted.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { firstReason, repoRoot, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requireMountNamespace } from '../support/prerequisites.ts';
import { requireProgram } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';
import { mountsBelow } from '../support/temporary.ts';
import { Layout, nydusify, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, sha256, tarOf } from './nydusify-sample.ts';

const skip = firstReason(requireFuse(), requireProgram('nydus-image'), requireProgram('nydusd'));

interface Outcome {
  end: number | NodeJS.Signals | null;
  output: string;
}

/** Run the demo in its own temporary directory. `until` is text after which it gets a SIGINT. */
function demo(dir: string, env: NodeJS.ProcessEnv, until?: string): Promise<Outcome> {
  const child = spawn(process.execPath, [join(repoRoot, 'tools/demo.ts')], {
    env: { ...process.env, TMPDIR: dir, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece: Buffer) => {
      output += piece.toString();
      if (until !== undefined && output.includes(until)) child.kill('SIGINT'); // an impatient user
    });
  }
  return new Promise((resolve) =>
    child.on('close', (code, signal) => resolve({ end: signal ?? code, output })),
  );
}

/** The figure of a row of the table. */
function figure(output: string, label: string): string {
  const line = output.split('\n').find((text) => text.includes(label)) ?? '';
  return /\s{2,}([\d.]+ ?(?:B|kB|MB|%|ms|s)?)\s{2,}/.exec(line.split(label)[1] ?? '')?.[1]?.trim() ?? line;
}

/** A faster link than the demo's own: what is tested here is the same over any. */
const QUICK = { DEMO_DIR: '', IMAGE: '', DEMO_MBIT: '1000', DEMO_RTT: '4' };

/** The two figures of a row that compares: the whole image, with nydus; megabytes or seconds. */
function both(output: string, label: string): number[] {
  const line = output.split('\n').find((text) => text.includes(label)) ?? '';
  const values = [...line.matchAll(/([\d.]+) (B|kB|MB|ms|s)\b/g)];
  const unit: Record<string, number> = { B: 1e-6, kB: 1e-3, ms: 1e-3 };
  return values.map(([, value, name = '']) => Number(value) * (unit[name] ?? 1));
}

test(
  'make demo: starts node over a link both ways, fetches a part of the image, cleans up',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const { end, output } = await demo(dir, QUICK);
    assert.equal(end, 0, output);
    assert.match(output, /node v\d+\.\d+\.\d+ says hello from the update layer/);
    assert.match(output, /motd:\s+second edition/);
    assert.match(output, /deleted:\s+yes/);
    assert.match(output, /data:\s+new\.txt\n/);
    const fetched = Number.parseFloat(figure(output, 'share of the image fetched'));
    assert.ok(fetched > 1 && fetched < 90, `a part of the image is fetched, not ${fetched} %`);
    assert.ok(Number(figure(output, 'digests verified')) > 10, figure(output, 'digests verified'));
    const [whole = 0, lazy = 0] = both(output, 'bytes over the wire');
    assert.ok(whole > 50 && lazy > 1 && lazy < whole, `${whole} MB, ${lazy} MB`);
    assert.equal(both(output, 'time to first output').length, 2);
    assert.match(output, /started again, warm .* 0 B over the wire/);
    assert.deepEqual(mountsBelow(dir), []);
    assert.deepEqual(readdirSync(dir), []);
  },
);

/** A layout with this machine's shell, which greets and goes on for ever. */
function shellImage(dir: string): void {
  const libraries = spawnSync('ldd', ['/bin/sh'], { encoding: 'utf8' }).stdout.match(/\/\S+/g) ?? [];
  const names = ['/bin/sh', ...libraries].map((path) => path.slice(1));
  const tree = join(dir, 'tree');
  for (const name of names) {
    mkdirSync(join(tree, name, '..'), { recursive: true });
    copyFileSync(`/${name}`, join(tree, name));
  }
  mkdirSync(join(dir, 'layout'));
  const layout = new Layout(join(dir, 'layout'));
  const tar = tarOf(tree);
  const config = layout.json(
    {
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: {
        Entrypoint: ['/bin/sh', '-c'],
        Cmd: ['echo "greetings from $PWD, $WHO"; echo x > file; while :; do :; done'],
        Env: ['WHO=nydus'],
        WorkingDir: '/srv',
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(tar)}`] },
    },
    OCI_CONFIG,
  );
  const layers = [layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`)];
  layout.index([layout.json({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }, OCI_MANIFEST)]);
}

test(
  "make demo: IMAGE starts the user's own image, which need not end by itself",
  { skip: firstReason(skip, requireRoot(), requireMountNamespace()) },
  async (t) => {
    const dir = tempDir(t);
    await using server = await RegistryServer.start({ dir: join(dir, 'registry') });
    shellImage(dir);
    const image = `${server.host}/lib/shell:1`;
    const ends = ['--source', `file://${join(dir, 'layout')}`, '--target', image];
    assert.equal((await nydusify(['copy', '--work-dir', join(dir, 'tmp'), ...ends])).status, 0);
    const scratch = join(dir, 'scratch');
    mkdirSync(scratch);
    const { end, output } = await demo(scratch, { ...QUICK, IMAGE: image });
    assert.equal(end, 0, output);
    assert.match(output, /greetings from \/srv, nydus/);
    assert.equal(both(output, 'bytes over the wire').length, 2);
    assert.deepEqual(mountsBelow(dir), []);
    assert.deepEqual(readdirSync(scratch), []);
  },
);

test("make demo: DEMO_DIR serves the user's own tree", { skip }, async (t) => {
  const dir = tempDir(t);
  const tree = join(dir, 'tree');
  mkdirSync(tree);
  for (let at = 0; at < 60; at++) writeFileSync(join(tree, `file-${at}`), noise(`${at}`, 4000 * at));
  const scratch = join(dir, 'scratch');
  mkdirSync(scratch);
  const { end, output } = await demo(scratch, { DEMO_DIR: tree });
  assert.equal(end, 0, output);
  assert.match(output, /reading 50 files from the mount .* equal to the source/);
  assert.equal(figure(output, 'image, as its user sees it'), '7.1 MB');
  assert.deepEqual(readdirSync(scratch), []);
});

for (const moment of ['nydusify convert', 'starting the program from the mount']) {
  test(`make demo: Ctrl-C at "${moment}" unmounts and cleans up`, { skip }, async (t) => {
    const dir = tempDir(t);
    const { end, output } = await demo(dir, QUICK, moment);
    assert.equal(end, 130, output);
    assert.deepEqual(mountsBelow(dir), []);
    assert.deepEqual(readdirSync(dir), []);
  });
}
