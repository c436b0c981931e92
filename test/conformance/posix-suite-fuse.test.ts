// The read-only POSIX suite on /dev/fuse mounts of golden images, with empty caches: every first read is a miss.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { goldenPath, readManifest, repoRoot, skipUnlessGolden } from '../support/golden.ts';
import { firstReason, requireFuse } from '../support/prerequisites.ts';
import { mountsBelow, tempDir } from '../support/temporary.ts';
import { posixSuite } from './posix-suite.ts';

/** Serve a golden case in a process of its own. */
async function serve(
  t: TestContext,
  name: string,
  threads: number,
): Promise<{ root: string; child: ChildProcess }> {
  const dir = tempDir(t);
  chmodSync(dir, 0o755); // another user must reach the mount
  const root = join(dir, 'mnt');
  mkdirSync(root);
  const folder = goldenPath('cases', name) ?? '';
  const child = spawn(
    process.execPath,
    [
      join(repoRoot, 'bench/fuse/serve.ts'),
      join(folder, 'bootstrap'),
      join(folder, 'blobs'),
      join(dir, 'cache'),
      root,
      String(threads),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.after(() => child.kill('SIGKILL'));
  const [text] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(text.toString(), 'mounted\n');
  return { root, child };
}

for (const name of ['odd-v6-none', 'odd-v5-none', 'tiny-v6-zstd-sha256', 'tiny-v5-lz4_block-blake3']) {
  test(
    `posixSuite: ${name} over /dev/fuse`,
    { skip: firstReason(requireFuse(), skipUnlessGolden('cases', name, 'blobs')) },
    async (t) => {
      const started = Math.floor(Date.now() / 1000);
      const { root, child } = await serve(t, name, 2);
      const info = JSON.parse(readFileSync(goldenPath('cases', name, 'case.json') ?? '', 'utf8')) as {
        manifest: string;
      };
      await posixSuite(t, root, {
        manifest: readManifest(info.manifest),
        mountedBetween: [started, Math.ceil(Date.now() / 1000)],
        inoIndex: 1,
        xattrs: true,
      });
      child.kill('SIGTERM');
      const [code] = (await once(child, 'exit')) as [number | null];
      assert.equal(code, 0);
      assert.deepEqual(mountsBelow(root), []);
    },
  );
}
