// Several images and directories in one daemon: nested mountpoints, what the kernel remembers after an unmount, readers during a
// remount, all places taken, and nothing left behind after many mounts.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { apiRequest, localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';

const CYCLES = Number(process.env['NYDUS_MOUNT_CYCLES'] ?? 60);
const MAX_MOUNTS = 255;

describe('many mounts in one daemon', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  let work = '';
  let daemon: Daemon;
  let config = '';

  /** An image of one directory; two of them share the file `common`. */
  function makeImage(name: string): void {
    mkdirSync(join(work, name, 'dir'), { recursive: true });
    writeFileSync(join(work, name, 'name'), name);
    writeFileSync(join(work, name, 'dir/common'), Buffer.alloc(300_000, 'common '));
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', `${name}.boot`, name], { cwd: work });
  }

  const body = (image: string): string =>
    JSON.stringify({ fs_type: 'rafs', source: join(work, `${image}.boot`), config });
  const call = async (method: string, mountpoint: string, text?: string): Promise<string> => {
    const path = `/api/v1/mount?mountpoint=${mountpoint}`;
    const { status, body: answer } = await apiRequest(daemon.apisock, method, path, text);
    return status === 204 ? '' : `${status} ${answer}`;
  };
  const mount = (mountpoint: string, image: string): Promise<string> => call('POST', mountpoint, body(image));
  const at = (...parts: string[]): string => join(daemon.mountpoint, ...parts);
  const nameAt = (...parts: string[]): string => readFileSync(at(...parts, 'name'), 'utf8');

  before(async () => {
    work = tempDir();
    mkdirSync(join(work, 'blobs'));
    makeImage('one');
    makeImage('two');
    config = JSON.stringify(localConfig(join(work, 'blobs'), join(work, 'cache')));
    daemon = await startDaemon({ workDir: join(work, 'd'), args: ['--writable'] });
  });
  after(() => daemon[Symbol.asyncDispose]());

  it('images at nested places: each is seen at its own, and all are listed', async () => {
    assert.equal(await mount('/a', 'one'), '');
    assert.equal(await mount('/b/c/d', 'two'), '');
    assert.equal(await mount('/b/c/e', 'one'), '');
    assert.deepEqual([nameAt('a'), nameAt('b/c/d'), nameAt('b/c/e')], ['one', 'two', 'one']);
    assert.deepEqual(readdirSync(at()).sort(), ['a', 'b']);
    assert.deepEqual(readdirSync(at('b/c')).sort(), ['d', 'e']);
    assert.equal(statSync(at('b/c')).mode, 0o40777);
    assert.equal(statSync(at('b/c/d')).mode, 0o40755);
    const info = (await daemon.get('/api/v1/daemon')) as { backend_collection: object };
    assert.deepEqual(Object.keys(info.backend_collection), ['/a', '/b/c/d', '/b/c/e']);
    assert.match(await mount('/a', 'two'), /^500 .*already exists/);
    assert.match(await mount('/a/../x', 'two'), /^500 .*VFS failed/);
    for (const place of ['/a', '/b/c/d', '/b/c/e']) assert.equal(await call('DELETE', place), '');
  });

  it('after an unmount nothing of the image is seen, and another one may follow at once', async () => {
    assert.equal(await mount('/x', 'one'), '');
    assert.equal(nameAt('x'), 'one');
    assert.equal(await call('DELETE', '/x'), '');
    assert.deepEqual(readdirSync(at('x')), []);
    assert.throws(() => statSync(at('x/name')), { code: 'ENOENT' });
    assert.equal(await mount('/x', 'two'), '');
    assert.equal(statSync(at('x')).mode, 0o40755);
    assert.equal(nameAt('x'), 'two');
    assert.equal(await call('DELETE', '/x'), '');
  });

  it('an image at the root hides the others, which come back', async () => {
    assert.equal(await mount('/below', 'one'), '');
    assert.equal(nameAt('below'), 'one');
    assert.equal(await mount('/', 'two'), '');
    assert.equal(nameAt(), 'two');
    assert.throws(() => statSync(at('below')), { code: 'ENOENT' });
    assert.equal(await call('DELETE', '/'), '');
    assert.equal(nameAt('below'), 'one');
    assert.equal(await call('DELETE', '/below'), '');
  });

  it('images and a directory: each has counters of its own', async () => {
    const shared = join(work, 'shared');
    mkdirSync(shared);
    writeFileSync(join(shared, 'host'), 'from the host');
    assert.equal(await mount('/image', 'one'), '');
    const text = JSON.stringify({ fs_type: 'passthrough_fs', source: shared, config: '' });
    assert.equal(await call('POST', '/dir', text), '');
    assert.equal(readFileSync(at('dir/host'), 'utf8'), 'from the host');
    writeFileSync(at('dir/guest'), 'from the mount');
    assert.equal(readFileSync(join(shared, 'guest'), 'utf8'), 'from the mount');
    readFileSync(at('image/name'));
    const counters = async (id: string): Promise<{ data_read: number }> =>
      (await daemon.get(`/api/v1/metrics?id=${id}`)) as { data_read: number };
    assert.equal((await counters('/image')).data_read, 3);
    assert.equal((await counters('/dir')).data_read, 13);
    assert.equal(await call('DELETE', '/dir'), '');
    assert.equal(await call('DELETE', '/image'), '');
    assert.deepEqual(readdirSync(shared).sort(), ['guest', 'host']);
  });

  it('remount and unmount of neighbours while four readers read: none sees an error or a wrong byte', async () => {
    assert.equal(await mount('/busy', 'one'), '');
    const common = Buffer.alloc(300_000, 'common ');
    let going = true;
    let rounds = 0;
    const reader = async (): Promise<void> => {
      while (going) {
        assert.deepEqual(await readFile(at('busy/dir/common')), common);
        await stat(at('busy/name'));
        rounds++;
      }
    };
    const readers = [reader(), reader(), reader(), reader()];
    for (let round = 0; round < 6; round++) {
      assert.equal(await mount('/neighbour', 'two'), '');
      assert.equal(await call('PUT', '/busy', body(round % 2 === 0 ? 'two' : 'one')), '');
      assert.equal(await call('DELETE', '/neighbour'), '');
    }
    going = false;
    await Promise.all(readers);
    assert.ok(rounds > 4);
    assert.equal(await call('DELETE', '/busy'), '');
  });

  it('a reader whose image goes away gets an error, and the daemon goes on', async () => {
    assert.equal(await mount('/gone', 'one'), '');
    const script = 'while cat dir/common > /dev/null; do :; done; echo over';
    const child = spawn('sh', ['-c', script], { cwd: at('gone'), stdio: ['ignore', 'pipe', 'ignore'] });
    const over = new Promise<string>((resolve) => child.stdout.on('data', (data) => resolve(String(data))));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await call('DELETE', '/gone'), '');
    assert.equal(await over, 'over\n');
    assert.equal(await mount('/gone', 'two'), '');
    assert.equal(nameAt('gone'), 'two');
    assert.equal(await call('DELETE', '/gone'), '');
  });

  it(`all ${MAX_MOUNTS} places can be taken, the next is refused, and all can be read`, async () => {
    for (let n = 0; n < MAX_MOUNTS; n++)
      assert.equal(await mount(`/many/${n}`, n % 2 === 0 ? 'one' : 'two'), '');
    assert.match(await mount('/many/more', 'one'), /^500 .*all 255 places of a daemon are taken/);
    for (const n of [0, 1, 100, 254]) assert.equal(nameAt('many', String(n)), n % 2 === 0 ? 'one' : 'two');
    for (let n = 0; n < MAX_MOUNTS; n++) assert.equal(await call('DELETE', `/many/${n}`), '');
    assert.equal(await mount('/many/more', 'one'), '');
    assert.equal(await call('DELETE', '/many/more'), '');
  });

  it(`${CYCLES} cycles leave no descriptor, thread or mapping behind`, async () => {
    const cycle = async (n: number): Promise<void> => {
      assert.equal(await mount(`/cycle${n % 7}`, n % 2 === 0 ? 'one' : 'two'), '');
      assert.equal(nameAt(`cycle${n % 7}`), n % 2 === 0 ? 'one' : 'two');
      assert.equal(await call('DELETE', `/cycle${n % 7}`), '');
    };
    const proc = `/proc/${daemon.pid}`;
    const open = (): string[] =>
      readdirSync(`${proc}/fd`)
        .map((fd) => {
          try {
            return readlinkSync(`${proc}/fd/${fd}`);
          } catch {
            return '';
          }
        })
        .filter((link) => link.startsWith('/') && !link.startsWith('/dev/'));
    const mapped = (): number =>
      readFileSync(`${proc}/maps`, 'utf8')
        .split('\n')
        .filter((line) => line.includes(work)).length;
    for (let n = 0; n < 7; n++) await cycle(n);
    const before = { threads: readdirSync(`${proc}/task`).length, open: open().length, mapped: mapped() };
    for (let n = 0; n < CYCLES; n++) await cycle(n);
    assert.deepEqual(open(), []);
    assert.ok(mapped() <= before.mapped, `${before.mapped} mappings before, ${mapped()} after`);
    assert.ok(readdirSync(`${proc}/task`).length <= before.threads);
  });

  it('an image at a virtual mountpoint from the command line, beside one by API', async () => {
    const workDir = join(work, 'virtual');
    const args = ['--virtual-mountpoint', '/v/w'];
    await using other = await startDaemon({
      workDir,
      bootstrap: join(work, 'one.boot'),
      config: JSON.parse(config) as object,
      args,
    });
    assert.equal(readFileSync(join(other.mountpoint, 'v/w/name'), 'utf8'), 'one');
    const path = '/api/v1/mount?mountpoint=/u';
    assert.equal((await apiRequest(other.apisock, 'POST', path, body('two'))).status, 204);
    assert.equal(readFileSync(join(other.mountpoint, 'u/name'), 'utf8'), 'two');
    assert.equal(spawnSync('mountpoint', ['-q', other.mountpoint]).status, 0);
    assert.equal(await other.stop(), 0, other.log);
  });
});
