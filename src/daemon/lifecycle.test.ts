import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createLogSink } from '../base/log-sink.ts';
import { fakeParts, type FakeParts } from './testing/fake-parts.ts';
import { runFuseDaemon, type FuseDaemonOptions } from './lifecycle.ts';

let dir: string;
let apisock: string;

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'life-'));
  apisock = join(dir, 'api.sock');
  mkdirSync(join(dir, 'mnt'));
  writeFileSync(
    join(dir, 'c.json'),
    `{"device":{"backend":{"type":"localfs","config":{"dir":"${dir}"}}},"mode":"direct","x":1}`,
  );
});
after(() => rmSync(dir, { recursive: true }));

interface Run {
  parts: FakeParts;
  log: string[];
  end: Promise<number>;
  signal: () => void;
}

function run(more: Partial<FuseDaemonOptions> = {}, parts = fakeParts()): Run {
  const log: string[] = [];
  const logger = createLogSink({
    level: 'debug',
    target: { write: (line) => void log.push(line), close: async () => {} },
  });
  const stop = new AbortController();
  const options = {
    mountpoint: join(dir, 'mnt'),
    threads: 2,
    apisock,
    rlimitNofile: 0,
    writable: false,
    ...more,
  };
  const end = runFuseDaemon(options, { parts, logger, signal: stop.signal });
  return { parts, log, end, signal: () => stop.abort() };
}

function ask(method: string, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    // no agent: it would keep the connection of an earlier daemon on this path and ask that one
    const call = request({ socketPath: apisock, method, path, agent: false }, (answer) => {
      let body = '';
      answer.on('data', (data) => (body += data));
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body }));
    });
    call.on('error', reject);
    call.end();
  });
}

async function answering(): Promise<{ status: number; body: string }> {
  for (;;) {
    if (existsSync(apisock)) return ask('GET', '/api/v1/daemon');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const image = (): Partial<FuseDaemonOptions> => ({ bootstrap: '/image', config: join(dir, 'c.json') });

describe('runFuseDaemon', () => {
  it('runFuseDaemon: the first answer is RUNNING, a signal unmounts and removes the socket', async () => {
    const { parts, log, end, signal } = run(image());
    assert.match((await answering()).body, /"state":"RUNNING","backend_collection":\{"\/":/);
    signal();
    assert.equal(await end, 0);
    assert.deepEqual(parts.log, [
      `mount ${join(dir, 'mnt')}`,
      'open /image',
      'attach /image',
      'unmount',
      'unmount',
      'close /image',
    ]);
    assert.equal(existsSync(apisock), false);
    assert.ok(log.some((line) => line.includes('configuration: unknown key `x` at line 1 is ignored')));
    assert.match(log[0] ?? '', /INFO Program Version: v/);
  });

  it('runFuseDaemon: starts empty without an image', async () => {
    const { parts, end, signal } = run({ config: '/nonsense' });
    assert.match((await answering()).body, /"state":"RUNNING","backend_collection":\{\}/);
    signal();
    assert.equal(await end, 0);
    assert.deepEqual(parts.log.slice(0, 2), [`mount ${join(dir, 'mnt')} with open`, 'unmount']);
  });

  it('runFuseDaemon: ends by itself when somebody unmounts', async () => {
    const { parts, end } = run(image());
    await answering();
    parts.kernelUnmounts();
    assert.equal(await end, 0);
    assert.equal(existsSync(apisock), false);
    assert.equal(parts.log.at(-1), 'close /image');
  });

  it('runFuseDaemon: an exit request is answered, and leaves the mount', async () => {
    const { parts, end } = run(image());
    await answering();
    assert.deepEqual(await ask('PUT', '/api/v1/daemon/exit'), { status: 204, body: '' });
    assert.equal(await end, 0);
    assert.ok(parts.log.includes('stop') && !parts.log.includes('unmount'));
    assert.equal(existsSync(apisock), false);
  });

  it('runFuseDaemon: a signal during start-up is not lost', async () => {
    const { parts, end, signal } = run(image());
    signal();
    assert.equal(await end, 0);
    assert.ok(parts.log.includes('unmount'));
  });

  it('runFuseDaemon: what fails at start leaves no mount and no socket', async () => {
    const broken = fakeParts();
    broken.openError = new Error('broken image');
    const first = run(image(), broken);
    await assert.rejects(first.end, { message: 'cannot open /image: broken image', exitCode: 1 });
    assert.deepEqual(broken.log, [`mount ${join(dir, 'mnt')}`, 'unmount']);

    const second = run({ ...image(), apisock: join(dir, 'none', 'api.sock') });
    await assert.rejects(second.end, /cannot listen on/);
    assert.ok(second.parts.log.includes('unmount') && second.parts.log.includes('close /image'));

    const third = run({ mountpoint: join(dir, 'none') });
    await assert.rejects(third.end, { exitCode: 1, hint: /mkdir -p/ });
    assert.deepEqual(third.parts.log, []);
    assert.equal(existsSync(apisock), false);
  });
});
