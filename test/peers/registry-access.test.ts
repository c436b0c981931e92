// Debian's docker-registry with every way of access that our client knows: htpasswd, TLS with a private CA, signed tokens.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createPrivateKey, randomBytes, sign, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import type { TransportOptions } from '../../src/registry/transport.ts';
import { findProgram, firstReason, requirePeer } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

const credentials = fixedCredentials({ username: 'user', password: 'pa:ss' });
/** bcrypt of `pa:ss`, as htpasswd writes it */
const HTPASSWD = 'user:$2b$04$SXFTzptYbk7k9t9gq78qLeWs/iNwQMk8HSZuxwLk1Ojb5zNLz/71G\n';
const skip = firstReason(requirePeer('docker-registry'), requirePeer('openssl'));

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** Start docker-registry with more lines of configuration. @returns host:port */
async function dockerRegistry(t: TestContext, dir: string, more: string[], tls = ''): Promise<string> {
  const port = await freePort();
  const http = `http: {addr: "127.0.0.1:${port}"${tls}}`;
  const config = ['version: 0.1', `storage: {filesystem: {rootdirectory: ${dir}/data}}`, http, ...more];
  writeFileSync(join(dir, 'config.yml'), config.join('\n'));
  const program = findProgram('docker-registry') ?? '';
  const child = spawn(program, ['serve', join(dir, 'config.yml')], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  while (child.exitCode === null) {
    if (await answers(port)) return `127.0.0.1:${port}`;
    await sleep(20);
  }
  throw new Error(`docker-registry ended with ${child.exitCode}`);
}

function makeCertificate(dir: string): { keyFile: string; certFile: string } {
  const [keyFile, certFile] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  const key = '-newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1';
  const args = ['req', '-x509', ...key.split(' '), '-keyout', keyFile, '-out', certFile];
  assert.equal(spawnSync('openssl', args).status, 0);
  return { keyFile, certFile };
}

/** A token server for docker-registry: tokens signed with RS256, the certificate in their header. @returns realm */
async function tokenServer(
  t: TestContext,
  keyFile: string,
  certFile: string,
  seen: string[],
): Promise<string> {
  const key = createPrivateKey(readFileSync(keyFile));
  const der = new X509Certificate(readFileSync(certFile)).raw.toString('base64');
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const server = createHttpServer((request, response) => {
    const scopes = new URL(request.url ?? '', 'http://x').searchParams.getAll('scope');
    seen.push(scopes.join(' '));
    if (request.headers.authorization !== `Basic ${Buffer.from('user:pa:ss').toString('base64')}`) {
      return void response.writeHead(401).end();
    }
    const now = Math.floor(Date.now() / 1000);
    const access = scopes.map((scope) => {
      const [type, name, actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',') };
    });
    const claims = {
      iss: 'test',
      sub: 'user',
      aud: 'svc',
      exp: now + 300,
      nbf: now - 5,
      iat: now,
      jti: 'x',
      access,
    };
    const text = `${part({ typ: 'JWT', alg: 'RS256', x5c: [der] })}.${part(claims)}`;
    const token = `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
    return void response
      .setHeader('Content-Type', 'application/json')
      .end(JSON.stringify({ token, expires_in: 2 }));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
}

/** Push, mount and read. */
async function roundTrip(t: TestContext, options: TransportOptions): Promise<RegistryTransport> {
  const transport = new RegistryTransport(options);
  t.after(() => transport.close());
  const data = randomBytes(300_000);
  const { digest } = await new Repository(transport, 'lib/app').pushBytes(data);
  const other = new Repository(transport, 'lib/other');
  const open = async function* (): AsyncGenerator<Uint8Array> {
    yield data;
  };
  const end = await other.pushBlob({ digest, size: data.length, open }, { mountFrom: ['lib/app'] });
  assert.equal(end, 'mounted');
  assert.ok((await other.blobRange(digest, 7, 70_000)).equals(data.subarray(7, 70_000)));
  return transport;
}

test('RegistryTransport: docker-registry with htpasswd', { skip }, async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'htpasswd'), HTPASSWD);
  const host = await dockerRegistry(t, dir, [`auth: {htpasswd: {realm: test, path: ${dir}/htpasswd}}`]);
  await roundTrip(t, { host, credentials });
  await assert.rejects(roundTrip(t, { host }), { status: 401, hint: `docker login ${host}` });
});

test('RegistryTransport: docker-registry with TLS and a private CA', { skip }, async (t) => {
  const dir = tempDir(t);
  const { keyFile, certFile } = makeCertificate(dir);
  const host = await dockerRegistry(t, dir, [], `, tls: {certificate: ${certFile}, key: ${keyFile}}`);
  const transport = await roundTrip(t, { host, ca: [readFileSync(certFile, 'utf8')] });
  assert.equal(transport.scheme, 'https');
  await assert.rejects(roundTrip(t, { host, attempts: 1 }), { message: /certificate is not trusted/ });
});

test('RegistryTransport: docker-registry with tokens that end after 2 s', { skip }, async (t) => {
  const dir = tempDir(t);
  const { keyFile, certFile } = makeCertificate(dir);
  const seen: string[] = [];
  const realm = await tokenServer(t, keyFile, certFile, seen);
  const auth = `auth: {token: {realm: "${realm}", service: svc, issuer: test, rootcertbundle: ${certFile}}}`;
  const host = await dockerRegistry(t, dir, [auth]);
  const transport = await roundTrip(t, { host, credentials });
  assert.ok(seen.includes('repository:lib/app:pull,push'), seen.join('; '));
  assert.ok(seen.includes('repository:lib/app:pull repository:lib/other:pull,push'), seen.join('; '));
  const other = new Repository(transport, 'lib/other');
  await other.findManifest('v1');
  const before = seen.length;
  await sleep(2100);
  await other.findManifest('v1');
  assert.equal(seen.length, before + 1);
});
