import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { DockerCredentials } from './credentials.ts';
import type { HelperEnd } from './credentials.ts';

const pair = (text: string): string => Buffer.from(text).toString('base64');

function make(
  t: TestContext,
  config: unknown,
  run?: (program: string, server: string) => Promise<HelperEnd>,
): DockerCredentials {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config));
  return new DockerCredentials({ env: { DOCKER_CONFIG: dir }, ...(run === undefined ? {} : { run }) });
}

test('DockerCredentials: auths by host, by URL, of Docker Hub, and identity tokens', async (t) => {
  const docker = make(t, {
    auths: {
      'h:5000': { auth: pair('user:pa:ss') },
      'https://b.io/v1/': { username: 'u', password: 'p' },
      'https://index.docker.io/v1/': { auth: pair('hub:x') },
      'c.io': { auth: pair('ignored:x'), identitytoken: 'T' },
      'd.io': {},
    },
  });
  assert.deepEqual(await docker.lookup('h:5000'), { username: 'user', password: 'pa:ss' });
  assert.deepEqual(await docker.lookup('b.io'), { username: 'u', password: 'p' });
  assert.deepEqual(await docker.lookup('docker.io'), { username: 'hub', password: 'x' });
  assert.deepEqual(await docker.lookup('c.io'), { identityToken: 'T' });
  assert.equal(await docker.lookup('d.io'), undefined);
  assert.equal(await docker.lookup('h'), undefined);
});

test('DockerCredentials: no file, no credentials', async (t) => {
  const docker = new DockerCredentials({ env: { HOME: tempDir(t) } });
  assert.equal(await docker.lookup('h'), undefined);
});

test('DockerCredentials: helpers by host come before the store, the store before auths', async (t) => {
  const asked: string[] = [];
  const run = (program: string, server: string): Promise<HelperEnd> => {
    asked.push(`${program} ${server}`);
    if (server === 'c.io')
      return Promise.resolve({ status: 1, stdout: 'credentials not found in native keychain\n' });
    const Username = server === 'token.io' ? '<token>' : 'u';
    return Promise.resolve({ status: 0, stdout: JSON.stringify({ Username, Secret: 's' }) });
  };
  const config = {
    credsStore: 'store',
    credHelpers: { 'a.io': 'one' },
    auths: { 'c.io': { auth: pair('x:y') } },
  };
  const docker = make(t, config, run);
  assert.deepEqual(await docker.lookup('a.io'), { username: 'u', password: 's' });
  assert.deepEqual(await docker.lookup('a.io'), { username: 'u', password: 's' });
  assert.deepEqual(await docker.lookup('docker.io'), { username: 'u', password: 's' });
  assert.deepEqual(await docker.lookup('token.io'), { identityToken: 's' });
  assert.deepEqual(await docker.lookup('c.io'), { username: 'x', password: 'y' });
  assert.deepEqual(asked, [
    'docker-credential-one a.io',
    'docker-credential-store https://index.docker.io/v1/',
    'docker-credential-store token.io',
    'docker-credential-store c.io',
  ]);
});

test('DockerCredentials: a real helper program gets the server on its input', async (t) => {
  const dir = tempDir(t);
  const program = join(dir, 'docker-credential-testing');
  writeFileSync(
    program,
    '#!/bin/sh\nread server\nprintf \'{"Username":"%s","Secret":"%s"}\' "$1" "$server"\n',
  );
  chmodSync(program, 0o755);
  const path = process.env['PATH'];
  process.env['PATH'] = `${dir}:${path}`;
  t.after(() => (process.env['PATH'] = path));
  const docker = make(t, { credsStore: 'testing' });
  assert.deepEqual(await docker.lookup('h.io'), { username: 'get', password: 'h.io' });
  await assert.rejects(make(t, { credsStore: 'missing' }).lookup('h.io'), {
    code: 'ERR_NYDUS_USAGE',
    message: /^docker-credential-missing for h\.io: .*ENOENT/,
  });
});

test('DockerCredentials: what is damaged is refused without a word of its content', async (t) => {
  await assert.rejects(make(t, '{"auths": {"h": {"auth": "c2VjcmV0"').lookup('h'), (error: Error) => {
    assert.match(error.message, /is no JSON$/);
    return true;
  });
  await assert.rejects(make(t, { auths: { h: { auth: pair('secret') } } }).lookup('h'), (error: Error) => {
    assert.match(error.message, /auth of "h" is not base64 of user:password$/);
    return true;
  });
  await assert.rejects(make(t, { credsStore: '../x' }).lookup('h'), { message: /no name of a helper/ });
});
