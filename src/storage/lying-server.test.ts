// A server whose answers are right by every header while the body is not the blob: HTTP cannot tell, the digests of the chunks do.
import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { collectingLogger, readWhole } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData } from '../../test/conformance/make-image.ts';
import { BlobServer } from '../../test/support/blob-server.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { NydusError } from '../base/errors.ts';
import { RafsInstance } from '../rafs/instance.ts';

const FIRST = sampleData(60_000, 6);
const DATA = sampleData(60_000, 7);

/** The head ends one line early: that line is the start of a body whose length and range are as they were asked for. */
function shiftedBody(blob: Buffer): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    const [, first = 0, last = 0] = (/bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? []).map(Number);
    const end = Math.min(last + 1, blob.length);
    const head = [
      'HTTP/1.1 206 Partial Content',
      `Content-Range: bytes ${first}-${end - 1}/${blob.length}`,
      `Content-Length: ${end - first}`,
      '',
      'Connection: close',
      '',
      '',
    ].join('\r\n');
    const whole = Buffer.concat([Buffer.from(head, 'latin1'), blob.subarray(first, end)]);
    // to the announced length and no further: nothing is left over that a client could stumble upon
    response.socket?.end(whole.subarray(0, head.indexOf('\r\n\r\n') + 4 + end - first));
  };
}

for (const version of [5, 6] as const) {
  for (const compressor of ['none', 'zstd'] as const) {
    test(`v${version} ${compressor}: a body that is not the blob reaches no reader and no cache`, async (t) => {
      const dir = tempDir(t);
      const files = [
        { name: 'a', data: FIRST },
        // too far apart for one request
        { name: 'between', data: sampleData(4_000_000, 8) },
        { name: 'f', data: DATA },
      ];
      const image = makeImage(dir, files, { version, compressor });
      const blob = readFileSync(join(image.blobDir, image.blobId));
      const server = await BlobServer.start(t, { find: () => blob });
      const config = {
        ...instanceConfig({ blobDir: image.blobDir, workDir: join(dir, 'cache') }),
        backend: {
          type: 'http-proxy' as const,
          localfs: null,
          localdisk: null,
          oss: null,
          s3: null,
          registry: null,
          'http-proxy': { addr: `http://${server.host}`, retry_limit: 0, timeout: 5 },
        },
      };
      const instance = await RafsInstance.open({
        bootstrap: image.bootstrap,
        id: 'lies',
        logger: collectingLogger([]),
        config,
        decodeThreads: 0,
      });
      t.after(() => instance.close());
      assert.ok((await readWhole(instance, '/a')).equals(FIRST));
      const before = server.requests.length;
      server.always = shiftedBody(blob);
      await assert.rejects(readWhole(instance, '/f'), (error: unknown) => {
        assert.ok(error instanceof NydusError, String(error));
        assert.match(error.message, /chunk \d+: (digest|zstd: cannot decompress)/);
        return true;
      });
      assert.ok(server.requests.length > before, 'the server was asked');
      server.always = undefined;
      assert.ok((await readWhole(instance, '/f')).equals(DATA), 'nothing of it was kept');
    });
  }
}
