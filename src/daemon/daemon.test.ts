import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger, type LogLevel } from '../base/log.ts';
import { parseConfig } from '../storage/config-parse.ts';
import { Daemon, countedSince, formatMountedTime } from './daemon.ts';
import { ZERO_COUNTERS, fakeParts, type FakeInstance, type FakeParts } from './testing/fake-parts.ts';

const PARSED = parseConfig(
  '{"device":{"backend":{"type":"localfs","config":{"dir":"/b"}},"cache":{"type":"blobcache","config":{"work_dir":"/c"}}},"mode":"direct"}',
);

const accounting = { files: false, pattern: false, latest: false };

async function running(): Promise<{ parts: FakeParts; daemon: Daemon<FakeInstance> }> {
  const parts = fakeParts();
  const logger = { ...silentLogger, level: 'info' as LogLevel };
  const daemon = new Daemon<FakeInstance>({ parts, logger });
  const instance = await parts.open({ bootstrap: '/i', config: PARSED.config, id: '/', logger });
  const session = await parts.mount({ mountpoint: '/m', threads: 1, serveOpen: false, accounting, logger });
  await daemon.serve(session, instance, PARSED);
  parts.log.length = 0;
  return { parts, daemon };
}

describe('formatMountedTime', () => {
  it('formatMountedTime: drops trailing zeros of the fraction and keeps one digit', () => {
    const at = (ms: number): string => formatMountedTime(new Date(Date.UTC(2026, 0, 2, 3, 4, 5, ms)));
    assert.equal(at(0), '2026-01-02 03:04:05.0 +00:00:00');
    assert.equal(at(120), '2026-01-02 03:04:05.12 +00:00:00');
    assert.equal(at(123), '2026-01-02 03:04:05.123 +00:00:00');
  });
});

describe('countedSince', () => {
  it('countedSince: subtracts every counter', () => {
    const now = { ...ZERO_COUNTERS, data_read: 10, block_count_read: [3, 2, 1, 0, 0, 0, 0, 9] };
    const before = { ...ZERO_COUNTERS, data_read: 4, block_count_read: [1, 2, 0, 0, 0, 0, 0, 8] };
    const since = countedSince(now, before);
    assert.equal(since.data_read, 6);
    assert.deepEqual(since.block_count_read, [2, 0, 1, 0, 0, 0, 0, 1]);
    assert.equal(since.fop_hits[0], 0);
  });
});

describe('Daemon', () => {
  it('Daemon: shutdown unmounts first, then closes the image', async () => {
    const { parts, daemon } = await running();
    await daemon.shutdown();
    assert.equal(parts.log[0], 'unmount');
    assert.equal(parts.log.at(-1), 'close /i');
    assert.ok(!parts.log.includes('stop'));
    assert.equal(daemon.machine.visible, 'STOPPED');
    await daemon.shutdown();
    assert.equal(parts.log.filter((line) => line === 'close /i').length, 1);
  });

  it('Daemon: exit stops the workers and leaves the mount', async () => {
    const { parts, daemon } = await running();
    await daemon.exit();
    assert.deepEqual(parts.log, ['stop', 'close /i']);
    assert.equal(daemon.leaving, true);
    await daemon.exit();
    assert.deepEqual(parts.log, ['stop', 'close /i']);
  });

  it('Daemon: mounts wait for one another', async () => {
    const { parts, daemon } = await running();
    const request = {
      mountpoint: '/',
      source: '/j',
      fsType: 'rafs',
      older: false,
      readConfig: () => PARSED,
    };
    const results = await Promise.allSettled([
      daemon.unmountImage('/'),
      daemon.mountImage(request),
      daemon.mountImage(request),
      daemon.remountImage({ ...request, source: '/k' }),
    ]);
    assert.deepEqual(
      results.map((result) => result.status),
      ['fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
    );
    assert.deepEqual(parts.log, [
      'detach',
      'close /i',
      'open /j',
      'attach /j',
      'open /k',
      'replace /k',
      'close /j',
    ]);
  });
});
