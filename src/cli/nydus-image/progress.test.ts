import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { requirePeer, tempDir } from '../../../test/support/golden.ts';
import { programCommand } from '../../../test/support/programs.ts';
import { noise } from '../../../test/support/sample-tree.ts';
import { progressLine, progressShare, showBytes } from './progress.ts';

test('showBytes: binary units with one digit', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 5 * 2 ** 30].map(showBytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '5.0 GiB',
  ]);
});

test('progressShare: blank until the total is known, then never over 100', () => {
  const event = { phase: 'data', files: 1, totalFiles: 0 } as const;
  assert.equal(progressShare({ ...event, bytes: 7, totalBytes: 0 }), '    ');
  assert.equal(progressShare({ ...event, bytes: 7, totalBytes: 10 }), ' 70%');
  assert.equal(progressShare({ ...event, bytes: 11, totalBytes: 10 }), '100%');
  assert.equal(
    progressLine({ ...event, bytes: 1024, totalBytes: 2048 }),
    'storing data: 1 files, 1.0 KiB of 2.0 KiB',
  );
});

test(
  'nydus-image create: draws a bar on a terminal, which tells the truth and is gone at the end',
  { skip: requirePeer('script') },
  (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'tree'));
    for (const name of ['a', 'b', 'c']) writeFileSync(join(dir, 'tree', name), noise(name, 3 << 20));
    const words = [
      ...programCommand('nydus-image'),
      'create',
      '--blob-dir',
      dir,
      '--bootstrap',
      join(dir, 'boot'),
      join(dir, 'tree'),
    ];
    const command = words.map((word) => `'${word}'`).join(' ');
    const { status, stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
      encoding: 'utf8',
      input: '',
      env: { ...process.env, TERM: 'xterm' },
    });
    assert.equal(status, 0, stdout);
    assert.match(stdout, /done: 3 files, 9\.0 MiB of 9\.0 MiB/);
    const counts = [...stdout.matchAll(/storing data: (\d+) files/g)].map((match) => Number(match[1]));
    assert.ok(
      counts.every((files) => files <= 3),
      stdout,
    );
    // the cursor comes back, and the line is cleared before the result
    const text = stdout.replaceAll('\x1b', 'ESC');
    assert.match(text, /ESC\[\?25h[\s\S]*ESC\[2K.*successfully built/);
  },
);
