// A writable layer over an image: what is written appears in upper_dir, the image stays as it is, and a killed daemon's layer is
// taken away by the next one.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { apiRequest, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

describe('overlay', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  let work = '';
  const configOf = (name: string): object => ({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: join(work, 'blobs') } },
    cache: { type: 'blobcache', filecache: { work_dir: join(work, 'cache') } },
    rafs: { mode: 'direct', enable_xattr: true },
    overlay: { upper_dir: join(work, name, 'upper'), work_dir: join(work, name, 'work') },
  });

  before(() => {
    work = tempDir();
    mkdirSync(join(work, 'tree/dir'), { recursive: true });
    mkdirSync(join(work, 'blobs'));
    writeFileSync(join(work, 'tree/file'), 'from the image');
    writeFileSync(join(work, 'tree/dir/deep'), 'deep');
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: work });
  });

  it('nydusd --writable: changes go to upper_dir at once and stay there for the next run', async () => {
    const config = configOf('a');
    const start = { workDir: join(work, 'a/d'), bootstrap: join(work, 'boot'), config, args: ['--writable'] };
    {
      await using daemon = await startDaemon(start);
      const at = (...parts: string[]): string => join(daemon.mountpoint, ...parts);
      writeFileSync(at('file'), 'changed');
      writeFileSync(at('new'), 'new');
      rmSync(at('dir/deep'));
      chmodSync(at('dir'), 0o700);
      assert.equal(readFileSync(join(work, 'a/upper/new'), 'utf8'), 'new');
      assert.equal(readFileSync(join(work, 'a/upper/file'), 'utf8'), 'changed');
      assert.deepEqual(readdirSync(at()).sort(), ['dir', 'file', 'new']);
      assert.deepEqual(readdirSync(at('dir')), []);
      assert.equal(await daemon.stop(), 0, daemon.log);
      assert.deepEqual(mountsBelow(join(work, 'a')), []);
    }
    await using again = await startDaemon(start);
    assert.equal(readFileSync(join(again.mountpoint, 'file'), 'utf8'), 'changed');
    assert.throws(() => statSync(join(again.mountpoint, 'dir/deep')), { code: 'ENOENT' });
  });

  it('without --writable the layers are seen, and nothing can be written', async () => {
    const config = configOf('b');
    mkdirSync(join(work, 'b/upper'), { recursive: true });
    writeFileSync(join(work, 'b/upper/extra'), 'from the layer');
    await using daemon = await startDaemon({
      workDir: join(work, 'b/d'),
      bootstrap: join(work, 'boot'),
      config,
    });
    assert.equal(readFileSync(join(daemon.mountpoint, 'extra'), 'utf8'), 'from the layer');
    assert.throws(() => writeFileSync(join(daemon.mountpoint, 'x'), ''), { code: 'EROFS' });
  });

  it('by API, at a place below the root, with a neighbour; unmounted with its layer', async () => {
    await using daemon = await startDaemon({ workDir: join(work, 'c/d'), args: ['--writable'] });
    const request = (config: object): string =>
      JSON.stringify({ fs_type: 'rafs', source: join(work, 'boot'), config: JSON.stringify(config) });
    const call = async (method: string, place: string, body?: string): Promise<number> =>
      (await apiRequest(daemon.apisock, method, `/api/v1/mount?mountpoint=${place}`, body)).status;
    assert.equal(await call('POST', '/layered', request(configOf('c'))), 204);
    assert.equal(await call('POST', '/plain', request({ ...configOf('c'), overlay: undefined })), 204);
    writeFileSync(join(daemon.mountpoint, 'layered/x'), 'x');
    assert.throws(() => writeFileSync(join(daemon.mountpoint, 'plain/x'), 'x'), { code: 'EROFS' });
    assert.equal(await call('DELETE', '/layered'), 204);
    assert.deepEqual(mountsBelow(join(work, 'c')), [daemon.mountpoint]);
    assert.deepEqual(readdirSync(join(daemon.mountpoint, 'layered')), []);
    assert.equal(readFileSync(join(work, 'c/upper/x'), 'utf8'), 'x');
    const broken = { ...configOf('c'), overlay: { upper_dir: '/proc/self/none', work_dir: '/proc/none' } };
    assert.equal(await call('POST', '/broken', request(broken)), 500);
    assert.equal(await call('POST', '/broken', request(configOf('e'))), 204);
  });

  it('the layer of a killed daemon is taken away by the next one, which keeps what was written', async () => {
    const start = {
      workDir: join(work, 'f/d'),
      bootstrap: join(work, 'boot'),
      config: configOf('f'),
      args: ['--writable', '--failover-policy', 'none'],
    };
    const killed = await startDaemon(start);
    writeFileSync(join(killed.mountpoint, 'kept'), 'kept');
    await killed.stop('SIGKILL');
    await using daemon = await startDaemon(start);
    assert.equal(readFileSync(join(daemon.mountpoint, 'kept'), 'utf8'), 'kept');
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.deepEqual(mountsBelow(join(work, 'f')), []);
  });
});
