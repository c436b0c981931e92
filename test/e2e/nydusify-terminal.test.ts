// nydusify convert on a terminal: a bar for each layer, and a terminal that is left as it was.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { firstReason, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { command, makeSample, readJson, rootOf, type Manifest } from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'), requirePeer('script'));

test('nydusify convert: draws a bar for each layer on a terminal, which ends full', { skip }, (t) => {
  const { work, args, layout, manifest } = makeSample(tempDir(t));
  const target = join(work, 'target/');
  const words = [...command(), 'convert', ...args(target)];
  const line = words.map((word) => `'${word}'`).join(' ');
  const { status, stdout } = spawnSync('script', ['-qec', `stty cols 120; ${line}`, '/dev/null'], {
    encoding: 'utf8',
    input: '',
    env: { ...process.env, TERM: 'xterm' },
  });
  assert.equal(status, 0, stdout);
  const { layers } = JSON.parse(layout.read(manifest).toString()) as Manifest;
  for (const { digest } of layers) {
    const states = stdout
      .replaceAll('\x1b', '\u241b')
      .split(/\r|\n|\u241b\[[0-9;]*[A-Za-z]/)
      .filter((text) => text.startsWith(digest.slice(0, 19)));
    const shares = states.map((text) => Number(/ (\d+)% /.exec(text)?.[1]));
    assert.ok(
      shares.every((share) => share >= 0 && share <= 100),
      states.join('|'),
    );
    assert.deepEqual(
      shares.toSorted((a, b) => a - b),
      shares,
      'a bar never goes back',
    );
    assert.match(states.at(-1) ?? '', / 100% \d+(\.\d)? K?M?i?B -> \d+(\.\d)? K?M?i?B$/);
  }
  const { digest } = rootOf(target);
  assert.equal(readJson<Manifest>(target, rootOf(target)).layers.length, 4);
  const text = stdout.replaceAll('\x1b', 'ESC');
  assert.match(text, /converting linux\/amd64/);
  assert.ok(text.includes(`converted to ${digest}`), text);
  // the cursor comes back, below the bars
  assert.match(text, /ESC\[\?25h[\s\S]*\n[^\n]*converted to [^\n]*\n$/);
  assert.ok(text.lastIndexOf('ESC[?25h') > text.lastIndexOf('ESC[?25l'), text);
  assert.equal(/"event":/.test(stdout), false);
});
