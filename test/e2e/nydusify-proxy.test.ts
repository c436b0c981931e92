// nydusify where nothing is reached but through a proxy, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say.
import assert from 'node:assert/strict';
import { createServer, request as httpRequest } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { firstReason, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { fatalOf, good, makeSample, nydusify } from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

/** A proxy that takes every host for one server. @returns its URL, and what it was asked */
async function proxyTo(t: TestContext, port: number): Promise<{ url: string; seen: string[] }> {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://direct.invalid');
    seen.push(`${request.method} ${url.host}`);
    const { method, headers } = request;
    const onward = httpRequest({ port, method, headers, path: url.pathname + url.search }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  server.on('connect', (request, client: Socket) => {
    seen.push(`CONNECT ${request.url}`);
    const onward = connect(port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      client.pipe(onward).pipe(client);
    });
    for (const end of [client, onward]) end.on('error', () => (client.destroy(), onward.destroy()));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

test('nydusify: registries are reached through the proxy of the environment', { skip }, async (t) => {
  const sample = makeSample(tempDir(t));
  const { work } = sample;
  await using server = await RegistryServer.start({ dir: join(work, 'registry') });
  const { url, seen } = await proxyTo(t, Number(server.host.split(':')[1]));
  const [image, target] = ['registry.invalid/lib/app:1', 'registry.invalid/lib/app:n'];
  const flags = ['--platform', 'linux/amd64', '--work-dir', join(work, 'tmp')];
  const convert = ['convert', '--target', target, '--plain-http', ...flags];
  const archive = ['--source', 'example.org/app:1.0', '--source-archive', sample.layout.dir];
  await good([...convert, ...archive], { HTTP_PROXY: url });
  assert.deepEqual([...new Set(seen.map((line) => line.split(' ')[1]))], ['registry.invalid']);
  // tunnels: the server behind speaks no TLS, which shows that one was opened
  const secure = ['copy', '--source', image, '--target', `file://${join(work, 'out')}/`, ...flags];
  const refused = await nydusify(secure, { https_proxy: url });
  assert.equal(refused.status, 1);
  assert.ok(seen.includes('CONNECT registry.invalid:443'), refused.stderr);
  const before = seen.length;
  const direct = await nydusify([...convert, ...archive], { HTTP_PROXY: url, NO_PROXY: '.invalid' });
  assert.match(fatalOf(direct), /cannot be resolved/);
  assert.equal(seen.length, before);
});
