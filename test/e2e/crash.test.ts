// What must not happen, happened: an error that nobody caught in the main thread of nydusd, while its workers sleep in the kernel.
// The process says what it was and is gone, and the next daemon serves the mount. The fault comes from a module that is loaded first.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, goldenPath, requireFuse, skipUnlessGolden, tempDir } from '../support/golden.ts';
import { mountsBelow } from '../support/temporary.ts';

const CASE = 'tiny-v6-zstd-blake3';
const skip = firstReason(skipUnlessGolden('cases', CASE, 'bootstrap'), requireFuse());

/** The main thread fails when it gets SIGUSR2. */
const faulty = (fault: string): string => `import { isMainThread } from 'node:worker_threads';
if (isMainThread) process.on('SIGUSR2', () => { ${fault}; });
`;

const FAULTS = [
  [
    'an exception',
    `throw new TypeError('planted: nobody catches this')`,
    /TypeError: planted: nobody catches this\n\s+at /,
  ],
  [
    'a rejected promise',
    `void Promise.reject(new RangeError('planted: nobody awaits'))`,
    /RangeError: planted: nobody awaits\n\s+at /,
  ],
  ['something that is no error', `throw 'planted: a string'`, /nydusd failed: planted: a string/],
] as const;

for (const [what, fault, said] of FAULTS) {
  test(
    `nydusd: ${what} in the main thread ends the process with status 1 and its reason; the next one mounts`,
    {
      skip,
    },
    async (t) => {
      const work = tempDir(t);
      const bootstrap = goldenPath('cases', CASE, 'bootstrap') ?? '';
      const preload = join(work, 'fault.mjs');
      writeFileSync(preload, faulty(fault));
      const config = localConfig(join(bootstrap, '..', 'blobs'), join(work, 'cache'));
      const options = { workDir: join(work, 'run'), bootstrap, config };
      const NODE_OPTIONS = `--import=${pathToFileURL(preload).href}`;
      await using daemon = await startDaemon({ ...options, env: { NODE_OPTIONS } });
      assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
      daemon.child.kill('SIGUSR2');
      const late = sleep(20_000, 'still running', { ref: false });
      assert.equal(await Promise.race([daemon.ended, late]), 1, daemon.log);
      assert.match(daemon.log, said);
      assert.match(daemon.log, /ERROR .*nydusd failed: /);
      // as after kill -9: the mount is there and dead
      assert.throws(() => statSync(join(daemon.mountpoint, 'd/f')), { code: 'ENOTCONN' });
      assert.deepEqual(mountsBelow(work), [daemon.mountpoint]);
      assert.ok(existsSync(daemon.apisock));
      await using next = await startDaemon(options);
      assert.deepEqual(readdirSync(next.mountpoint).toSorted(), ['d', 'data', 'empty', 's']);
      assert.equal(await next.stop(), 0, next.log);
      assert.deepEqual(mountsBelow(work), []);
    },
  );
}

test('nydusd: with a log file, the reason is in it and nothing is lost on the way', { skip }, async (t) => {
  const work = tempDir(t);
  const preload = join(work, 'fault.mjs');
  writeFileSync(preload, faulty(FAULTS[0][1]));
  await using daemon = await startDaemon({
    workDir: join(work, 'run'),
    args: ['--log-file', join(work, 'daemon.log')],
    env: { NODE_OPTIONS: `--import=${pathToFileURL(preload).href}` },
  });
  daemon.child.kill('SIGUSR2');
  assert.equal(await daemon.ended, 1);
  const log = readFileSync(join(work, 'daemon.log'), 'utf8');
  assert.match(log, /INFO Program Version: /);
  assert.match(log, FAULTS[0][2]);
});
