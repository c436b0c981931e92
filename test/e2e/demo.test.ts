// `make demo` keeps its promise: it works, shows true numbers, and leaves nothing behind, also when interrupted.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { firstReason, repoRoot, requireFuse, tempDir } from '../support/golden.ts';
import { requireProgram } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';
import { mountsBelow } from '../support/temporary.ts';

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

test('make demo: runs node from the mount, fetches a part of the image, cleans up', { skip }, async (t) => {
  const dir = tempDir(t);
  const { end, output } = await demo(dir, { DEMO_DIR: '' });
  assert.equal(end, 0, output);
  assert.match(output, /node v\d+\.\d+\.\d+ says hello from the update layer/);
  assert.match(output, /motd:\s+second edition/);
  assert.match(output, /deleted:\s+yes/);
  assert.match(output, /data:\s+new\.txt\n/);
  const fetched = Number.parseFloat(figure(output, 'share of the image fetched'));
  assert.ok(fetched > 1 && fetched < 90, `a part of the image is fetched, not ${fetched} %`);
  assert.ok(Number(figure(output, 'digests verified')) > 10, figure(output, 'digests verified'));
  assert.ok(
    Number(figure(output, 'chunks deduplicated')) > 100,
    'the node binary of the update is in the dictionary',
  );
  assert.deepEqual(mountsBelow(dir), []);
  assert.deepEqual(readdirSync(dir), []);
});

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

for (const moment of ['layer 2 of 3', 'running node from the mount']) {
  test(`make demo: Ctrl-C at "${moment}" unmounts and cleans up`, { skip }, async (t) => {
    const dir = tempDir(t);
    const { end, output } = await demo(dir, { DEMO_DIR: '' }, moment);
    assert.equal(end, 130, output);
    assert.deepEqual(mountsBelow(dir), []);
    assert.deepEqual(readdirSync(dir), []);
  });
}
