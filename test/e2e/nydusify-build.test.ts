// nydusify build: bootstrap and blob from a directory, on top of a parent, with a dictionary, into a backend.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { nydusImage } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';
import { tempDir } from '../support/temporary.ts';
import { fatalOf, nydusify, sha256 } from './nydusify-sample.ts';

function tree(dir: string, files: Record<string, Buffer | string>): string {
  mkdirSync(dir);
  for (const [name, data] of Object.entries(files)) writeFileSync(join(dir, name), data);
  return dir;
}

function blobsOf(out: string): string[] {
  return (JSON.parse(readFileSync(join(out, 'output.json'), 'utf8')) as { blobs: string[] }).blobs;
}

const big = Buffer.from(noise('big', 2_000_000));

test('nydusify build: what nydus-image builds, under the names that are asked for', async (t) => {
  const dir = tempDir(t);
  const source = tree(join(dir, 'source'), { big, small: 'small' });
  const out = join(dir, 'out');
  const args = ['--source-dir', source, '--output-dir', out];
  const result = await nydusify(['build', ...args, '--name', 'app']);
  assert.equal(result.status, 0, result.stderr);
  assert.deepEqual(readdirSync(out).sort(), ['app.blob', 'app.meta', 'output.json']);
  const [id] = blobsOf(out);
  assert.equal(sha256(readFileSync(join(out, 'app.blob'))), id);
  const own = ['--blob', join(dir, 'blob'), '--bootstrap', join(dir, 'boot'), '--compressor', 'zstd'];
  nydusImage(['create', '--whiteout-spec', 'oci', ...own, source]);
  assert.ok(readFileSync(join(dir, 'blob')).equals(readFileSync(join(out, 'app.blob'))));
  assert.ok(readFileSync(join(dir, 'boot')).equals(readFileSync(join(out, 'app.meta'))));
  // the name from the environment, with an extension
  const again = await nydusify(['pack', ...args], { IMAGE_NAME: 'app.boot' });
  assert.equal(again.status, 0, again.stderr);
  assert.equal(existsSync(join(out, 'app.boot')), true);
});

test('nydusify build: a parent and a dictionary leave only what is new', async (t) => {
  const dir = tempDir(t);
  const out = join(dir, 'out');
  const build = async (source: string, name: string, more: string[]): Promise<string[]> => {
    const result = await nydusify(['build', '--source-dir', source, '-o', out, '--name', name, ...more]);
    assert.equal(result.status, 0, result.stderr);
    return blobsOf(out);
  };
  const [first] = await build(tree(join(dir, 'one'), { big }), 'one', []);
  const parent = ['--parent-bootstrap', join(out, 'one.meta')];
  const second = await build(tree(join(dir, 'two'), { more: 'new data' }), 'two', parent);
  assert.equal(second[0], first);
  assert.equal(sha256(readFileSync(join(out, second[1] ?? ''))), second[1]);
  assert.equal(existsSync(join(out, 'two.blob')), false);
  const dictionary = ['--chunk-dict', `bootstrap=${join(out, 'one.meta')}`];
  const third = await build(tree(join(dir, 'three'), { same: big }), 'three', dictionary);
  assert.deepEqual(third, [first]);
  assert.equal(existsSync(join(out, 'three.blob')), false, 'nothing is new');
});

test('nydusify build: pushes to a directory of blobs, prefixes before the names', async (t) => {
  const dir = tempDir(t);
  const source = tree(join(dir, 'source'), { big });
  const out = join(dir, 'out');
  const config = JSON.stringify({ dir: join(dir, 'store'), meta_prefix: 'm-', blob_prefix: 'b-' });
  const backend = ['--backend-push', '--backend-type', 'localfs', '--backend-config', config];
  const result = await nydusify(['build', '--source-dir', source, '-o', out, '--name', 'app', ...backend]);
  assert.equal(result.status, 0, result.stderr);
  const [id = ''] = blobsOf(out);
  assert.deepEqual(readdirSync(join(dir, 'store')).sort(), [`b-${id}`, 'm-app.meta']);
  assert.equal(sha256(readFileSync(join(dir, 'store', `b-${id}`))), id);
});

test('nydusify build: pushes to an object store, the bootstrap last', async (t) => {
  const dir = tempDir(t);
  const objects = new Map<string, Buffer>();
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const path = (request.url ?? '').split('?')[0] ?? '';
      if (request.method === 'PUT') objects.set(path, Buffer.concat(pieces));
      const status = request.method === 'PUT' ? 200 : 404;
      response.writeHead(status, { ETag: '"x"', 'Content-Length': 0 }).end();
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const config = join(dir, 'config.json');
  const keys = { access_key_id: 'id', access_key_secret: 'secret', region: 'here', bucket_name: 'bucket' };
  const place = { scheme: 'http', endpoint: `127.0.0.1:${port}`, meta_prefix: 'meta/', blob_prefix: 'blob/' };
  writeFileSync(config, JSON.stringify({ ...keys, ...place }));
  const out = join(dir, 'out');
  const backend = ['--backend-push', '--backend-type', 's3', '--backend-config-file', config];
  const source = tree(join(dir, 'source'), { big });
  const result = await nydusify(['build', '--source-dir', source, '-o', out, '--name', 'app', ...backend]);
  assert.equal(result.status, 0, result.stderr);
  assert.equal(result.stderr.includes('secret'), false);
  const [id = ''] = blobsOf(out);
  assert.deepEqual([...objects.keys()], [`/bucket/blob/${id}`, '/bucket/meta/app.meta']);
  assert.equal(sha256(objects.get(`/bucket/blob/${id}`) ?? Buffer.alloc(0)), id);
  assert.ok(objects.get('/bucket/meta/app.meta')?.equals(readFileSync(join(out, 'app.meta'))));
});

test('nydusify build: mistakes', async (t) => {
  const dir = tempDir(t);
  const named = ['--source-dir', dir, '--name', 'app', '-o', join(dir, 'out')];
  for (const [args, message] of [
    [[], 'Required flags "source-dir, name" not set'],
    [[...named, '--fs-version', '7'], '--fs-version should be one of [5 6]'],
    [[...named, '--name', '../x'], '--name "../x" is no file name'],
    [[...named, '--compact'], '--compact is not supported yet'],
    [
      [...named, '--backend-push'],
      "backend configuration is empty, please specify option '--backend-config'",
    ],
    [
      [...named, '--backend-push', '--backend-type', 'localfs', '--backend-config', '{}'],
      '--backend-config has no dir',
    ],
  ] as [string[], string][]) {
    assert.equal(fatalOf(await nydusify(['build', ...args])), message);
  }
  const missing = await nydusify(['build', '--source-dir', join(dir, 'no'), '--name', 'app', '-o', dir]);
  assert.match(fatalOf(missing), /^build failed: .*failed to access path/s);
  assert.equal(existsSync(join(dir, 'app.meta')), false);
});
