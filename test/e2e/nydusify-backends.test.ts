// nydusify convert with blobs in a storage backend, and with another builder.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { BucketServer } from '../support/bucket-server.ts';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, repoRoot, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { compareTrees } from '../support/tree-manifest.ts';
import { verifyAws, verifyOss } from '../support/verify-signature.ts';
import {
  bootstrapOf,
  contents,
  converted,
  directories,
  extractAll,
  fatalOf,
  good,
  makeSample,
  nydusify,
  OCI_LAYER,
  PREFIX,
  readJson,
  rootOf,
  sha256,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));
const SECRET = 'very/s3cret';

describe('nydusify convert with a backend', { skip }, () => {
  it(
    '--backend-type localfs: the image is the bootstrap alone, nydusd finds the blobs',
    { skip: requireFuse() },
    async (t) => {
      const { work, trees, tars, args } = makeSample(tempDir(t));
      const [target, blobs] = [join(work, 'target/'), join(work, 'blobs')];
      const plain = join(work, 'plain/');
      await converted(args(plain));
      const backend = ['--backend-type', 'localfs', '--backend-config', JSON.stringify({ dir: blobs })];
      await converted(args(target, backend));
      const manifest = readJson<Manifest>(target, rootOf(target));
      const whole = readJson<Manifest>(plain, rootOf(plain));
      assert.deepEqual(manifest.layers, [whole.layers.at(-1)]);
      assert.deepEqual(manifest.layers[0]?.annotations, {
        [`${PREFIX}bootstrap`]: 'true',
        [`${PREFIX}fs-version`]: '6',
      });
      assert.equal(manifest.layers[0]?.mediaType, `${OCI_LAYER}+gzip`);
      const config = readJson<{ rootfs: { diff_ids: string[] }; history: object[] }>(target, manifest.config);
      assert.equal(config.rootfs.diff_ids.length, 1);
      assert.deepEqual(config.history, [{ created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }]);
      const ids = whole.layers.slice(0, -1).map(({ digest }) => digest.slice(7));
      assert.deepEqual(readdirSync(blobs).toSorted(), ids.toSorted());
      for (const id of ids) assert.equal(sha256(readFileSync(join(blobs, id))), id);
      // a blob that is there is not written again, unless it is asked for
      writeFileSync(join(blobs, ids[0] as string), Buffer.alloc(whole.layers[0]?.size ?? 0));
      await converted(args(target, backend));
      assert.notEqual(sha256(readFileSync(join(blobs, ids[0] as string))), ids[0]);
      await converted(args(target, [...backend, '--backend-force-push']));
      assert.equal(sha256(readFileSync(join(blobs, ids[0] as string))), ids[0]);
      const expected = join(work, 'expected');
      extractAll(trees, tars, expected);
      await using daemon = await startDaemon({
        workDir: join(work, 'daemon'),
        bootstrap: bootstrapOf(target, manifest, join(work, 'boot')),
        config: { ...localConfig(blobs, join(work, 'cache')), digest_validate: true },
      });
      const ignore = ['ino', 'blocks', 'nlink', 'mtime:/', 'mtime_nsec:/'];
      ignore.push(...directories(expected).map((path) => `size:${path}`));
      assert.deepEqual(compareTrees(expected, daemon.mountpoint, { ignore }), []);
    },
  );

  it('--backend-type s3: blobs become objects, and the secret is seen nowhere', async (t) => {
    const { work, args } = makeSample(tempDir(t));
    const bucket = await BucketServer.start(t, {
      verify: (request) => verifyAws(request, { AK: SECRET }, 'us-east-1'),
    });
    const config = {
      scheme: 'http',
      endpoint: `127.0.0.1:${bucket.port}`,
      region: 'us-east-1',
      bucket_name: 'images',
      object_prefix: 'nydus/',
      access_key_id: 'AK',
    };
    const file = join(work, 'backend.json');
    writeFileSync(file, JSON.stringify({ ...config, access_key_secret: SECRET }), { mode: 0o600 });
    const backend = ['--backend-type', 's3', '--backend-config-file', file];
    const target = join(work, 'target/');
    const first = await nydusify(['--log-level', 'trace', 'convert', ...args(target, backend)]);
    assert.equal(first.status, 0, first.stderr);
    assert.equal(`${first.stderr}${first.stdout}`.includes(SECRET), false);
    assert.equal(readJson<Manifest>(target, rootOf(target)).layers.length, 1);
    assert.equal(bucket.objects.size, 3);
    for (const [path, bytes] of bucket.objects) assert.equal(path, `/images/nydus/${sha256(bytes)}`);
    bucket.requests.length = 0;
    await converted(args(join(work, 'again/'), backend));
    assert.deepEqual(
      bucket.requests.filter((line) => !line.startsWith('HEAD')),
      [],
    );
    writeFileSync(file, JSON.stringify({ ...config, access_key_secret: 'wrong/s3cret' }));
    const refused = await nydusify(['convert', ...args(join(work, 'no/'), backend)]);
    assert.match(fatalOf(refused), /HEAD .*: 403/);
    assert.equal(refused.stderr.includes('s3cret'), false);
  });

  it(
    '--backend-type oss: blobs become objects, and check reads them back through nydusd',
    { skip: requireFuse() },
    async (t) => {
      const { work, args, layout } = makeSample(tempDir(t));
      const bucket = await BucketServer.start(t, {
        verify: (request) => verifyOss(request, { AK: SECRET }, 'images'),
      });
      const config = {
        scheme: 'http',
        endpoint: 'oss.example.test',
        bucket_name: 'images',
        object_prefix: 'nydus/',
        access_key_id: 'AK',
        access_key_secret: SECRET,
      };
      // the bucket's host does not resolve here: its server stands in as a proxy
      const env = { HTTP_PROXY: `http://127.0.0.1:${bucket.port}` };
      const target = join(work, 'target/');
      const backend = ['--backend-type', 'oss', '--backend-config', JSON.stringify(config)];
      await converted(args(target, backend), env);
      assert.equal(readJson<Manifest>(target, rootOf(target)).layers.length, 1);
      assert.equal(bucket.objects.size, 3);
      for (const [path, bytes] of bucket.objects) assert.equal(path, `/nydus/${sha256(bytes)}`);
      bucket.requests.length = 0;
      const images = ['--source', 'example.org/app:1.0', '--source-archive', layout.dir];
      images.push('--target', 'example.org/app:1.0-nydus', '--target-archive', target);
      const flags = ['--platform', 'linux/amd64', '--work-dir', join(work, 'checked')];
      const reading = { ...config, proxy: { url: env.HTTP_PROXY, ping_url: '' } };
      const where = ['--target-backend-type', 'oss', '--target-backend-config', JSON.stringify(reading)];
      const checked = await good(['check', ...images, ...flags, ...where]);
      assert.match(checked.stderr, /compared 14 entries/);
      assert.ok(bucket.requests.some((line) => line.startsWith('GET /nydus/')));
      const wrong = JSON.stringify({ ...config, access_key_secret: 'wrong/s3cret' });
      const again = args(join(work, 'no/'), ['--backend-type', 'oss', '--backend-config', wrong]);
      assert.match(fatalOf(await nydusify(['convert', ...again], env)), /HEAD .*: 403/);
    },
  );

  it('--nydus-image: another builder makes the same image', async (t) => {
    const { work, args } = makeSample(tempDir(t));
    const [own, other] = [join(work, 'own/'), join(work, 'other/')];
    const builder = join(work, 'builder');
    mkdirSync(work, { recursive: true });
    const program = join(repoRoot, 'src/bin/nydus-image.ts');
    const log = join(work, 'calls');
    writeFileSync(
      builder,
      `#!/bin/sh\necho "$@" >> '${log}'\nexec '${process.execPath}' '${program}' "$@"\n`,
    );
    chmodSync(builder, 0o755);
    await converted(args(own));
    await converted(args(other, ['--nydus-image', builder]));
    assert.deepEqual(contents(other), contents(own));
    const calls = readFileSync(log, 'utf8').trim().split('\n');
    assert.equal(calls.filter((line) => line.startsWith('create --log-level warn')).length, 3);
    assert.equal(calls.filter((line) => line.startsWith('merge --log-level warn')).length, 1);
    writeFileSync(builder, '#!/bin/sh\n[ "$2" = -h ] && exit 0\necho "this is the reason" >&2\nexit 1\n');
    const failed = await nydusify(['convert', ...args(join(work, 'no/'), ['--nydus-image', builder])]);
    assert.match(fatalOf(failed), /builder create ended with status 1: this is the reason/);
    const absent = await nydusify([
      'convert',
      ...args(join(work, 'no/'), ['--nydus-image', join(work, 'absent')]),
    ]);
    assert.match(fatalOf(absent), /cannot run .*absent.*ENOENT/);
    assert.equal(readdirSync(work).includes('no'), false);
  });
});
