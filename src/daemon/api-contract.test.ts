// Every endpoint of nydusd.md 5.3 with every way to ask for it wrongly, and every literal text of 5.2, as one table of requests
// and complete answers.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger, type LogLevel } from '../base/log.ts';
import { ApiError, DaemonError, type Shell, type Wrapper } from './api-error.ts';
import { Daemon } from './daemon.ts';
import { Router } from './router.ts';
import { fakeParts, type FakeInstance, type FakeParts } from './testing/fake-parts.ts';

const CONFIG = JSON.stringify({
  device: {
    backend: { type: 'localfs', config: { dir: '/blobs' } },
    cache: { type: 'blobcache', config: {} },
  },
  mode: 'direct',
});
const RAFS = JSON.stringify({ fs_type: 'rafs', source: '/b', config: CONFIG });
const PASSTHROUGH = JSON.stringify({ fs_type: 'passthrough_fs', source: '/dir', config: '' });

/** Endpoints of the table: method, path, whether a query item is required, whether there is a body. */
const ENDPOINTS: readonly [method: string, path: string, needs: '' | 'mountpoint', body: boolean][] = [
  ['GET', '/api/v1/daemon', '', false],
  ['PUT', '/api/v1/daemon', '', true],
  ['GET', '/api/v1/daemon/events', '', false],
  ['GET', '/api/v1/daemon/backend', 'mountpoint', false],
  ['PUT', '/api/v1/daemon/start', '', false],
  ['PUT', '/api/v1/daemon/exit', '', false],
  ['PUT', '/api/v1/daemon/fuse/sendfd', '', false],
  ['PUT', '/api/v1/daemon/fuse/takeover', '', false],
  ['POST', '/api/v1/mount', 'mountpoint', true],
  ['PUT', '/api/v1/mount', 'mountpoint', true],
  ['DELETE', '/api/v1/mount', 'mountpoint', false],
  ['GET', '/api/v1/metrics', '', false],
  ['GET', '/api/v1/metrics/files', '', false],
  ['GET', '/api/v1/metrics/pattern', '', false],
  ['GET', '/api/v1/metrics/backend', '', false],
  ['GET', '/api/v1/metrics/blobcache', '', false],
  ['GET', '/api/v1/metrics/inflight', '', false],
  ['GET', '/api/v1/config', '', false],
  ['PUT', '/api/v1/config', '', true],
  ['GET', '/api/v2/daemon', '', false],
  ['PUT', '/api/v2/daemon', '', true],
  ['GET', '/api/v2/blobs', '', false],
  ['PUT', '/api/v2/blobs', '', true],
  ['DELETE', '/api/v2/blobs', '', false],
];
const METHODS = ['GET', 'PUT', 'POST', 'DELETE', 'PATCH', 'HEAD'];

type Ask = (method: string, target: string, body?: string) => Promise<string>;

interface Fixture {
  ask: Ask;
  parts: FakeParts;
  daemon: Daemon<FakeInstance>;
  routes: string[];
}

/** @param serving false: a daemon that waits for its takeover */
async function fixture(serving = true): Promise<Fixture> {
  const parts = fakeParts();
  const logger = { ...silentLogger, level: 'info' as LogLevel };
  const daemon = new Daemon<FakeInstance>({ parts, logger });
  if (serving)
    await daemon.serve(
      await parts.mount({ mountpoint: '/m', threads: 1, serveOpen: true, hold: false, logger }),
    );
  const router = new Router(daemon as unknown as Daemon, () => {});
  return {
    parts,
    daemon,
    routes: router.routes(),
    ask: async (method, target, body) => {
      const answer = await router.handle({ method, target, body: body ?? null });
      return answer.body === undefined ? String(answer.status) : `${answer.status} ${answer.body}`;
    },
  };
}

/** A complete error body. */
const refusal = (status: number, message: string): string =>
  `${status} ${JSON.stringify({ code: 'UNDEFINED', message })}`;

const BAD_REQUEST = refusal(400, 'BadRequest');
const NO_MOUNTPOINT = refusal(400, `QueryString("'mountpoint' should be specified in query string")`);
const mountError = (text: string): string =>
  refusal(500, `Mount(MountFilesystem(Other(${JSON.stringify(text)})))`);

describe('the contract of the API', () => {
  it('Router: has the endpoints of the table, and /metrics', async () => {
    const { routes } = await fixture();
    const wanted = ENDPOINTS.map(([method, path]) => `${method} ${path}`);
    assert.deepEqual(routes.toSorted(), [...wanted, 'GET /metrics'].toSorted());
  });

  it('Router: another method, or a body where there is none to be, is BadRequest at every endpoint', async () => {
    const { ask } = await fixture();
    for (const path of new Set(ENDPOINTS.map(([, at]) => at))) {
      const here = ENDPOINTS.filter(([, at]) => at === path);
      const needs = here.some(([, , query]) => query !== '');
      const target = needs ? `${path}?mountpoint=/x` : path;
      for (const method of METHODS) {
        const known = here.find(([name]) => name === method);
        for (const body of [undefined, '{}']) {
          const fits = known !== undefined && known[3] === (body !== undefined);
          if (!fits)
            assert.equal(await ask(method, target, body), BAD_REQUEST, `${method} ${target} ${body}`);
        }
        // the query item is looked for before anything else; the older form of a mount has it in its body
        if (needs && (path !== '/api/v1/mount' || !['PUT', 'POST'].includes(method)))
          assert.equal(await ask(method, path), NO_MOUNTPOINT, `${method} ${path}`);
      }
    }
    assert.equal(await ask('POST', '/api/v1/mount', RAFS), NO_MOUNTPOINT);
    assert.equal(await ask('PUT', '/api/v1/mount', RAFS), NO_MOUNTPOINT);
  });

  it('Router: unknown paths are NoRoute, whatever the method', async () => {
    const { ask } = await fixture();
    const near = [
      '/',
      '/api',
      '/api/v1/',
      '/api/v1/daemon/',
      '/api/v1/daemons',
      '/api/v1/metrics/cache',
      '/api/v2/mount',
      '/API/v1/daemon',
      '//api/v1/daemon',
      '/api/v1/daemon%2Fexit',
    ];
    for (const path of near)
      for (const method of METHODS) assert.equal(await ask(method, path), refusal(404, 'NoRoute'), path);
  });

  it('Router: what has no payload is 204, what has one is 200', async () => {
    const { ask } = await fixture();
    const status = async (...call: Parameters<Ask>): Promise<string> => (await ask(...call)).slice(0, 3);
    const calls: [number, ...Parameters<Ask>][] = [
      [204, 'POST', '/api/v1/mount?mountpoint=/', RAFS],
      [204, 'PUT', '/api/v1/mount?mountpoint=/', RAFS],
      [200, 'GET', '/api/v1/daemon'],
      [204, 'PUT', '/api/v1/daemon', '{"log_level":"info"}'],
      [200, 'GET', '/api/v1/daemon/events'],
      [200, 'GET', '/api/v1/daemon/backend?mountpoint=/'],
      [200, 'GET', '/api/v1/metrics'],
      [200, 'GET', '/api/v1/metrics/files'],
      [200, 'GET', '/api/v1/metrics/pattern'],
      [200, 'GET', '/api/v1/metrics/backend'],
      [200, 'GET', '/api/v1/metrics/blobcache'],
      [204, 'GET', '/api/v1/metrics/inflight'],
      [200, 'GET', '/api/v1/config'],
      [204, 'PUT', '/api/v1/config', '{"proxy_url":"http://p"}'],
      [200, 'GET', '/api/v2/daemon'],
      [204, 'PUT', '/api/v2/daemon', '{"log_level":"info"}'],
      [204, 'DELETE', '/api/v2/blobs?blob_id=b'],
      [204, 'DELETE', '/api/v1/mount?mountpoint=/'],
      [204, 'PUT', '/api/v1/daemon/exit'],
    ];
    for (const [wanted, ...call] of calls)
      assert.equal(await status(...call), String(wanted), call.join(' '));
  });

  it('Router: every level of the log, in any case, and no other word', async () => {
    const { ask } = await fixture();
    const put = (level: string): Promise<string> =>
      ask('PUT', '/api/v1/daemon', JSON.stringify({ log_level: level }));
    for (const level of ['off', 'error', 'warn', 'info', 'debug', 'trace', 'INFO', 'Warn'])
      assert.equal(await put(level), '204', level);
    for (const level of ['', 'fatal', 'info ', 'warning'])
      assert.equal(await put(level), refusal(500, 'Configure(ResponsePayloadType)'), level);
  });

  it('Router: mounting fails in the words of 5.2', async () => {
    const { ask } = await fixture();
    const mount = (body: object, at = '/a', method = 'POST'): Promise<string> =>
      ask(method, `/api/v1/mount?mountpoint=${at}`, JSON.stringify(body));
    const rafs = JSON.parse(RAFS) as object;
    assert.equal(await ask('POST', '/api/v1/mount?mountpoint=/a', RAFS), '204');
    assert.equal(await mount(rafs), mountError('object or filesystem already exists'));
    assert.equal(await mount(rafs, '/none', 'PUT'), mountError("object or filesystem doesn't exist"));
    assert.equal(
      await ask('DELETE', '/api/v1/mount?mountpoint=/none'),
      mountError("object or filesystem doesn't exist"),
    );
    for (const type of ['', 'ext4', 'RAFS'])
      assert.equal(
        await mount({ ...rafs, fs_type: type }, '/b'),
        mountError(
          `invalid argument \`only 'rafs' and 'passthrough_fs' are supported, but ${type} was specified\``,
        ),
      );
    assert.equal(
      await mount({ ...rafs, prefetch_files: ['/a', 'b'] }, '/b'),
      mountError('invalid prefetch file list'),
    );
    for (const type of ['passthrough', 'passthroughfs', 'passthrough_fs'])
      assert.equal(await mount({ fs_type: type, source: '/dir', config: '' }, `/${type}`), '204');
    assert.equal(
      await ask('PUT', '/api/v1/mount?mountpoint=/passthrough', RAFS),
      mountError('filesystem type mismatch, expect RAFS'),
    );
    assert.equal(
      await ask('PUT', '/api/v1/mount?mountpoint=/a', PASSTHROUGH),
      mountError('filesystem type mismatch, expect RAFS'),
    );
    const backend = (at: string): Promise<string> => ask('GET', `/api/v1/daemon/backend?mountpoint=${at}`);
    const metrics = (text: string): string =>
      refusal(500, `FsBackendInfo(Metrics(Daemon(Other(${JSON.stringify(text)}))))`);
    assert.equal(await backend('/passthrough'), metrics('filesystem type mismatch, expect RAFS'));
    assert.equal(await backend('/none'), metrics("object or filesystem doesn't exist"));
    for (const at of ['', 'a', '/a/../b'])
      assert.match(
        await mount(rafs, at),
        /^500 .*VFS failed to handle request, PathWalk\(Os \{ code: 22, kind: InvalidInput, message: /,
      );
  });

  it('Router: what the file system side fails with keeps only the text of the system (5.2)', async () => {
    const { ask, parts } = await fixture();
    parts.openError = Object.assign(new Error("ENOENT: no such file or directory, open '/b'"), {
      code: 'ENOENT',
      errno: -2,
    });
    assert.equal(
      await ask('POST', '/api/v1/mount?mountpoint=/a', RAFS),
      mountError(
        'RAFS failed to handle request, Failed to fill superBlock: No such file or directory (os error 2)`',
      ),
    );
    assert.equal(
      await ask('POST', '/api/v1/mount?mountpoint=/a', PASSTHROUGH),
      mountError('passthroughfs failed to handle request, No such file or directory (os error 2)'),
    );
  });

  it('Router: nothing is counted: NoCounter under each wrapper', async () => {
    const { ask } = await fixture();
    for (const [path, wrapper] of [
      ['metrics', 'GlobalMetrics'],
      ['metrics/files', 'FsFilesMetrics'],
      ['metrics/pattern', 'Pattern'],
      ['metrics/backend', 'BackendMetrics'],
      ['metrics/blobcache', 'BlobcacheMetrics'],
    ])
      assert.equal(
        await ask('GET', `/api/v1/${path}?id=/none`),
        refusal(404, `${wrapper}(Metrics(Stats(NoCounter)))`),
      );
  });

  it('Router: events that do not fit the state are named, before and after the takeover and at the end', async () => {
    const unexpected = (wrapper: string, event: string): string =>
      refusal(400, `${wrapper}(DaemonAbnormal(UnexpectedEvent("${event}")))`);
    const waiting = await fixture(false);
    assert.equal(await waiting.ask('PUT', '/api/v1/daemon/start'), unexpected('Configure', 'Start'));
    assert.equal(
      await waiting.ask('PUT', '/api/v1/daemon/fuse/sendfd'),
      refusal(503, 'Upgrade(DaemonAbnormal(NotReady))'),
    );
    const { ask } = await fixture();
    assert.equal(await ask('PUT', '/api/v1/daemon/start'), unexpected('Configure', 'Start'));
    assert.equal(await ask('PUT', '/api/v1/daemon/fuse/takeover'), unexpected('Upgrade', 'Takeover'));
    assert.equal(
      await ask('PUT', '/api/v1/daemon/fuse/sendfd'),
      refusal(500, 'Upgrade(DaemonAbnormal(UpgradeManager("no supervisor is configured")))'),
    );
    assert.equal(await ask('PUT', '/api/v1/daemon/exit'), '204');
    assert.match(await ask('GET', '/api/v1/daemon'), /"state":"STOPPED"/);
    // success without action
    assert.equal(await ask('PUT', '/api/v1/daemon/exit'), '204');
  });

  it('Router: mounting is allowed before a takeover: checked and listed, shown by nobody (5.6)', async () => {
    const { ask, parts } = await fixture(false);
    const mount = (method: string): Promise<string> => ask(method, '/api/v1/mount?mountpoint=/a', RAFS);
    assert.equal(await mount('PUT'), mountError("object or filesystem doesn't exist"));
    assert.equal(await mount('POST'), '204');
    assert.equal(await mount('POST'), mountError('object or filesystem already exists'));
    assert.equal(await mount('PUT'), '204');
    assert.match(await ask('GET', '/api/v1/daemon'), /"state":"INIT","backend_collection":\{"\/a":/);
    assert.equal(await ask('DELETE', '/api/v1/mount?mountpoint=/a'), '204');
    assert.deepEqual(parts.log, ['open /b', 'open /b', 'close /b', 'close /b']);
    assert.equal(await mount('POST'), '204');
    // the takeover fails, there is no supervisor: what was listed is gone all the same
    assert.match(await ask('PUT', '/api/v1/daemon/fuse/takeover'), /^500 .*no supervisor is configured/);
    assert.match(await ask('GET', '/api/v1/daemon'), /"backend_collection":\{\}/);
    assert.equal(parts.log.at(-1), 'close /b');
    assert.equal(await mount('POST'), '204');
  });

  it('Router: blobs of a shared cache are the business of another daemon (5.11)', async () => {
    const { ask } = await fixture();
    const unsupported = (wrapper: string): string => refusal(501, `${wrapper}(DaemonAbnormal(Unsupported))`);
    assert.equal(await ask('GET', '/api/v2/blobs?domain_id=d'), unsupported('GetBlobObjects'));
    assert.equal(await ask('GET', '/api/v2/blobs?blob_id=b'), BAD_REQUEST);
    assert.equal(
      await ask('PUT', '/api/v2/blobs', '{"type":"bootstrap","id":"x"}'),
      unsupported('CreateBlobObject'),
    );
    assert.equal(
      await ask('PUT', '/api/v2/blobs', '{"id":"x"}'),
      refusal(400, 'ParseBody(Error("missing field `type`", line: 1, column: 10))'),
    );
    assert.equal(await ask('DELETE', '/api/v2/blobs?domain_id=d&blob_id=b'), unsupported('DeleteBlobObject'));
    assert.equal(await ask('DELETE', '/api/v2/blobs'), BAD_REQUEST);
  });

  it('ApiError: each kind of 5.2 in each shell has its status', () => {
    const kinds: [error: DaemonError, rendering: string, status: number][] = [
      [DaemonError.notReady(), 'NotReady', 503],
      [DaemonError.unsupported(), 'Unsupported', 501],
      [DaemonError.unexpectedEvent('Stop'), 'UnexpectedEvent("Stop")', 400],
      [DaemonError.upgradeManager('x "y"'), 'UpgradeManager("x \\"y\\"")', 500],
      [DaemonError.other('failed to start service, x'), 'Other("failed to start service, x")', 500],
    ];
    const shells: [shell: Shell, form: (inner: string) => string, always500: boolean][] = [
      ['DaemonAbnormal', (inner) => `DaemonAbnormal(${inner})`, false],
      ['MountFilesystem', (inner) => `MountFilesystem(${inner})`, false],
      ['MetricsDaemon', (inner) => `Metrics(Daemon(${inner}))`, true],
    ];
    const wrappers: Wrapper[] = [
      'Configure',
      'DaemonInfo',
      'Events',
      'Mount',
      'Upgrade',
      'BackendMetrics',
      'BlobcacheMetrics',
      'FsBackendInfo',
      'FsFilesMetrics',
      'GlobalMetrics',
      'InflightMetrics',
      'Pattern',
      'CreateBlobObject',
      'DeleteBlobObject',
      'DeleteBlobFile',
      'GetBlobObjects',
    ];
    for (const wrapper of wrappers)
      for (const [shell, form, always500] of shells)
        for (const [inner, rendering, status] of kinds) {
          const error = ApiError.wrap(wrapper, shell, inner);
          assert.deepEqual(
            [error.message, error.status],
            [`${wrapper}(${form(rendering)})`, always500 ? 500 : status],
          );
        }
  });
});
