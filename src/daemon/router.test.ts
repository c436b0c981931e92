import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FormatError } from '../base/errors.ts';
import { silentLogger, type LogLevel } from '../base/log.ts';
import type { ApiResponse } from './api-error.ts';
import { Daemon } from './daemon.ts';
import { fakeParts, type FakeInstance, type FakeParts } from './testing/fake-parts.ts';
import { Router, parseTarget } from './router.ts';

const CONFIG = JSON.stringify({
  device: {
    id: 'cache-id',
    backend: { type: 'localfs', config: { dir: '/blobs' } },
    cache: { type: 'blobcache', config: { work_dir: '/cache' } },
  },
  mode: 'direct',
  iostats_files: true,
  access_pattern: true,
  latest_read_files: true,
  fs_prefetch: { enable: true },
});

interface Fixture {
  parts: FakeParts;
  daemon: Daemon<FakeInstance>;
  exits: number;
  level: () => string;
  send(method: string, target: string, body?: unknown): Promise<ApiResponse>;
  message(method: string, target: string, body?: unknown): Promise<string>;
}

async function fixture(): Promise<Fixture> {
  const parts = fakeParts();
  const logger = { ...silentLogger, level: 'info' as LogLevel };
  const daemon = new Daemon<FakeInstance>({ parts, logger });
  await daemon.serve(
    await parts.mount({ mountpoint: '/m', threads: 1, serveOpen: true, hold: false, logger }),
  );
  const router = new Router(daemon as unknown as Daemon, () => out.exits++);
  const send = (method: string, target: string, body?: unknown): Promise<ApiResponse> => {
    const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body);
    return router.handle({ method, target, body: text });
  };
  const out: Fixture = {
    parts,
    daemon,
    exits: 0,
    level: () => logger.level,
    send,
    message: async (method, target, body) => {
      const answer = await send(method, target, body);
      const parsed = JSON.parse(answer.body ?? '{}') as { code?: string; message?: string };
      assert.equal(parsed.code, 'UNDEFINED', answer.body ?? 'no body');
      return `${answer.status} ${parsed.message}`;
    },
  };
  return out;
}

const MOUNT = { fs_type: 'rafs', source: '/b', config: CONFIG };
const EXISTS = '500 Mount(MountFilesystem(Other("object or filesystem already exists")))';
const MISSING = `500 Mount(MountFilesystem(Other("object or filesystem doesn't exist")))`;

describe('parseTarget', () => {
  it('parseTarget: splits, decodes, and lets the first of equal keys count', () => {
    const cases: [target: string, path: string, query: [string, string][]][] = [
      ['/api/v1/daemon', '/api/v1/daemon', []],
      [
        '/a?id=%2F&id=x&e=',
        '/a',
        [
          ['id', '/'],
          ['e', ''],
        ],
      ],
      ['http://localhost/a?x=1', '/a', [['x', '1']]],
      ['http://localhost', '/', []],
      ['/a?', '/a', []],
    ];
    for (const [target, path, query] of cases) {
      const parsed = parseTarget(target);
      assert.equal(parsed.path, path);
      assert.deepEqual([...parsed.query], query);
    }
  });
});

describe('Router', () => {
  it('Router: mounts, remounts and unmounts at the root', async () => {
    const { parts, send, message } = await fixture();
    assert.deepEqual(await send('POST', '/api/v1/mount?mountpoint=/', MOUNT), { status: 204 });
    assert.equal(await message('POST', '/api/v1/mount?mountpoint=/', MOUNT), EXISTS);
    assert.deepEqual(await send('PUT', '/api/v1/mount?mountpoint=%2F', { ...MOUNT, source: '/c' }), {
      status: 204,
    });
    assert.deepEqual(await send('DELETE', '/api/v1/mount?mountpoint=/'), { status: 204 });
    assert.equal(await message('DELETE', '/api/v1/mount?mountpoint=/'), MISSING);
    assert.equal(await message('PUT', '/api/v1/mount?mountpoint=/', MOUNT), MISSING);
    assert.deepEqual(parts.log, [
      'mount /m with open',
      'open /b',
      'attach /b',
      'prefetch by image',
      'open /c',
      'replace /c',
      'prefetch by image',
      'close /b',
      'detach',
      'close /c',
    ]);
    assert.equal(parts.attached?.enableXattr, false);
  });

  it('Router: the older form mounts where nothing is and remounts where something is', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'router-'));
    try {
      writeFileSync(join(dir, 'c.json'), `// a comment\n${CONFIG}`);
      const { parts, send, message } = await fixture();
      const older = { source: '/b', fstype: 'rafs', mountpoint: '/', config: join(dir, 'c.json') };
      assert.deepEqual(await send('PUT', '/api/v1/mount', older), { status: 204 });
      assert.deepEqual(await send('PUT', '/api/v1/mount?mountpoint=/', { ...older, source: '/c' }), {
        status: 204,
      });
      assert.equal(await message('POST', '/api/v1/mount', older), EXISTS);
      assert.deepEqual(parts.log.slice(1), [
        'open /b',
        'attach /b',
        'prefetch by image',
        'open /c',
        'replace /c',
        'prefetch by image',
        'close /b',
      ]);
      assert.match(
        await message('PUT', '/api/v1/mount', { ...older, config: join(dir, 'none.json') }),
        /^500 .*Failed to load config: No such file or directory \(os error 2\)`"\)\)\)$/,
      );
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('Router: refuses by name what is not served yet', async () => {
    const { message, parts } = await fixture();
    assert.match(
      await message('PUT', '/api/v1/daemon/fuse/sendfd'),
      /^500 Upgrade\(DaemonAbnormal\(UpgradeManager\(/,
    );
    assert.equal(
      await message('GET', '/api/v2/blobs?domain_id=d'),
      '501 GetBlobObjects(DaemonAbnormal(Unsupported))',
    );
    assert.equal(
      await message('PUT', '/api/v2/blobs', { type: 'bootstrap', id: 'x' }),
      '501 CreateBlobObject(DaemonAbnormal(Unsupported))',
    );
    assert.deepEqual(parts.log, ['mount /m with open']);
  });

  it('Router: a failed mount leaves nothing mounted', async () => {
    const { parts, send, message } = await fixture();
    parts.openError = new FormatError({ struct: 'superblock', field: 'magic', offset: 1024 }, 'is 0');
    assert.equal(
      await message('POST', '/api/v1/mount?mountpoint=/', MOUNT),
      '500 Mount(MountFilesystem(Other("RAFS failed to handle request, Failed to fill superBlock: superblock.magic at byte 1024: is 0`")))',
    );
    parts.openError = undefined;
    parts.attachError = new Error('no');
    assert.equal(
      await message('POST', '/api/v1/mount?mountpoint=/', MOUNT),
      '500 Mount(MountFilesystem(Other("no")))',
    );
    assert.deepEqual(parts.log.slice(1), ['open /b', 'close /b']);
    assert.match((await send('GET', '/api/v1/daemon')).body ?? '', /"backend_collection":\{\}/);
  });

  it('Router: metrics are found by id, or alone without one (5.10)', async () => {
    const { send, parts } = await fixture();
    const status = async (target: string): Promise<number> => (await send('GET', target)).status;
    const cases: [target: string, mounted: number][] = [
      ['/api/v1/metrics', 200],
      ['/api/v1/metrics?id=/', 200],
      ['/api/v1/metrics?id=', 404],
      ['/api/v1/metrics?id=cache-id', 404],
      ['/api/v1/metrics/files?id=%2F', 200],
      ['/api/v1/metrics/files?latest=true', 200],
      ['/api/v1/metrics/pattern', 200],
      ['/api/v1/metrics/backend?id=/', 200],
      ['/api/v1/metrics/backend?id=x', 404],
      ['/api/v1/metrics/blobcache', 200],
      ['/api/v1/metrics/blobcache?id=/', 404],
      ['/api/v1/metrics/blobcache?id=cache-id', 200],
    ];
    for (const [target] of cases) assert.equal(await status(target), 404, target);
    await send('POST', '/api/v1/mount?mountpoint=/', MOUNT);
    for (const [target, mounted] of cases) assert.equal(await status(target), mounted, target);
    assert.equal((await send('GET', '/api/v1/metrics/files?latest=true')).body, '[[7]]');
    assert.equal((await send('GET', '/api/v1/metrics/files?latest=x')).body, '{"128":{"total_fops":1}}');
    assert.deepEqual(await send('GET', '/api/v1/metrics/inflight'), { status: 204 });
    parts.busy = [{ inode: 72057594037927937n, opcode: 15, unique: 2n ** 63n, timestamp_secs: 1700000000 }];
    assert.deepEqual(await send('GET', '/api/v1/metrics/inflight'), {
      status: 200,
      body: '[{"inode":72057594037927937,"opcode":15,"unique":9223372036854775808,"timestamp_secs":1700000000}]',
    });
  });

  it('Router: statistics that the configuration left off are empty', async () => {
    const { send } = await fixture();
    const config = CONFIG.replaceAll(
      /"(iostats_files|access_pattern|latest_read_files)":true/g,
      '"$1":false',
    );
    await send('POST', '/api/v1/mount?mountpoint=/', { ...MOUNT, config });
    assert.equal((await send('GET', '/api/v1/metrics/files')).body, '{}');
    assert.equal((await send('GET', '/api/v1/metrics/files?latest=true')).body, '[]');
    assert.equal((await send('GET', '/api/v1/metrics/pattern')).body, '[]');
  });

  it('Router: exit stops the workers, leaves the mount and asks for the end', async () => {
    const { parts, send, daemon } = await fixture();
    await send('POST', '/api/v1/mount?mountpoint=/', MOUNT);
    const router = new Router(daemon as unknown as Daemon, () => parts.log.push('end'));
    const answer = await router.handle({ method: 'PUT', target: '/api/v1/daemon/exit', body: null });
    assert.deepEqual(answer, { status: 204 });
    assert.deepEqual(parts.log.slice(-3), ['stop', 'close /b', 'end']);
    assert.ok(!parts.log.includes('unmount'));
    assert.match((await send('GET', '/api/v1/daemon')).body ?? '', /"state":"STOPPED"/);
  });

  it('Router: the log level changes at run time, and the wire log with it', async () => {
    const { send, level, message, parts } = await fixture();
    assert.deepEqual(await send('PUT', '/api/v1/daemon', { log_level: 'trace' }), { status: 204 });
    assert.equal(parts.log.at(-1), 'wire log on');
    assert.deepEqual(await send('PUT', '/api/v1/daemon', { log_level: 'DEBUG' }), { status: 204 });
    assert.equal(level(), 'debug');
    assert.equal(parts.log.at(-1), 'wire log off');
    assert.equal(
      await message('PUT', '/api/v1/daemon', { log_level: 'loud' }),
      '500 Configure(ResponsePayloadType)',
    );
    assert.equal(level(), 'debug');
  });

  it('Router: hostile keys are keys like any other', async () => {
    const { send, message } = await fixture();
    assert.equal(await message('GET', '/__proto__'), '404 NoRoute');
    assert.equal(await message('GET', '/constructor'), '404 NoRoute');
    assert.equal(await message('toString', '/api/v1/daemon'), '400 BadRequest');
    assert.equal(
      await message('PUT', '/api/v1/daemon', '{"__proto__": {"log_level": "info"}}'),
      '400 ParseBody(Error("missing field `log_level`", line: 1, column: 36))',
    );
    assert.equal(
      await message('PUT', '/api/v1/config', '{"__proto__": "x"}'),
      '500 Configure(ResponsePayloadType)',
    );
    assert.equal((await send('GET', '/api/v1/config')).body, '{}');
  });
});
