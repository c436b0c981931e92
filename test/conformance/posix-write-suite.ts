// What POSIX promises to who writes, as a suite over a directory: run on a shared directory through nydusd, and on a plain one,
// which shows that the suite itself is right.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  futimesSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { CORNERS, runCorner } from './posix-write-corners.ts';

const USER = 1234;
const GROUP = 2345;

function run(
  program: string,
  args: string[],
  options: { uid?: number; gid?: number; cwd?: string } = {},
): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', ...options });
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

function code(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

/** Name of a test, and what it does with an empty directory of its own. */
type Case = readonly [name: string, act: (dir: string) => void];

const CASES: readonly Case[] = [
  [
    'create, write, read, append',
    (dir) => {
      const file = join(dir, 'file');
      writeFileSync(file, 'one');
      appendFileSync(file, ' two');
      assert.equal(readFileSync(file, 'utf8'), 'one two');
      assert.equal(
        code(() => openSync(file, 'wx')),
        'EEXIST',
      );
      assert.equal(
        code(() => openSync(join(dir, 'none'), 'r')),
        'ENOENT',
      );
      assert.equal(
        code(() => openSync(join(file, 'x'), 'w')),
        'ENOTDIR',
      );
    },
  ],
  [
    'positioned writes leave holes that read as zeros',
    (dir) => {
      const fd = openSync(join(dir, 'file'), 'w+');
      writeSync(fd, 'end', 1_000_000);
      writeSync(fd, 'mid', 500_000);
      const all = readFileSync(join(dir, 'file'));
      assert.equal(all.length, 1_000_003);
      assert.ok(all.subarray(0, 500_000).every((byte) => byte === 0));
      assert.equal(all.toString('latin1', 500_000, 500_003), 'mid');
      assert.equal(all.toString('latin1', 1_000_000), 'end');
      closeSync(fd);
    },
  ],
  [
    'large writes and reads are exact',
    (dir) => {
      const data = Buffer.alloc(5_000_001);
      for (let at = 0; at < data.length; at += 4)
        data.writeUInt32LE((at * 2_654_435_761) % 2 ** 32, Math.min(at, data.length - 4));
      writeFileSync(join(dir, 'file'), data);
      assert.ok(readFileSync(join(dir, 'file')).equals(data));
      copyFileSync(join(dir, 'file'), join(dir, 'copy'));
      assert.ok(readFileSync(join(dir, 'copy')).equals(data));
    },
  ],
  [
    'truncate shortens, lengthens, and O_TRUNC empties',
    (dir) => {
      const file = join(dir, 'file');
      writeFileSync(file, '0123456789');
      truncateSync(file, 4);
      assert.equal(readFileSync(file, 'latin1'), '0123');
      truncateSync(file, 6);
      assert.equal(readFileSync(file, 'latin1'), '0123\0\0');
      const fd = openSync(file, 'r+');
      ftruncateSync(fd, 1);
      assert.equal(fstatSync(fd).size, 1);
      closeSync(fd);
      closeSync(openSync(file, 'w'));
      assert.equal(statSync(file).size, 0);
    },
  ],
  [
    'O_APPEND writes at the end, whoever wrote meanwhile',
    (dir) => {
      const file = join(dir, 'file');
      const [a, b] = [openSync(file, 'a'), openSync(file, 'a')];
      for (let n = 0; n < 20; n++) {
        writeSync(a, 'a');
        writeSync(b, 'b');
      }
      closeSync(a);
      closeSync(b);
      assert.equal(readFileSync(file, 'utf8'), 'ab'.repeat(20));
    },
  ],
  [
    'a file that is unlinked stays for who has it open',
    (dir) => {
      const file = join(dir, 'file');
      const fd = openSync(file, 'w+');
      writeSync(fd, 'before');
      unlinkSync(file);
      assert.equal(existsSync(file), false);
      writeSync(fd, ' after');
      const buffer = Buffer.alloc(20);
      assert.equal(readSync(fd, buffer, 0, 20, 0), 12);
      assert.equal(fstatSync(fd).nlink, 0);
      closeSync(fd);
      assert.deepEqual(readdirSync(dir), []);
    },
  ],
  [
    'directories: made, listed, removed only when empty',
    (dir) => {
      mkdirSync(join(dir, 'a/b/c'), { recursive: true });
      writeFileSync(join(dir, 'a/b/file'), '');
      assert.deepEqual(readdirSync(join(dir, 'a/b')).sort(), ['c', 'file']);
      assert.equal(statSync(join(dir, 'a')).nlink, 3);
      assert.equal(
        code(() => mkdirSync(join(dir, 'a'))),
        'EEXIST',
      );
      assert.equal(
        code(() => rmdirSync(join(dir, 'a'))),
        'ENOTEMPTY',
      );
      assert.equal(
        code(() => rmdirSync(join(dir, 'a/b/file'))),
        'ENOTDIR',
      );
      assert.equal(
        code(() => unlinkSync(join(dir, 'a/b/c'))),
        'EISDIR',
      );
      rmdirSync(join(dir, 'a/b/c'));
      unlinkSync(join(dir, 'a/b/file'));
      rmdirSync(join(dir, 'a/b'));
      rmdirSync(join(dir, 'a'));
      assert.deepEqual(readdirSync(dir), []);
    },
  ],
  [
    'a directory of 2,000 entries is listed whole, with types and without doubles',
    (dir) => {
      for (let n = 0; n < 2000; n++) writeFileSync(join(dir, `entry-with-a-long-name-${n}`), '');
      mkdirSync(join(dir, 'sub'));
      const entries = readdirSync(dir, { withFileTypes: true });
      assert.equal(new Set(entries.map(({ name }) => name)).size, 2001);
      assert.deepEqual(
        entries.filter((entry) => entry.isDirectory()).map(({ name }) => name),
        ['sub'],
      );
      assert.equal(run('sh', ['-c', 'ls -la | wc -l'], { cwd: dir }).trim(), '2004');
    },
  ],
  [
    'rename: over a file, over an empty directory, into another directory',
    (dir) => {
      writeFileSync(join(dir, 'a'), 'a');
      writeFileSync(join(dir, 'b'), 'b');
      renameSync(join(dir, 'a'), join(dir, 'b'));
      assert.deepEqual([readdirSync(dir), readFileSync(join(dir, 'b'), 'utf8')], [['b'], 'a']);
      mkdirSync(join(dir, 'd1/sub'), { recursive: true });
      mkdirSync(join(dir, 'd2'));
      renameSync(join(dir, 'd1'), join(dir, 'd2'));
      assert.deepEqual(readdirSync(join(dir, 'd2')), ['sub']);
      renameSync(join(dir, 'b'), join(dir, 'd2/sub/c'));
      assert.equal(readFileSync(join(dir, 'd2/sub/c'), 'utf8'), 'a');
      assert.equal(
        code(() => renameSync(join(dir, 'd2'), join(dir, 'd2/sub/x'))),
        'EINVAL',
      );
      mkdirSync(join(dir, 'full'));
      writeFileSync(join(dir, 'full/x'), '');
      assert.equal(
        code(() => renameSync(join(dir, 'd2'), join(dir, 'full'))),
        'ENOTEMPTY',
      );
      assert.equal(
        code(() => renameSync(join(dir, 'none'), join(dir, 'x'))),
        'ENOENT',
      );
    },
  ],
  [
    'rename: mv -n replaces nothing',
    (dir) => {
      writeFileSync(join(dir, 'a'), 'a');
      writeFileSync(join(dir, 'b'), 'b');
      run('mv', ['-n', 'a', 'b'], { cwd: dir });
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'b');
      assert.equal(readFileSync(join(dir, 'a'), 'utf8'), 'a');
    },
  ],
  [
    'hard links share content and inode, and count',
    (dir) => {
      const [a, b] = [join(dir, 'a'), join(dir, 'b')];
      writeFileSync(a, 'text');
      linkSync(a, b);
      assert.equal(statSync(a).ino, statSync(b).ino);
      assert.equal(statSync(a).nlink, 2);
      appendFileSync(b, '!');
      assert.equal(readFileSync(a, 'utf8'), 'text!');
      unlinkSync(a);
      assert.equal(statSync(b).nlink, 1);
      mkdirSync(join(dir, 'd'));
      assert.equal(
        code(() => linkSync(join(dir, 'd'), join(dir, 'e'))),
        'EPERM',
      );
      assert.equal(
        code(() => linkSync(b, b)),
        'EEXIST',
      );
    },
  ],
  [
    'symbolic links: targets as they are, dangling and absolute ones too',
    (dir) => {
      symlinkSync('nowhere/at all', join(dir, 'dangling'));
      assert.equal(readlinkSync(join(dir, 'dangling')), 'nowhere/at all');
      assert.equal(
        code(() => statSync(join(dir, 'dangling'))),
        'ENOENT',
      );
      writeFileSync(join(dir, 'file'), 'x');
      symlinkSync('file', join(dir, 'link'));
      assert.equal(readFileSync(join(dir, 'link'), 'utf8'), 'x');
      assert.equal(lstatSync(join(dir, 'link')).size, 4);
      symlinkSync('/', join(dir, 'absolute'));
      assert.equal(statSync(join(dir, 'absolute')).ino, statSync('/').ino);
      symlinkSync('loop', join(dir, 'loop'));
      assert.equal(
        code(() => statSync(join(dir, 'loop'))),
        'ELOOP',
      );
    },
  ],
  [
    'modes: as asked for, changed, with set-id and sticky bits',
    (dir) => {
      const file = join(dir, 'file');
      closeSync(openSync(file, 'w', 0o640));
      assert.equal(statSync(file).mode & 0o7777, 0o640);
      chmodSync(file, 0o4755);
      assert.equal(statSync(file).mode & 0o7777, 0o4755);
      chmodSync(file, 0o604);
      assert.equal(statSync(file).mode & 0o7777, 0o604);
      mkdirSync(join(dir, 'd'), 0o711);
      assert.equal(statSync(join(dir, 'd')).mode & 0o7777, 0o711);
      chmodSync(join(dir, 'd'), 0o1777);
      assert.equal(statSync(join(dir, 'd')).mode & 0o7777, 0o1777);
      run('sh', ['-c', 'umask 0; touch open; mkdir wide'], { cwd: dir });
      assert.equal(statSync(join(dir, 'open')).mode & 0o777, 0o666);
      assert.equal(statSync(join(dir, 'wide')).mode & 0o777, 0o777);
    },
  ],
  [
    'owners: those of the caller, the group of a set-group-id directory, changed by root',
    (dir) => {
      chmodSync(dir, 0o777);
      run('sh', ['-c', 'echo x > mine; mkdir dir; ln -s x link; mkfifo fifo'], {
        uid: USER,
        gid: GROUP,
        cwd: dir,
      });
      for (const name of ['mine', 'dir', 'link', 'fifo']) {
        const { uid, gid } = lstatSync(join(dir, name));
        assert.deepEqual([name, uid, gid], [name, USER, GROUP]);
      }
      mkdirSync(join(dir, 'shared'));
      chownSync(join(dir, 'shared'), 0, 77);
      chmodSync(join(dir, 'shared'), 0o2777);
      run('sh', ['-c', 'touch shared/file; mkdir shared/sub'], { uid: USER, gid: GROUP, cwd: dir });
      assert.equal(statSync(join(dir, 'shared/file')).gid, 77);
      assert.equal(statSync(join(dir, 'shared/sub')).gid, 77);
      assert.equal(statSync(join(dir, 'shared/sub')).mode & 0o2000, 0o2000);
      chownSync(join(dir, 'mine'), 5, 6);
      assert.deepEqual([statSync(join(dir, 'mine')).uid, statSync(join(dir, 'mine')).gid], [5, 6]);
    },
  ],
  [
    'permissions: what others may not do is refused',
    (dir) => {
      chmodSync(dir, 0o755);
      writeFileSync(join(dir, 'secret'), 'x', { mode: 0o600 });
      mkdirSync(join(dir, 'closed'), 0o700);
      const asUser = (command: string): string =>
        spawnSync('sh', ['-c', command], { cwd: dir, uid: USER, gid: GROUP, encoding: 'utf8' }).stderr;
      assert.match(asUser('cat secret'), /Permission denied/);
      assert.match(asUser('echo x > new'), /Permission denied|cannot create/);
      assert.match(asUser('ls closed'), /Permission denied/);
      assert.match(asUser('rm -f secret'), /Permission denied/);
      assert.match(asUser('chmod 777 secret'), /Operation not permitted/);
      accessSync(join(dir, 'secret'), constants.W_OK);
    },
  ],
  [
    'sticky directories: others do not remove what is mine',
    (dir) => {
      chmodSync(dir, 0o1777);
      writeFileSync(join(dir, 'mine'), 'x');
      const { status } = spawnSync('rm', ['-f', 'mine'], { cwd: dir, uid: USER, gid: GROUP });
      assert.equal(status, 1);
      assert.equal(existsSync(join(dir, 'mine')), true);
    },
  ],
  [
    'times: set to the nanosecond, of links too, and moved by writing',
    (dir) => {
      const file = join(dir, 'file');
      writeFileSync(file, 'x');
      run('touch', ['-d', '2001-02-03 04:05:06.123456789 UTC', file]);
      assert.equal(statSync(file, { bigint: true }).mtimeNs, 981173106123456789n);
      utimesSync(file, 10, 20);
      assert.deepEqual([statSync(file).atimeMs, statSync(file).mtimeMs], [10_000, 20_000]);
      run('touch', ['-d', '@-7', file]);
      assert.equal(statSync(file).mtimeMs, -7000);
      symlinkSync('file', join(dir, 'link'));
      lutimesSync(join(dir, 'link'), 30, 40);
      assert.equal(lstatSync(join(dir, 'link')).mtimeMs, 40_000);
      assert.equal(statSync(file).mtimeMs, -7000);
      const fd = openSync(file, 'r+');
      futimesSync(fd, 50, 60);
      assert.equal(fstatSync(fd).mtimeMs, 60_000);
      writeSync(fd, 'y');
      closeSync(fd);
      assert.ok(statSync(file).mtimeMs > 1e12);
    },
  ],
  [
    'extended attributes: set, listed, read, removed',
    (dir) => {
      const file = join(dir, 'file');
      writeFileSync(file, 'x');
      run('setfattr', ['-n', 'user.one', '-v', 'value', file]);
      run('setfattr', ['-n', 'trusted.two', '-v', '0x00ff', file]);
      assert.match(run('getfattr', ['-d', '-m', '-', file]), /user\.one="value"/);
      assert.match(run('getfattr', ['-n', 'trusted.two', '-e', 'hex', file]), /trusted\.two=0x00ff/);
      run('setfattr', ['-x', 'user.one', file]);
      assert.equal(spawnSync('getfattr', ['-n', 'user.one', file]).status, 1);
      const long = 'v'.repeat(2000);
      run('setfattr', ['-n', 'user.long', '-v', long, file]);
      assert.match(run('getfattr', ['-n', 'user.long', file]), new RegExp(long));
    },
  ],
  [
    'devices, FIFOs and sockets keep type and number',
    (dir) => {
      run('mknod', [join(dir, 'null'), 'c', '1', '3']);
      run('mknod', [join(dir, 'disk'), 'b', '259', '70000']);
      run('mkfifo', [join(dir, 'fifo')]);
      assert.equal(run('stat', ['-c', '%F %t,%T', join(dir, 'null')]).trim(), 'character special file 1,3');
      assert.equal(run('stat', ['-c', '%F %t,%T', join(dir, 'disk')]).trim(), 'block special file 103,11170');
      assert.equal(lstatSync(join(dir, 'fifo')).isFIFO(), true);
      const copied = run('sh', ['-c', '(echo through > fifo &) ; cat fifo'], { cwd: dir });
      assert.equal(copied, 'through\n');
    },
  ],
  [
    'programs run from it, and are mapped',
    (dir) => {
      copyFileSync('/bin/true', join(dir, 'true'));
      chmodSync(join(dir, 'true'), 0o755);
      run(join(dir, 'true'), []);
      writeFileSync(join(dir, 'script'), '#!/bin/sh\necho ran $1\n', { mode: 0o755 });
      assert.equal(run(join(dir, 'script'), ['well']), 'ran well\n');
    },
  ],
  [
    'memory that is mapped shared reaches the file',
    (dir) => {
      writeFileSync(join(dir, 'file'), Buffer.alloc(10_000, '.'));
      const script = `import mmap, os
fd = os.open('file', os.O_RDWR)
m = mmap.mmap(fd, 10000)
m[5000:5005] = b'HELLO'
m.flush(); m.close(); os.close(fd)`;
      run('python3', ['-c', script], { cwd: dir });
      assert.equal(readFileSync(join(dir, 'file'), 'latin1').slice(4998, 5007), '..HELLO..');
    },
  ],
  [
    'space: reserved, punched, searched for holes',
    (dir) => {
      run('fallocate', ['-l', '1000000', join(dir, 'file')]);
      assert.equal(statSync(join(dir, 'file')).size, 1_000_000);
      writeFileSync(join(dir, 'data'), Buffer.alloc(400_000, 'd'));
      run('fallocate', ['-p', '-o', '65536', '-l', '131072', join(dir, 'data')]);
      const data = readFileSync(join(dir, 'data'));
      assert.equal(data.length, 400_000);
      assert.ok(data.subarray(65536, 196608).every((byte) => byte === 0));
      const script = `import os
fd = os.open('data', os.O_RDONLY)
print(os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 65536, os.SEEK_DATA))`;
      assert.equal(run('python3', ['-c', script], { cwd: dir }), '65536 196608\n');
    },
  ],
  [
    'files without a name are linked into place',
    (dir) => {
      const script = `import os
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(fd, b'nameless')
os.link('/proc/self/fd/%d' % fd, 'named', src_dir_fd=0, follow_symlinks=True)`;
      run('python3', ['-c', script], { cwd: dir });
      assert.equal(readFileSync(join(dir, 'named'), 'utf8'), 'nameless');
    },
  ],
  [
    'a range is copied inside the file system',
    (dir) => {
      writeFileSync(join(dir, 'from'), Buffer.alloc(300_000, 'ab'));
      const script = `import os
a = os.open('from', os.O_RDONLY); b = os.open('to', os.O_RDWR | os.O_CREAT, 0o644)
done = 0
while done < 200000:
    done += os.copy_file_range(a, b, 200000 - done, 1 + done, 5 + done)
print(done)`;
      assert.equal(run('python3', ['-c', script], { cwd: dir }), '200000\n');
      const to = readFileSync(join(dir, 'to'));
      assert.equal(to.length, 200_005);
      assert.ok(to.subarray(5).equals(Buffer.alloc(300_000, 'ab').subarray(1, 200_001)));
    },
  ],
  [
    'locks: fcntl and flock exclude another process',
    (dir) => {
      writeFileSync(join(dir, 'file'), 'x');
      const script = `import fcntl, os, subprocess, sys
fd = os.open('file', os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX)
other = 'import fcntl, os\\nfd = os.open("file", os.O_RDWR)\\nfcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)'
print(subprocess.run([sys.executable, '-c', other], stderr=subprocess.DEVNULL).returncode)
fcntl.lockf(fd, fcntl.LOCK_UN)
print(subprocess.run([sys.executable, '-c', other], stderr=subprocess.DEVNULL).returncode)`;
      assert.equal(run('python3', ['-c', script], { cwd: dir }), '1\n0\n');
      run('flock', ['file', 'true'], { cwd: dir });
    },
  ],
  [
    'names: 255 bytes, any byte but slash and NUL, 256 are too many',
    (dir) => {
      writeFileSync(join(dir, 'n'.repeat(255)), 'long');
      assert.equal(
        code(() => writeFileSync(join(dir, 'n'.repeat(256)), '')),
        'ENAMETOOLONG',
      );
      const odd = Buffer.from([0x80, 0xff, 0x0a, 0x20, 0x22]);
      writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), odd]), 'odd');
      const names = readdirSync(Buffer.from(dir), { encoding: 'buffer' });
      assert.ok(names.some((name) => name.equals(odd)));
    },
  ],
  [
    'fsync and statfs answer',
    (dir) => {
      const fd = openSync(join(dir, 'file'), 'w');
      writeSync(fd, 'x');
      fsyncSync(fd);
      closeSync(fd);
      run('sync', ['-d', join(dir, 'file')]);
      run('sync', [dir]);
      assert.ok(statfsSync(dir).blocks > 0);
    },
  ],
  [
    'tar packs and unpacks it',
    (dir) => {
      mkdirSync(join(dir, 'tree/sub'), { recursive: true });
      for (let n = 0; n < 50; n++) writeFileSync(join(dir, `tree/sub/${n}`), `file ${n}`);
      run('sh', ['-c', 'tar -cf t.tar tree && mkdir out && tar -xf t.tar -C out && diff -r tree out/tree'], {
        cwd: dir,
      });
    },
  ],
  [
    'four writers at once do not disturb each other',
    (dir) => {
      const script = `for n in 1 2 3 4; do (i=0; while [ $i -lt 100 ]; do echo "$n $i" >> "out$n"; mkdir -p "d$n/$i"; mv "d$n/$i" "d$n/moved$i"; i=$((i+1)); done) & done; wait`;
      run('sh', ['-c', script], { cwd: dir });
      for (const n of [1, 2, 3, 4]) {
        const lines = readFileSync(join(dir, `out${n}`), 'utf8')
          .trim()
          .split('\n');
        assert.deepEqual(
          lines,
          Array.from({ length: 100 }, (_, i) => `${n} ${i}`),
        );
        assert.equal(readdirSync(join(dir, `d${n}`)).length, 100);
      }
    },
  ],
];

/** Run all cases below `root`, each in a directory of its own. */
export async function posixWriteSuite(t: TestContext, root: string): Promise<void> {
  for (const [at, [name, act]] of CASES.entries()) {
    await t.test(name, () => {
      const dir = join(root, `case${at}`);
      mkdirSync(dir);
      act(dir);
    });
  }
  for (const [at, corner] of CORNERS.entries()) {
    await t.test(corner.name, () => {
      const dir = join(root, `corner${at}`);
      mkdirSync(dir);
      runCorner(corner, dir);
    });
  }
}
