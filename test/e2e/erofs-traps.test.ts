// What was learned about pre-content events by trying, each as a test: should a kernel change one of these, we want to know.
// Then nydusd under the same strains. Source: DESIGN 2.1.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  write,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Poller, tryWrite } from '../../src/native/descriptor.ts';
import { createPreContentGroup, FAN_ALLOW, markPreContent } from '../../src/native/fanotify.ts';
import { EVENT_SIZE, newEvent, putResponse, readEvent } from '../../src/serve/erofs/events.ts';
import { probePreContent } from '../../src/serve/erofs/probe.ts';
import { PROBE_FILE, probeImage } from '../../src/serve/erofs/probe-image.ts';

import { CheckReaders } from '../support/check-readers.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { randomImage, slowFill, type RandomImage } from '../support/erofs-image.ts';
import { firstReason, requirePeer, tempDir } from '../support/golden.ts';
import { mountErofs, requirePreContent } from '../support/kernel-erofs.ts';
import { nydusImage, requireProgram } from '../support/programs.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A sparse data file and a bootstrap that has it as its device. */
function sparse(dir: string): { bootstrap: string; data: string; fd: number; content: Buffer } {
  const image = probeImage(1);
  const [bootstrap, data] = [join(dir, 'bootstrap'), join(dir, 'data')];
  writeFileSync(bootstrap, image.bootstrap);
  const fd = openSync(data, 'w+');
  ftruncateSync(fd, image.content.length);
  return { bootstrap, data, fd, content: image.content };
}

/** Take one event if there is one. @returns its descriptor */
function takeEvent(group: number, patienceMs: number): number | undefined {
  if (new Poller([group]).wait(patienceMs) !== 1) return undefined;
  const buffer = Buffer.alloc(EVENT_SIZE);
  const length = readSync(group, buffer, 0, EVENT_SIZE, null);
  const event = newEvent();
  assert.ok(readEvent(new DataView(buffer.buffer, buffer.byteOffset, EVENT_SIZE), 0, length, event));
  return event.fd;
}

function allow(group: number, fd: number): void {
  const response = Buffer.alloc(8);
  putResponse(new DataView(response.buffer, response.byteOffset, 8), 0, fd, FAN_ALLOW);
  assert.equal(tryWrite(group, response), 8);
  closeSync(fd);
}

test('trap: a mark that is set after the mount is never asked, and holes read as zeros', { skip }, (t) => {
  const dir = tempDir(t);
  const { bootstrap, data, fd, content } = sparse(dir);
  const mnt = join(dir, 'mnt');
  mkdirSync(mnt);
  mountErofs(bootstrap, [data], mnt);
  const group = createPreContentGroup();
  try {
    markPreContent(group, fd);
    // asked or not, the answer would have to come from this thread: it reads, so it is not asked
    assert.deepEqual(readFileSync(join(mnt, PROBE_FILE)), Buffer.alloc(content.length));
    assert.equal(takeEvent(group, 0), undefined);
  } finally {
    closeSync(group);
    closeSync(fd);
  }
});

test(
  'trap: a descriptor opened after the mark is held, also for writing; one opened before is not',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const { data, fd, content } = sparse(dir);
    const group = createPreContentGroup();
    markPreContent(group, fd);
    const late = openSync(data, 'r+');
    let written = false;
    const writing = new Promise<void>((resolve) =>
      write(late, content, 0, content.length, 0, () => {
        written = true;
        resolve();
      }),
    );
    const event = takeEvent(group, 3000);
    assert.notEqual(event, undefined);
    await sleep(30);
    assert.equal(written, false);
    assert.equal(writeSync(fd, content, 0, content.length, 0), content.length);
    assert.equal(takeEvent(group, 0), undefined);
    allow(group, event ?? -1);
    await writing;
    for (const each of [late, fd, group]) closeSync(each);
  },
);

test('trap: the group asks for a mount as for any other reader', { skip }, async (t) => {
  const dir = tempDir(t);
  await probePreContent(dir);
  assert.deepEqual(readdirSync(dir), []);
});

test(
  'trap: reads through a loop device are not asked',
  { skip: firstReason(skip, requirePeer('losetup')) },
  (t) => {
    const dir = tempDir(t);
    const { data, fd, content } = sparse(dir);
    const group = createPreContentGroup();
    markPreContent(group, fd);
    const made = spawnSync('losetup', ['-r', '-f', '--show', data], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    const device = made.stdout.trim();
    try {
      const seen = spawnSync('dd', [`if=${device}`, 'bs=4096', 'count=1', 'status=none'], { timeout: 5000 });
      assert.equal(takeEvent(group, 0), undefined);
      assert.deepEqual(seen.stdout, Buffer.alloc(content.length));
    } finally {
      spawnSync('losetup', ['-d', device]);
      closeSync(group);
      closeSync(fd);
    }
  },
);

test('trap: overlayfs and tmpfs have no such events, and say so', { skip }, (t) => {
  const dir = tempDir(t);
  for (const name of ['lower', 'upper', 'work', 'merged', 'tmpfs']) mkdirSync(join(dir, name));
  const layers = `lowerdir=${dir}/lower,upperdir=${dir}/upper,workdir=${dir}/work`;
  assert.equal(spawnSync('mount', ['-t', 'overlay', 'o', '-o', layers, join(dir, 'merged')]).status, 0);
  assert.equal(spawnSync('mount', ['-t', 'tmpfs', 't', join(dir, 'tmpfs')]).status, 0);
  const group = createPreContentGroup();
  for (const name of ['merged', 'tmpfs']) {
    const fd = openSync(join(dir, name, 'file'), 'w+');
    assert.throws(() => markPreContent(group, fd), { code: 'ENOTSUP' });
    closeSync(fd);
  }
  closeSync(group);
});

interface Served {
  dir: string;
  image: RandomImage;
  daemon: Daemon;
}

async function serve(
  t: TestContext,
  image: RandomImage,
  dir: string,
  options: { driver?: string; cache?: string } = {},
): Promise<Served> {
  const daemon = await startDaemon({
    workDir: join(dir, 'work'),
    bootstrap: image.bootstrap,
    config: slowFill(image, options.cache ?? join(dir, 'cache')),
    args: ['--driver', options.driver ?? 'fanotify'],
  });
  t.after(async () => daemon[Symbol.asyncDispose]());
  return { dir, image, daemon };
}

/** sha256 of a file by another process. */
async function digest(path: string): Promise<string> {
  const child = spawn('sha256sum', [path], { stdio: ['ignore', 'pipe', 'ignore'] });
  let text = '';
  child.stdout.on('data', (piece: Buffer) => (text += piece.toString()));
  await once(child, 'close');
  return text.split(' ')[0] ?? '';
}

test(
  'nydusd --driver auto: with the cache on tmpfs fanotify is refused and fileio serves',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 3, 100_000);
    const cache = join(dir, 'tmpfs');
    mkdirSync(cache);
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', 't', cache]).status, 0);
    const { daemon } = await serve(t, image, dir, { driver: 'auto', cache });
    const { driver } = (await daemon.get('/api/v1/daemon')) as {
      driver: { name: string; fallbacks: string[] };
    };
    assert.equal(driver.name, 'fileio');
    assert.match(driver.fallbacks[0] ?? '', /^fanotify: .*ENOTSUP/);
    const readers = await CheckReaders.start(daemon.mountpoint, image.source, 2);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}]);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);

test(
  'nydusd --driver fanotify: 100 readers at once, and again after the page cache was dropped',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 100, 70_000);
    const { daemon } = await serve(t, image, dir);
    const names = readdirSync(image.source);
    const wanted = await Promise.all(names.map((name) => digest(join(image.source, name))));
    assert.deepEqual(await Promise.all(names.map((name) => digest(join(daemon.mountpoint, name)))), wanted);
    for (const name of names.slice(0, 10)) {
      // drops what is cached of the file on the mount, and asks again for what is local by now
      spawnSync('dd', [`if=${join(daemon.mountpoint, name)}`, 'iflag=nocache', 'count=0', 'status=none']);
    }
    const again = await Promise.all(names.slice(0, 10).map((name) => digest(join(daemon.mountpoint, name))));
    assert.deepEqual(again, wanted.slice(0, 10));
  },
);

test(
  'nydusd --driver fanotify: a program starts from an overlayfs on top, by page faults',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 1, 10_000);
    copyFileSync('/bin/bash', join(image.source, 'shell'));
    const bootstrap = join(dir, 'boot2');
    nydusImage([
      'create',
      '--blob-dir',
      image.blobs,
      '--bootstrap',
      bootstrap,
      '--chunk-size',
      '0x10000',
      image.source,
    ]);
    const { daemon } = await serve(t, { ...image, bootstrap }, dir);
    for (const name of ['upper', 'work2', 'merged']) mkdirSync(join(dir, name));
    const layers = `lowerdir=${daemon.mountpoint},upperdir=${dir}/upper,workdir=${dir}/work2`;
    const mounted = spawnSync('mount', ['-t', 'overlay', 'o', '-o', layers, join(dir, 'merged')], {
      encoding: 'utf8',
    });
    assert.equal(mounted.status, 0, mounted.stderr);
    const child = spawn(join(dir, 'merged/shell'), ['-c', 'echo $((6 * 7))'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (piece: Buffer) => (text += piece.toString()));
    await once(child, 'close');
    assert.equal(text, '42\n');
    unmountBelow(join(dir, 'merged'));
  },
);

test(
  'nydusd --driver fanotify: SIGTERM under load ends in time, and no reader sees zeros',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 12, 3_000_000);
    const { daemon } = await serve(t, image, dir);
    const readers = await CheckReaders.start(daemon.mountpoint, image.source, 4);
    await sleep(40);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.deepEqual(mountsBelow(daemon.mountpoint), []);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros], [0, 0]);
  },
);

test(
  'nydusd --driver fanotify: a damaged chunk is EIO, the rest is served, and repair needs no remount',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 4, 200_000);
    const blob = join(image.blobs, readdirSync(image.blobs)[0] ?? '');
    const original = readFileSync(blob);
    const first = readFileSync(join(image.source, 'file0'));
    const at = original.indexOf(first.subarray(0, 64));
    assert.ok(at >= 0);
    const fd = openSync(blob, 'r+');
    writeSync(fd, Buffer.from([(original[at + 10] ?? 0) ^ 1]), 0, 1, at + 10);
    const { daemon } = await serve(t, image, dir);
    assert.equal(await digest(join(daemon.mountpoint, 'file0')), '');
    for (const name of ['file1', 'file2', 'file3'])
      assert.equal(await digest(join(daemon.mountpoint, name)), await digest(join(image.source, name)), name);
    assert.match(daemon.log, /chunk \d+/);
    writeSync(fd, original, at, 64, at);
    closeSync(fd);
    assert.equal(
      await digest(join(daemon.mountpoint, 'file0')),
      await digest(join(image.source, 'file0')),
      daemon.log,
    );
  },
);

test(
  'nydusd --driver fanotify: a backend that is gone is EIO, and served again when it is back',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 500_000);
    const blob = join(image.blobs, readdirSync(image.blobs)[0] ?? '');
    const original = readFileSync(blob);
    const { daemon } = await serve(t, image, dir);
    // the chunk table is loaded by then
    assert.equal(await digest(join(daemon.mountpoint, 'file0')), await digest(join(image.source, 'file0')));
    truncateSync(blob, 0);
    assert.equal(await digest(join(daemon.mountpoint, 'file1')), '');
    const fd = openSync(blob, 'r+');
    writeSync(fd, original);
    closeSync(fd);
    assert.equal(
      await digest(join(daemon.mountpoint, 'file1')),
      await digest(join(image.source, 'file1')),
      daemon.log,
    );
  },
);

test(
  'nydusd --driver fanotify: a full disk is EIO, and served again when there is room',
  { skip: firstReason(skip, requirePeer('mkfs.ext4')) },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 6, 1_500_000);
    const [disk, cache] = [join(dir, 'disk'), join(dir, 'small')];
    mkdirSync(cache);
    writeFileSync(disk, '');
    truncateSync(disk, 24 << 20);
    assert.equal(spawnSync('mkfs.ext4', ['-q', '-m', '0', '-O', '^has_journal', disk]).status, 0);
    assert.equal(spawnSync('mount', ['-o', 'loop', disk, cache]).status, 0);
    const { daemon } = await serve(t, image, dir, { cache });
    const filler = join(cache, 'filler');
    spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=64k', 'status=none']);
    spawnSync('sync');
    assert.ok(existsSync(filler));
    const digests = await Promise.all(
      readdirSync(image.source).map((name) => digest(join(daemon.mountpoint, name))),
    );
    assert.ok(digests.includes(''), 'the disk is full');
    rmSync(filler);
    spawnSync('sync');
    for (const name of readdirSync(image.source))
      assert.equal(await digest(join(daemon.mountpoint, name)), await digest(join(image.source, name)), name);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);
