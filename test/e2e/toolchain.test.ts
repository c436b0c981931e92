// The launchers in bin/ run from any directory and through symbolic links.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repoRoot, requireBuilt, tempDir } from '../support/golden.ts';

for (const program of ['nydus-image', 'nydusd']) {
  const launcher = join(repoRoot, 'bin', program);
  test(`${program}: runs from any directory and through links`, { skip: requireBuilt(launcher) }, (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'a'));
    symlinkSync(launcher, join(dir, 'a', program));
    symlinkSync(join('a', program), join(dir, 'relative'));
    const version = new RegExp(
      `^${program} \\rVersion: \\tv\\d+\\.\\d+\\.\\d+\\nGit Commit: \\t\\S+\\nBuild Time: \\t\\S+\\n`,
    );
    const ways: [string, NodeJS.ProcessEnv][] = [
      [launcher, {}],
      [join(dir, 'a', program), {}],
      ['./relative', {}],
      [program, { PATH: `${join(dir, 'a')}:/usr/bin:/bin` }],
      [program, { PATH: `${join(dir, 'a')}:/usr/bin:/bin`, HOME: '' }],
    ];
    for (const [file, env] of ways) {
      const result = spawnSync(file, ['--version'], {
        cwd: dir,
        encoding: 'utf8',
        env: { ...process.env, ...env },
      });
      assert.equal(result.status, 0, `${file}: ${result.stderr}`);
      assert.match(result.stdout, version, file);
    }
    assert.equal(spawnSync(launcher, ['--nosuch'], { cwd: '/', encoding: 'utf8' }).status, 2);
  });
}
