// Debian's docker-registry with every way of access that our client knows: htpasswd, TLS with a private CA, signed tokens.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import type { TransportOptions } from '../../src/registry/transport.ts';
import { dockerRegistry, HTPASSWD, makeCertificate, tokenServer } from '../support/docker-registry.ts';
import { firstReason, requirePeer } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

const credentials = fixedCredentials({ username: 'user', password: 'pa:ss' });
const skip = firstReason(requirePeer('docker-registry'), requirePeer('openssl'));

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
