import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../base/log.ts';
import type { ApiResponse } from './api-error.ts';
import { removeStaleSocket, startApiServer, type ApiServer } from './http-server.ts';
import type { ApiRequest } from './router.ts';

let dir: string;
let path: string;
let api: ApiServer;
const requests: ApiRequest[] = [];
let gate = Promise.resolve();

async function handle(request: ApiRequest): Promise<ApiResponse> {
  requests.push(request);
  if (request.target === '/slow') await gate;
  if (request.target === '/throws') throw new Error('broken');
  return request.method === 'GET' ? { status: 200, body: '{"a":"é"}' } : { status: 204 };
}

before(async () => {
  dir = mkdtempSync(join(tmpdir(), 'api-'));
  path = join(dir, 'api.sock');
  api = await startApiServer({ path, handle, logger: silentLogger });
});

after(async () => {
  await api.close();
  assert.equal(existsSync(path), false);
  rmSync(dir, { recursive: true });
});

function open(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.on('error', reject);
  });
}

/** Everything the server sends in answer to `bytes` until `enough`, or until it hangs up. */
async function talk(bytes: string, enough: RegExp): Promise<string> {
  const socket = await open();
  let text = '';
  return new Promise((resolve) => {
    const done = (): void => {
      socket.destroy();
      resolve(text);
    };
    socket.on('data', (data) => {
      text += data.toString();
      if (enough.test(text)) done();
    });
    socket.on('close', done);
    socket.on('error', done);
    socket.write(bytes);
  });
}

const OK =
  'HTTP/1.1 200 \r\nServer: Nydus API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"a":"é"}';

describe('startApiServer', () => {
  it('startApiServer: sends exactly the header lines of golden/api', async () => {
    assert.equal(await talk('GET /x HTTP/1.1\r\n\r\n', /\}$/), OK);
    assert.equal(await talk('GET /x HTTP/1.0\r\n\r\n', /\}$/), OK);
    assert.equal(
      await talk('PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}', /\r\n\r\n/),
      'HTTP/1.1 204 \r\nServer: Nydus API\r\nConnection: keep-alive\r\n\r\n',
    );
  });

  it('startApiServer: has no time-out of any kind', () => {
    const { server } = api;
    assert.deepEqual(
      [server.headersTimeout, server.requestTimeout, server.keepAliveTimeout, server.timeout],
      [0, 0, 0, 0],
    );
  });

  it('startApiServer: a silent connection stays open, and so does one after its answer', async () => {
    const silent = await open();
    const used = await open();
    let closed = 0;
    silent.on('close', () => closed++);
    used.on('close', () => closed++);
    used.write('GET /x HTTP/1.1\r\n\r\n');
    await sleep(3000);
    assert.equal(closed, 0);
    used.write('GET /x HTTP/1.1\r\n\r\n');
    await new Promise((resolve) => used.once('data', resolve));
    silent.destroy();
    used.destroy();
  });

  it('startApiServer: answers pipelined requests in order', async () => {
    assert.equal(await talk('GET /x HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n', /\}HTTP.*\}$/s), OK + OK);
  });

  it('startApiServer: one connection asks as often as it likes, but not for more than 64 answers at once', async () => {
    const all = await talk('GET /x HTTP/1.1\r\n\r\n'.repeat(64), new RegExp(`^(?:[^]*?\\}){64}$`));
    assert.equal(all, OK.repeat(64));
    const patient = await open();
    for (let n = 0; n < 200; n++) {
      const answered = new Promise((resolve) => patient.once('data', resolve));
      patient.write('GET /x HTTP/1.1\r\n\r\n');
      await answered;
    }
    patient.destroy();
    requests.length = 0;
    const greedy = await talk('GET /x HTTP/1.1\r\n\r\n'.repeat(1000), /never/);
    assert.ok(greedy.length <= OK.length * 64, `${greedy.length} bytes`);
    assert.ok(requests.length <= 64, `${requests.length} requests`);
  });

  it('startApiServer: honours Expect: 100-continue and Connection: close', async () => {
    const text = await talk(
      'PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}',
      /204 [^]*\r\n\r\n/,
    );
    assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 204 \r\n/);
    assert.match(
      await talk('GET /x HTTP/1.1\r\nConnection: close\r\n\r\n', /never/),
      /\r\nConnection: close\r\n/,
    );
  });

  it('startApiServer: bodies up to 51200 bytes arrive, larger ones are refused before they are read', async () => {
    requests.length = 0;
    const body = ' '.repeat(51200);
    assert.match(await talk(`PUT /x HTTP/1.1\r\nContent-Length: 51200\r\n\r\n${body}`, /\r\n\r\n/), / 204 /);
    assert.equal(requests[0]?.body?.length, 51200);
    assert.match(
      await talk('PUT /x HTTP/1.1\r\nContent-Length: 51201\r\n\r\n', /\}$/),
      /^HTTP\/1\.1 400 \r\n[^]*\{ "error": "Request payload with size 51201 is larger than the limit of 51200 allowed by server\.\nAll previous unanswered requests will be dropped\." \}$/,
    );
    const chunk = `4000\r\n${' '.repeat(0x4000)}\r\n`;
    const chunked = `PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(4)}0\r\n\r\n`;
    assert.match(await talk(chunked, /\}$/), /^HTTP\/1\.1 400 /);
    assert.equal(requests.length, 1);
  });

  it('startApiServer: an absent body and an empty one are the same', async () => {
    requests.length = 0;
    await talk('PUT /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n', /\r\n\r\n/);
    await talk('PUT /x HTTP/1.1\r\n\r\n', /\r\n\r\n/);
    assert.deepEqual(
      requests.map((request) => request.body),
      [null, null],
    );
  });

  it('startApiServer: what is no HTTP is answered 400 and hung up on', async () => {
    const cases: [bytes: string, problem: string][] = [
      ['\x16\x03\x01\x02\x00 nonsense\r\n\r\n', 'Invalid request.'],
      ['get /x HTTP/1.1\r\n\r\n', 'Invalid HTTP Method: Unsupported HTTP method.'],
      ['OPTIONS /x HTTP/1.1\r\n\r\n', 'Invalid HTTP Method: Unsupported HTTP method.'],
      ['GET /x HTTP/2.0\r\n\r\n', 'Invalid HTTP Version: Unsupported HTTP version.'],
      ['GET /x HTTP/1.1\r\nfoo\r\n\r\n', 'Invalid header. Reason: Header is incorrectly formatted.'],
      [
        'PUT /x HTTP/1.1\r\nContent-Length: x\r\n\r\n',
        'Invalid header. Reason: Invalid value. Key:Content-Length.',
      ],
      [
        `GET /x HTTP/1.1\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`,
        'Invalid header. Reason: Invalid content length.',
      ],
    ];
    for (const [bytes, problem] of cases) {
      const text = await talk(bytes, /never/);
      assert.ok(text.startsWith('HTTP/1.1 400 \r\n'), `${problem}: ${text}`);
      assert.ok(text.includes(`{ "error": "${problem}\n`), `${problem}: ${text}`);
    }
  });

  it('startApiServer: slow requests and a handler that takes its time do not hold up others', async () => {
    const half = await open();
    half.write('PUT /x HTTP/1.1\r\nContent-Length: 100\r\n\r\n{');
    let release = (): void => {};
    gate = new Promise((resolve) => (release = resolve));
    const slow = talk('GET /slow HTTP/1.1\r\n\r\n', /\}$/);
    const idle = await Promise.all(Array.from({ length: 60 }, open));
    assert.equal(await talk('GET /x HTTP/1.1\r\n\r\n', /\}$/), OK);
    release();
    assert.equal(await slow, OK);
    for (const socket of [half, ...idle]) socket.destroy();
    assert.equal(await talk('GET /x HTTP/1.1\r\n\r\n', /\}$/), OK);
  });

  it('startApiServer: a handler that throws is a 500, not the end', async () => {
    assert.match(await talk('GET /throws HTTP/1.1\r\n\r\n', /\}$/), /^HTTP\/1\.1 500 /);
    assert.equal(await talk('GET /x HTTP/1.1\r\n\r\n', /\}$/), OK);
  });

  it('startApiServer: an unusable path is a usage error with the next step', async () => {
    const start = (socket: string): Promise<ApiServer> =>
      startApiServer({ path: socket, handle, logger: silentLogger });
    await assert.rejects(start(join(dir, 'no', 'api.sock')), {
      code: 'ERR_NYDUS_USAGE',
      exitCode: 1,
      hint: `create its directory first: mkdir -p ${join(dir, 'no')}`,
    });
    await assert.rejects(start(`/tmp/${'x'.repeat(110)}`), { hint: /at most 107 bytes/ });
  });
});

describe('removeStaleSocket', () => {
  it('removeStaleSocket: removes a socket nobody listens on, and no other file', async () => {
    const stale = join(dir, 'stale.sock');
    const server = createServer().listen(stale);
    await new Promise((resolve) => server.once('listening', resolve));
    removeStaleSocket(stale);
    assert.equal(existsSync(stale), false);
    server.close();
    removeStaleSocket(stale);
    const file = join(dir, 'file');
    writeFileSync(file, 'precious');
    assert.throws(() => removeStaleSocket(file), { message: `${file} exists and is not a socket` });
    assert.equal(existsSync(file), true);
  });

  it('startApiServer: says so when it takes the socket of a daemon that lives', async () => {
    const taken = join(dir, 'taken.sock');
    const warnings: string[] = [];
    const logger = { ...silentLogger, warn: (text: string) => void warnings.push(text) };
    const first = await startApiServer({ path: taken, handle, logger });
    assert.deepEqual(warnings, []);
    const second = await startApiServer({ path: taken, handle, logger });
    assert.deepEqual(warnings, [
      `another daemon listens on ${taken}: from now on nobody reaches it; give each its own --apisock`,
    ]);
    await second.close();
    await first.close();
  });

  it('startApiServer: listens where a dead daemon left its socket', async () => {
    const other = join(dir, 'left.sock');
    const dead = createServer().listen(other);
    await new Promise((resolve) => dead.once('listening', resolve));
    const fresh = await startApiServer({ path: other, handle, logger: silentLogger });
    await fresh.close();
    dead.close();
  });
});
