// `nydus-image check --config`: tables inside of blobs, read through a directory and through HTTP, against the bootstrap.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { BlobServer } from '../support/blob-server.ts';
import { tempDir } from '../support/golden.ts';
import { nydusImage, runProgramLive } from '../support/programs.ts';
import { noise, text } from '../support/sample-tree.ts';

interface Built {
  dir: string;
  boot: string;
  blobs: string;
  id: string;
}

function build(t: TestContext, ...more: string[]): Built {
  const dir = tempDir(t);
  const [tree, boot, blobs] = [join(dir, 'tree'), join(dir, 'boot'), join(dir, 'blobs')];
  mkdirSync(join(tree, 'many'), { recursive: true });
  mkdirSync(blobs);
  for (let i = 0; i < 50; i++) writeFileSync(join(tree, `many/${i}`), text(`${i % 20}`, i * 40));
  writeFileSync(join(tree, 'big'), noise('big', 3_000_001));
  nydusImage(['create', '--log-level', 'warn', ...more, '-B', boot, '-D', blobs, tree]);
  return { dir, boot, blobs, id: readdirSync(blobs)[0] as string };
}

function configFile(dir: string, backend: object, validate: boolean): string {
  const file = join(dir, `config-${validate}.json`);
  const device = { backend, cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } } };
  writeFileSync(file, JSON.stringify({ device, mode: 'direct', digest_validate: validate }));
  return file;
}

const check = (...args: string[]): ReturnType<typeof runProgramLive> =>
  runProgramLive('nydus-image', ['check', ...args]);

for (const options of [
  ['--features', 'blob-toc'],
  ['--features', 'blob-toc', '--batch-size', '0x20000'],
]) {
  test(`nydus-image check --config: blobs of a directory (${options.join(' ')})`, async (t) => {
    const { dir, boot, blobs, id } = build(t, ...options);
    const config = configFile(dir, { type: 'localfs', config: { dir: blobs } }, true);
    const good = await check('--config', config, boot);
    assert.equal(good.status, 0, good.stderr);
    assert.match(good.stderr, /the tables of 1 blobs agree with the bootstrap/);
    assert.match(good.stdout, /RAFS filesystem metadata is valid/);
    // a blob whose table says something else: the one of another image under this one's name
    const other = build(t, ...options, '--chunk-size', '0x80000');
    const own = readFileSync(join(blobs, id));
    writeFileSync(join(blobs, id), readFileSync(join(other.blobs, other.id)));
    const swapped = await check('--config', config, boot);
    assert.equal(swapped.status, 1);
    assert.match(swapped.stderr, /failed to check the blobs of bootstrap/);
    // damage: the tables stand at the end of the blob
    const damaged = Buffer.from(own);
    damaged.fill(0xa5, damaged.length - 6000, damaged.length - 200);
    writeFileSync(join(blobs, id), damaged);
    assert.equal((await check('--config', config, boot)).status, 1);
    renameSync(join(blobs, id), join(dir, 'away'));
    const gone = await check('--config', config, boot);
    assert.equal(gone.status, 1);
    assert.match(gone.stderr, new RegExp(id));
    // nobody asked for digests to be validated: the bootstrap alone is looked at, as upstream does
    const lax = configFile(dir, { type: 'localfs', config: { dir: blobs } }, false);
    assert.equal((await check('--config', lax, boot)).status, 0);
  });
}

test('nydus-image check --config: blobs of a registry', async (t) => {
  const { dir, boot, blobs, id } = build(t, '--features', 'blob-toc');
  const bytes = readFileSync(join(blobs, id));
  const server = await BlobServer.start(t, {
    find: ({ url }) => (url === `/v2/lib/app/blobs/sha256:${id}` ? bytes : undefined),
  });
  const registry = { scheme: 'http', host: server.host, repo: 'lib/app' };
  const config = configFile(dir, { type: 'registry', config: registry }, true);
  const good = await check('--config', config, boot);
  assert.equal(good.status, 0, good.stderr);
  assert.match(good.stderr, /the tables of 1 blobs agree with the bootstrap/);
  assert.ok(server.requests.length > 0);
  const read = server.requests.length;
  const lax = configFile(dir, { type: 'registry', config: registry }, false);
  assert.equal((await check('--config', lax, boot)).status, 0);
  assert.equal(server.requests.length, read);
  // digests that stand in the bootstrap alone need no blob
  const plain = build(t);
  assert.equal((await check('--config', config, plain.boot)).status, 0);
  assert.equal(server.requests.length, read);
  const away = { ...registry, repo: 'lib/other' };
  const missing = await check('--config', configFile(dir, { type: 'registry', config: away }, true), boot);
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /404/);
});
