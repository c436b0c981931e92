import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { firstReason, requireFuse, requireRoot } from '../../../test/support/prerequisites.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { allowedCpus } from '../../native/affinity.ts';
import { FuseSession } from './session.ts';
import { placesFor } from './worker-group.ts';

const skip = firstReason(requireRoot(), requireFuse());

test('placesFor: a CPU for each worker where two workers are on two CPUs, else none', () => {
  assert.deepEqual(placesFor(4, [0, 1]), [0, 1]);
  assert.deepEqual(placesFor(2, [2, 5]), [2, 5]);
  assert.deepEqual(placesFor(1, [0, 1]), []);
  assert.deepEqual(placesFor(4, [3]), []);
  assert.deepEqual(placesFor(4, [0, 1, 2]), []);
  assert.deepEqual(placesFor(4, [0, 1, 2, 3]), []);
});

/** CPUs that each FUSE worker of this process may run on. */
function workerCpus(): string[] {
  return readdirSync('/proc/self/task')
    .map((tid) => readFileSync(`/proc/self/task/${tid}/status`, 'utf8'))
    .filter((status) => /^Name:\s*fuse$/m.test(status))
    .map((status) => /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '')
    .toSorted();
}

const patience = { skip, timeout: 20_000 };

test('FuseSession: its workers stay on the CPUs chosen for them, and serve', patience, async (t) => {
  const mountpoint = join(tempDir(t), 'mnt');
  mkdirSync(mountpoint);
  const cpus = allowedCpus();
  const threads = Math.min(2, cpus.length);
  const session = await FuseSession.mount({
    mountpoint,
    threads,
    serveOpen: true,
    hold: false,
    logger: silentLogger,
  });
  t.after(() => session.unmount());
  const places = placesFor(threads, cpus);
  const all = workerCpus()[0] ?? '';
  const expected = Array.from({ length: threads }, (_, at) => String(places[at] ?? all));
  // the second worker starts a moment later
  while (!isDeepStrictEqual(workerCpus(), expected)) assert.deepEqual(await readdir(mountpoint), []);
  assert.deepEqual(await readdir(mountpoint), []);
});
