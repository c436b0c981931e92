import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger, type LogLevel } from '../base/log.ts';
import { parseConfig } from '../storage/config-parse.ts';
import { Daemon } from './daemon.ts';
import { formatMountedTime } from './mounts.ts';
import { fakeParts, type FakeInstance, type FakeParts } from './testing/fake-parts.ts';

const PARSED = parseConfig(
  '{"device":{"backend":{"type":"localfs","config":{"dir":"/b"}},"cache":{"type":"blobcache","config":{"work_dir":"/c"}}},"mode":"direct"}',
);

async function running(): Promise<{ parts: FakeParts; daemon: Daemon<FakeInstance> }> {
  const parts = fakeParts();
  const logger = { ...silentLogger, level: 'info' as LogLevel };
  const daemon = new Daemon<FakeInstance>({ parts, logger });
  const instance = await parts.open({ bootstrap: '/i', config: PARSED.config, id: '/', logger });
  const session = await parts.mount({ mountpoint: '/m', threads: 1, serveOpen: false, hold: true, logger });
  await daemon.serve(session, {
    mountpoint: '/',
    source: '/i',
    target: { kind: 'rafs', instance },
    parsed: PARSED,
  });
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

  it('Daemon: several mounts are listed, counted and taken away one by one', async () => {
    const { parts, daemon } = await running();
    const request = { source: '/j', fsType: 'rafs', older: false, readConfig: () => PARSED };
    await daemon.mountImage({ ...request, mountpoint: '/a/b' });
    await daemon.mountImage({ ...request, mountpoint: '/d', fsType: 'passthrough_fs', source: '/dir' });
    const shown = daemon.reports.info(true)['backend_collection'] as Record<string, Record<string, unknown>>;
    assert.deepEqual(
      Object.entries(shown).map(([key, mount]) => [key, mount['backend_type'], mount['config'] === null]),
      [
        ['/', 'Rafs', false],
        ['/a/b', 'Rafs', false],
        ['/d', 'PassthroughFs', true],
      ],
    );
    assert.equal(daemon.reports.fsMetrics(undefined), undefined);
    assert.equal(daemon.reports.fsMetrics('/a/b')?.['id'], '/a/b');
    assert.deepEqual(daemon.reports.storageMetrics('backend', '/a/b'), { backend_type: 'localfs' });
    assert.equal(daemon.reports.storageMetrics('backend', '/d'), undefined);
    await daemon.unmountImage('/d');
    await daemon.unmountImage('/a/b');
    assert.deepEqual(parts.log.slice(-4), ['detach at /d', 'close /dir', 'detach at /a/b', 'close /j']);
    await assert.rejects(daemon.unmountImage('/d'), /object or filesystem doesn't exist/);
  });

  it('Daemon: a directory cannot be remounted, nor an image made a directory', async () => {
    const { daemon } = await running();
    const request = { mountpoint: '/', source: '/dir', older: false, readConfig: () => PARSED };
    await assert.rejects(
      daemon.remountImage({ ...request, fsType: 'passthrough_fs' }),
      /filesystem type mismatch, expect RAFS/,
    );
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
