// Backends against servers that others wrote: blobs of nginx, and squid as the proxy between.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { HttpProxyBackend, readHttpProxyConfig } from '../../src/storage/backend/http-proxy.ts';
import { backendSuite, SUITE_BLOB, SUITE_BLOB_ID } from '../conformance/backend-suite.ts';
import { findProgram, firstReason, requirePeer } from '../support/prerequisites.ts';
import { tempDir, type AfterHook } from '../support/temporary.ts';

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => void server.close(resolve));
  return port;
}

/** Wait until somebody listens. @throws Error when the program ends before */
async function listening(child: ChildProcess, port: number, log: string): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended\n${readFileSync(log, 'utf8')}`);
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function start(
  t: AfterHook,
  program: string,
  args: string[],
  port: number,
  log: string,
): Promise<ChildProcess> {
  writeFileSync(log, '', { flag: 'a' });
  const child = spawn(findProgram(program) ?? program, args, { stdio: 'ignore' });
  const ended = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await listening(child, port, log);
  return child;
}

/** nginx with the suite's blob in /blobs. */
async function nginx(t: AfterHook): Promise<number> {
  const dir = tempDir(t);
  chmodSync(dir, 0o755);
  mkdirSync(join(dir, 'blobs'));
  writeFileSync(join(dir, 'blobs', SUITE_BLOB_ID), SUITE_BLOB);
  const port = await freePort();
  const log = join(dir, 'error.log');
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${dir}/${name};`,
  );
  writeFileSync(
    join(dir, 'nginx.conf'),
    `daemon off; master_process off; pid ${dir}/pid; error_log ${log};
     events {} http { access_log off; ${temp.join(' ')}
     server { listen 127.0.0.1:${port}; root ${dir}; } }`,
  );
  await start(t, 'nginx', ['-c', join(dir, 'nginx.conf'), '-e', log], port, log);
  return port;
}

/** squid, for every destination. @returns its port and its access log */
async function squid(t: AfterHook): Promise<{ port: number; log: string }> {
  const dir = tempDir(t);
  chmodSync(dir, 0o777);
  const port = await freePort();
  const log = join(dir, 'cache.log');
  const access = join(dir, 'access.log');
  writeFileSync(
    join(dir, 'squid.conf'),
    [
      `http_port 127.0.0.1:${port}`,
      'http_access allow all',
      'cache deny all',
      `access_log stdio:${access}`,
      `cache_log ${log}`,
      `pid_filename ${dir}/pid`,
      `coredump_dir ${dir}`,
      'pinger_enable off',
      'shutdown_lifetime 0 seconds',
      'max_filedescriptors 1024',
    ].join('\n'),
  );
  await start(t, 'squid', ['-N', '-f', join(dir, 'squid.conf')], port, log);
  return { port, log: access };
}

function open(t: AfterHook, section: object): HttpProxyBackend {
  const backend = new HttpProxyBackend(readHttpProxyConfig({ path: '/blobs', ...section }), silentLogger, {
    env: {},
  });
  t.after(() => void backend.close());
  return backend;
}

const noNginx = requirePeer('nginx');
const noSquid = firstReason(noNginx, requirePeer('squid'));

if (noNginx === false) {
  backendSuite('http-proxy backend on nginx', async (t) =>
    open(t, { addr: `http://127.0.0.1:${await nginx(t)}` }),
  );
}

test(
  'HttpProxyBackend: reads nginx through squid, and without squid when it dies',
  { skip: noSquid },
  async (t) => {
    const origin = await nginx(t);
    const { port, log } = await squid(t);
    const settings = { ping_url: '', check_interval: 5, use_http: false, check_pause_elapsed: 300 };
    const proxy = { ...settings, url: `http://127.0.0.1:${port}`, dragonfly_scheduler_endpoint: '' };
    const addr = `http://127.0.0.1:${origin}`;
    const strict = open(t, { addr, proxy: { ...proxy, fallback: false } });
    const reader = await strict.open(SUITE_BLOB_ID);
    assert.equal(await reader.size(), SUITE_BLOB.length);
    const parts = await Promise.all(Array.from({ length: 30 }, (_, i) => reader.read(i * 10_000, 10_000)));
    assert.ok(Buffer.concat(parts).equals(SUITE_BLOB));
    await assert.rejects((await strict.open('b'.repeat(64))).read(0, 1), { message: /status 404$/ });
    await strict.close();
    const lines = readFileSync(log, 'utf8').trim().split('\n');
    assert.ok(
      lines.filter((line) => line.includes(`GET ${addr}/blobs/${SUITE_BLOB_ID}`)).length >= 30,
      lines.at(-1) ?? '',
    );
    const dead = open(t, {
      addr,
      proxy: { ...proxy, url: `http://127.0.0.1:${await freePort()}`, fallback: true },
    });
    const bytes = await (await dead.open(SUITE_BLOB_ID)).read(0, 300_000);
    assert.ok(Buffer.from(bytes).equals(SUITE_BLOB));
  },
);
