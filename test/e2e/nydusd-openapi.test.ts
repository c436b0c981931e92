// docs/openapi.json against a running daemon: every route is in the document, and every answer has the shape it promises.
// The Prometheus text and the dashboard that reads it are looked at in the same run.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { silentLogger } from '../../src/base/log.ts';
import { Daemon as DaemonState } from '../../src/daemon/daemon.ts';
import { operations } from '../../src/daemon/openapi.ts';
import { Router } from '../../src/daemon/router.ts';
import { fakeParts } from '../../src/daemon/testing/fake-parts.ts';
import { BlobServer } from '../support/blob-server.ts';
import { apiRequest, localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { launch } from '../support/failover.ts';
import { firstReason, repoRoot, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { unmountBelow } from '../support/temporary.ts';

interface Document {
  paths: Record<string, Record<string, { responses: Record<string, Content> }>>;
}
interface Content {
  content?: Record<string, { schema: object }>;
}

const document = JSON.parse(readFileSync(join(repoRoot, 'docs/openapi.json'), 'utf8')) as Document;
const ajv = new Ajv2020({ strict: false });
ajv.addSchema(document, 'api');

/** Every answer that came: `GET /api/v1/daemon 200`. */
const seen = new Set<string>();

/** Problem of an answer, undefined when it is as the document says. */
function problem(method: string, path: string, status: number, body: string): string | undefined {
  const route = path.split('?')[0] ?? '';
  seen.add(`${method} ${route} ${status}`);
  const promised = document.paths[route]?.[method.toLowerCase()]?.responses[status];
  if (promised === undefined) return `status ${status} is not in the document: ${body}`;
  const schema = promised.content?.['application/json']?.schema;
  if (schema === undefined)
    return body === '' || promised.content !== undefined ? undefined : `unexpected body ${body}`;
  const text = JSON.stringify(schema).replaceAll('"#/', '"api#/');
  const validate = ajv.compile(JSON.parse(text) as object);
  return validate(JSON.parse(body)) ? undefined : `${body}: ${ajv.errorsText(validate.errors)}`;
}

type Call = [method: string, path: string, body?: string | undefined];

/** Send requests one after another; fails with all answers that are not as the document says. */
async function askAll(daemon: Daemon, calls: readonly Call[]): Promise<void> {
  const problems: string[] = [];
  for (const [method, path, body] of calls) {
    const answer = await apiRequest(daemon.apisock, method, path, body);
    const found = problem(method, path, answer.status, answer.body);
    if (found !== undefined) problems.push(`${method} ${path}: ${found}`);
  }
  assert.deepEqual(problems, [], daemon.log);
}

describe('docs/openapi.json', () => {
  it('names exactly the routes of the router', () => {
    const daemon = new DaemonState({ parts: fakeParts(), logger: { ...silentLogger, level: 'info' } });
    const router = new Router(daemon as unknown as DaemonState, () => {});
    assert.deepEqual(Object.keys(operations).sort(), router.routes().sort());
  });
});

describe('the API of a running daemon', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  let daemon: Daemon;
  let work = '';

  before(async () => {
    work = tempDir();
    for (const dir of ['tree', 'blobs']) mkdirSync(join(work, dir));
    writeFileSync(join(work, 'tree/file'), Buffer.alloc(50_000, 'x'));
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: work });
    const more = { iostats_files: true, access_pattern: true, latest_read_files: true };
    const config = localConfig(join(work, 'blobs'), join(work, 'cache'), more);
    daemon = await startDaemon({ workDir: join(work, 'd'), bootstrap: join(work, 'boot'), config });
    assert.equal(readFileSync(join(daemon.mountpoint, 'file')).length, 50_000);
  });
  after(() => daemon[Symbol.asyncDispose]());

  const mount = (): string =>
    JSON.stringify({ fs_type: 'rafs', source: join(work, 'boot'), config: '{"broken"' });

  it('every answer has the shape that docs/openapi.json promises', async () => {
    const calls: Call[] = [
      ['GET', '/api/v1/daemon'],
      ['GET', '/api/v2/daemon'],
      ['PUT', '/api/v1/daemon', '{"log_level":"info"}'],
      ['PUT', '/api/v1/daemon', '{"log_level":7}'],
      ['PUT', '/api/v1/daemon', '{"log_level":"nosuch"}'],
      ['PUT', '/api/v2/daemon', '{"log_level":"nosuch"}'],
      ['GET', '/api/v1/daemon/events'],
      ['GET', '/api/v1/daemon/backend?mountpoint=/'],
      ['GET', '/api/v1/daemon/backend'],
      ['PUT', '/api/v1/daemon/start'],
      ['PUT', '/api/v1/daemon/fuse/takeover'],
      ['POST', '/api/v1/mount?mountpoint=/', mount()],
      ['PUT', '/api/v1/mount?mountpoint=/none', mount()],
      ['DELETE', '/api/v1/mount?mountpoint=/none'],
      ['GET', '/api/v1/metrics'],
      ['GET', '/api/v1/metrics?id=/none'],
      ['GET', '/api/v1/metrics/files'],
      ['GET', '/api/v1/metrics/files?latest=true'],
      ['GET', '/api/v1/metrics/pattern'],
      ['GET', '/api/v1/metrics/backend'],
      ['GET', '/api/v1/metrics/blobcache'],
      ['GET', '/api/v1/metrics/inflight'],
      ['GET', '/api/v1/metrics/files?id=/none'],
      ['GET', '/api/v1/metrics/pattern?id=/none'],
      ['GET', '/api/v1/metrics/backend?id=/none'],
      ['GET', '/api/v1/metrics/blobcache?id=/none'],
      ['GET', '/api/v1/daemon/backend?mountpoint=/none'],
      ['PUT', '/api/v2/daemon', '{"log_level":"info"}'],
      ['PUT', '/api/v2/blobs', '{}'],
      ['DELETE', '/api/v2/blobs'],
      ['DELETE', '/api/v2/blobs?blob_id=b'],
      ['PUT', '/api/v1/daemon/fuse/sendfd'],
      ['GET', '/api/v1/config'],
      ['PUT', '/api/v1/config?id=/', '{"registry_auth":"eDp5"}'],
      ['PUT', '/api/v1/config', '{"nosuch":"x"}'],
      ['GET', '/api/v2/blobs?domain_id=x'],
      ['GET', '/api/v2/blobs'],
      ['PUT', '/api/v2/blobs', '{"type":"bootstrap","id":"x"}'],
      ['DELETE', '/api/v2/blobs?domain_id=x'],
      ['GET', '/metrics'],
    ];
    await askAll(daemon, calls);
  });

  it('what is malformed is answered as the document says at every endpoint', async () => {
    const calls = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method): Call => {
        const takesBody = operations[`${method.toUpperCase()} ${path}`]?.body !== undefined;
        return [method.toUpperCase(), `${path}?mountpoint=/`, takesBody ? undefined : '{}'];
      }),
    );
    await askAll(daemon, calls);
  });

  it('mounting, unmounting and requests in flight', async (t) => {
    const server = await BlobServer.start(t, { find: () => undefined });
    const held = new Promise<void>((resolve) => (server.always = () => resolve()));
    const device = {
      backend: { type: 'http-proxy', 'http-proxy': { addr: `http://${server.host}`, timeout: 3600 } },
      cache: { type: 'blobcache', filecache: { work_dir: join(work, 'stalled') } },
    };
    mkdirSync(join(work, 'stalled'));
    // the tables of a v5 image are in its bootstrap: nothing is asked for before the first read
    nydusImage(['create', '-v', '5', '--blob-dir', 'blobs', '--bootstrap', 'boot5', 'tree'], { cwd: work });
    const config = JSON.stringify({ version: 2, ...device, rafs: { mode: 'direct' } });
    const body = JSON.stringify({ fs_type: 'rafs', source: join(work, 'boot5'), config });
    await using empty = await startDaemon({ workDir: join(work, 'empty') });
    await askAll(empty, [
      ['GET', '/api/v1/metrics'],
      ['POST', '/api/v1/mount?mountpoint=/stalled', body],
    ]);
    const reader = spawn('cat', [join(empty.mountpoint, 'stalled/file')], { stdio: 'ignore' });
    t.after(() => reader.kill('SIGKILL'));
    await held;
    await askAll(empty, [['GET', '/api/v1/metrics/inflight']]);
    reader.kill('SIGKILL');
    await askAll(empty, [
      ['PUT', '/api/v1/mount?mountpoint=/stalled', body],
      ['DELETE', '/api/v1/mount?mountpoint=/stalled'],
    ]);
  });

  it('a hot upgrade, and what is wrong at each of its steps', async (t) => {
    const supervisor = new Supervisor(join(work, 'sup.sock'));
    t.after(() => supervisor.close());
    const mountpoint = join(work, 'upgraded');
    mkdirSync(mountpoint);
    t.after(() => unmountBelow(mountpoint));
    const start = async (n: number, ...more: string[]): Promise<Daemon> => {
      const args = ['--id', 'up', '--supervisor', supervisor.path, ...more];
      const { daemon: started } = await launch({ dir: work, mountpoint, socket: `up${n}.sock`, args });
      t.after(() => started.child.kill('SIGKILL'));
      return started;
    };
    const old = await start(0);
    const saved = supervisor.receive();
    await askAll(old, [['PUT', '/api/v1/daemon/fuse/sendfd']]);
    await saved;
    const lost = await start(1, '--upgrade');
    await askAll(lost, [
      ['PUT', '/api/v1/daemon/fuse/sendfd'],
      [
        'POST',
        '/api/v1/mount?mountpoint=/',
        JSON.stringify({ fs_type: 'passthrough_fs', source: work, config: '' }),
      ],
      ['PUT', '/api/v1/daemon/fuse/takeover'],
    ]);
    const next = await start(2, '--upgrade');
    const given = supervisor.send();
    await askAll(next, [['PUT', '/api/v1/daemon/fuse/takeover']]);
    await given;
    await askAll(old, [['PUT', '/api/v1/daemon/exit']]);
    assert.equal(await old.ended, 0, old.log);
    await askAll(next, [['PUT', '/api/v1/daemon/start']]);
    assert.equal(await next.stop(), 0, next.log);
  });

  it('every status that the document promises was seen', () => {
    const promised = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, { responses }]) =>
        Object.keys(responses).map((status) => `${method.toUpperCase()} ${path} ${status}`),
      ),
    );
    assert.deepEqual(
      promised.filter((each) => !seen.has(each) && !each.endsWith(' default')),
      [],
    );
  });

  it('GET /metrics: counts what was read, and has every metric that the dashboard shows', async () => {
    const { body } = await apiRequest(daemon.apisock, 'GET', '/metrics');
    assert.match(body, /^nydusd_fs_read_bytes_total\{mountpoint="\/"\} 50000$/m);
    assert.match(body, /^nydusd_state\{state="RUNNING"\} 1$/m);
    assert.match(body, /^nydusd_backend_requests_total\{mountpoint="\/",backend="localfs"\} [1-9]\d*$/m);
    const dashboard = readFileSync(join(repoRoot, 'docs/grafana-dashboard.json'), 'utf8');
    const shown = new Set(dashboard.match(/\b(?:nydusd|process)_[a-z_]+/g));
    assert.ok(shown.size > 12, 'the dashboard shows metrics');
    for (const name of shown) assert.match(body, new RegExp(`^${name}[{ ]`, 'm'));
  });
});
