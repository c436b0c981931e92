// Debian's docker-registry as a process of a test, with certificates and a token server.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createPrivateKey, sign, X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram } from './prerequisites.ts';

/** User `user`, bcrypt of `pa:ss`, as htpasswd writes it. */
export const HTPASSWD = 'user:$2b$04$SXFTzptYbk7k9t9gq78qLeWs/iNwQMk8HSZuxwLk1Ojb5zNLz/71G\n';

export const PASSWORD = 'pa:ss';
/** User and password as a docker configuration has them. */
export const AUTH = Buffer.from(`user:${PASSWORD}`).toString('base64');

/** A docker configuration. @returns the environment that names it */
export function login(work: string, host: string, auth = AUTH): { DOCKER_CONFIG: string } {
  const dir = mkdtempSync(join(work, 'docker-'));
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
  return { DOCKER_CONFIG: dir };
}

/** What a registry is configured with that lets in that user alone. */
export function passwordAuth(dir: string): string {
  writeFileSync(join(dir, 'htpasswd'), HTPASSWD);
  return `auth: {htpasswd: {realm: test, path: ${dir}/htpasswd}}`;
}

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
export async function dockerRegistry(t: TestContext, dir: string, more: string[], tls = ''): Promise<string> {
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

/** A certificate for 127.0.0.1 that signed itself. */
export function makeCertificate(dir: string): { keyFile: string; certFile: string } {
  const [keyFile, certFile] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  const key = '-newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1';
  const args = ['req', '-x509', ...key.split(' '), '-keyout', keyFile, '-out', certFile];
  assert.equal(spawnSync('openssl', args).status, 0);
  return { keyFile, certFile };
}

/**
 * A token server for docker-registry: tokens signed with RS256, the certificate in their header, good for 2 s. User `user` with
 * password `pa:ss`.
 *
 * @param seen takes the scopes of each request
 * @returns realm
 */
export async function tokenServer(
  t: TestContext,
  keyFile: string,
  certFile: string,
  seen: string[],
): Promise<string> {
  const key = createPrivateKey(readFileSync(keyFile));
  const der = new X509Certificate(readFileSync(certFile)).raw.toString('base64');
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    // nydusd asks by POST, with a form
    const form = request.method === 'POST' ? await text(request) : '';
    const asked =
      form === '' ? new URL(request.url ?? '', 'http://x').searchParams : new URLSearchParams(form);
    const scopes = asked.getAll('scope').flatMap((scope) => scope.split(' '));
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
    const signed = `${part({ typ: 'JWT', alg: 'RS256', x5c: [der] })}.${part(claims)}`;
    const token = `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`;
    return void response
      .setHeader('Content-Type', 'application/json')
      .end(JSON.stringify({ token, expires_in: 2 }));
  };
  const server = createHttpServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
}
