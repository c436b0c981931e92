import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  backendSuite,
  SUITE_BLOB,
  SUITE_BLOB_ID,
  type HttpSuite,
} from '../../../test/conformance/backend-suite.ts';
import { BlobServer } from '../../../test/support/blob-server.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { HttpProxyBackend, readHttpProxyConfig } from './http-proxy.ts';

const seams = { env: {}, random: (): number => 0 };

const tcp: HttpSuite = {
  make: async (t, settings) => {
    const server = await BlobServer.start(t, {
      find: ({ url }) => (url === `/blobs/${SUITE_BLOB_ID}` ? SUITE_BLOB : undefined),
    });
    const section = { addr: `http://${server.host}/`, path: '/blobs/', ...settings };
    const backend = new HttpProxyBackend(readHttpProxyConfig(section), silentLogger, seams);
    t.after(() => void backend.close());
    return { backend, server };
  },
};
backendSuite('http-proxy over TCP', async (t) => (await tcp.make(t, {})).backend, tcp);

const socket: HttpSuite = {
  make: async (t, settings) => {
    const socketPath = join(tempDir(t), 'blob.sock');
    // the socket stands for the blob: the suite's other id is refused by the test's server, not by its path
    const server = await BlobServer.start(t, {
      socketPath,
      find: ({ url, headers }) => (url === '/' && headers['x-other'] === undefined ? SUITE_BLOB : undefined),
    });
    const section = { addr: socketPath, path: '/not/used', ...settings };
    const backend = new HttpProxyBackend(readHttpProxyConfig(section), silentLogger, seams);
    t.after(() => void backend.close());
    return { backend, server };
  },
};

backendSuite(
  'http-proxy over a Unix socket',
  async (t) => {
    const { backend, server } = await socket.make(t, {});
    const open = backend.open.bind(backend);
    // there is no blob that a socket does not have: a server that refuses stands for one
    backend.open = (id) => {
      if (id !== SUITE_BLOB_ID) server.always = (_, response) => void response.writeHead(404).end();
      return open(id);
    };
    return backend;
  },
  socket,
);

test('HttpProxyBackend: a socket is asked for / with every range, and for its size with one too', async (t) => {
  const { backend, server } = await socket.make(t, {});
  const reader = await backend.open(SUITE_BLOB_ID);
  assert.equal(await reader.size(), SUITE_BLOB.length);
  await reader.read(5, 10);
  assert.deepEqual(
    server.requests.map(({ method, url, headers }) => [method, url, headers.range]),
    [
      ['HEAD', '/', 'bytes=0-'],
      ['GET', '/', 'bytes=5-14'],
    ],
  );
});
