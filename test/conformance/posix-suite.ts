// What POSIX and Linux promise of a read-only file system, checked through system calls on any mount: /dev/fuse,
// virtio-fs in a VM, kernel EROFS. The tree is described by a golden manifest; everything else follows from it.
// Whoever serves the mount must not be this thread: the calls here block.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import type { TestContext } from 'node:test';
import { mapFile } from '../../src/native/mmap.ts';
import { getXattr, setXattr } from '../../src/native/xattr.ts';
import type { ManifestEntry } from '../support/golden.ts';
import { compareTree, fileDigest } from '../support/tree-manifest.ts';

/** What is expected of a mount. */
export interface PosixExpectations {
  /** every entry of the tree */
  manifest: ManifestEntry[];
  /** fields of the manifest that this kind of mount shows otherwise; see CompareOptions.ignore */
  ignore?: string[];
  /** seconds between which it was mounted */
  mountedBetween?: [number, number];
  /** top byte of every st_ino; undefined = not checked */
  inoIndex?: number;
  /** extended attributes are answered; otherwise they are unsupported */
  xattrs: boolean;
}

interface Tree {
  root: Buffer;
  expectations: PosixExpectations;
  files: ManifestEntry[];
  directories: ManifestEntry[];
}

const SLASH = Buffer.from('/');

function below(root: Buffer, path: Buffer): Buffer {
  return path.length === 1 ? root : Buffer.concat([root, path]);
}

function child(directory: Buffer, name: string | Buffer): Buffer {
  return Buffer.concat([directory, SLASH, Buffer.from(name)]);
}

/** Assert that a call fails with this errno. */
function fails(code: string, call: () => unknown): void {
  assert.throws(call, (error: NodeJS.ErrnoException) => {
    assert.equal(error.code, code);
    return true;
  });
}

function withFile<T>(path: Buffer, use: (fd: number) => T): T {
  const fd = fs.openSync(path, 'r');
  try {
    return use(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function largest(tree: Tree): ManifestEntry {
  const file = tree.files.toSorted((a, b) => (b.size ?? 0) - (a.size ?? 0))[0];
  assert.ok(file !== undefined, 'the tree has no files');
  return file;
}

const dirent: Record<string, (entry: fs.Dirent<Buffer>) => boolean> = {
  dir: (entry) => entry.isDirectory(),
  file: (entry) => entry.isFile(),
  symlink: (entry) => entry.isSymbolicLink(),
  char: (entry) => entry.isCharacterDevice(),
  block: (entry) => entry.isBlockDevice(),
  fifo: (entry) => entry.isFIFO(),
  socket: (entry) => entry.isSocket(),
};

const CASES: Record<string, (tree: Tree) => void> = {
  'every entry: attributes, content, links and xattrs are the image’s': ({ root, expectations }) => {
    const { manifest, ignore, mountedBetween } = expectations;
    const options = { ...(ignore ? { ignore } : {}), ...(mountedBetween ? { mountedBetween } : {}) };
    assert.deepEqual(compareTree(root.toString(), manifest, options), []);
  },

  'every entry again: the kernel’s caches say the same': ({ root, expectations }) => {
    const { manifest, ignore, mountedBetween } = expectations;
    const options = { ...(ignore ? { ignore } : {}), ...(mountedBetween ? { mountedBetween } : {}) };
    assert.deepEqual(compareTree(root.toString(), manifest, options), []);
  },

  'st_ino: carries the backend index': ({ root, expectations, files, directories }) => {
    if (expectations.inoIndex === undefined) return;
    for (const { path } of [...files, ...directories]) {
      const { ino } = fs.lstatSync(below(root, path), { bigint: true });
      assert.equal(ino >> 56n, BigInt(expectations.inoIndex), path.toString());
    }
  },

  'st_ino: names of one file agree, different files differ': ({ root, expectations }) => {
    const seen = new Map<bigint, ManifestEntry>();
    for (const entry of expectations.manifest) {
      const { ino, nlink } = fs.lstatSync(below(root, entry.path), { bigint: true });
      const other = seen.get(ino);
      if (other !== undefined) {
        assert.ok(nlink > 1n, `${entry.path.toString()} and ${other.path.toString()} share inode ${ino}`);
        assert.equal(entry.sha256, other.sha256);
      }
      seen.set(ino, entry);
    }
  },

  'readdir: every name once, with its true type': ({ root, expectations, directories }) => {
    for (const { path } of directories) {
      const names = new Map<string, ManifestEntry>();
      for (const entry of expectations.manifest) {
        const cut = entry.path.lastIndexOf(0x2f);
        const parent = entry.path.subarray(0, Math.max(1, cut));
        if (entry.path.length > 1 && parent.equals(path))
          names.set(entry.path.toString('latin1', cut + 1), entry);
      }
      const listed = fs.readdirSync(below(root, path), { withFileTypes: true, encoding: 'buffer' });
      for (const entry of listed) {
        const name = entry.name.toString('latin1');
        const expected = names.get(name);
        assert.ok(expected !== undefined, `${path.toString()} lists ${name} twice, or it is not there`);
        assert.ok(
          dirent[expected.type]?.(entry),
          `d_type of ${path.toString()}/${name} is not ${expected.type}`,
        );
        names.delete(name);
      }
      assert.deepEqual([...names.keys()], [], `${path.toString()} does not list`);
    }
  },

  'readdir: a listing in small pieces is the same as a whole one': ({ root, directories }) => {
    for (const { path } of directories) {
      const whole = fs.readdirSync(below(root, path), { encoding: 'buffer' }).map(String);
      const dir = fs.opendirSync(below(root, path).toString(), { bufferSize: 1 });
      const pieces: string[] = [];
      for (let entry = dir.readSync(); entry !== null; entry = dir.readSync()) pieces.push(entry.name);
      dir.closeSync();
      assert.deepEqual(pieces.toSorted(), whole.toSorted());
    }
  },

  'lookup: a missing name is ENOENT, the second time too': ({ root, directories }) => {
    for (const { path } of directories) {
      const missing = child(below(root, path), 'no-such-name');
      fails('ENOENT', () => fs.lstatSync(missing));
      fails('ENOENT', () => fs.lstatSync(missing));
      fails('ENOENT', () => fs.openSync(missing, 'r'));
    }
  },

  'lookup: a file is no directory': ({ root, files }) => {
    for (const { path } of files.slice(0, 20)) {
      fails('ENOTDIR', () => fs.lstatSync(child(below(root, path), 'x')));
      fails('ENOTDIR', () => fs.readdirSync(below(root, path)));
      fails('ENOTDIR', () =>
        fs.openSync(below(root, path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY),
      );
    }
  },

  'lookup: names longer than 255 bytes are ENAMETOOLONG': ({ root }) => {
    fails('ENAMETOOLONG', () => fs.lstatSync(child(root, 'n'.repeat(256))));
    fails('ENOENT', () => fs.lstatSync(child(root, 'n'.repeat(255))));
  },

  'lookup: . and .. lead where they should': ({ root, directories }) => {
    for (const { path } of directories) {
      const here = fs.lstatSync(below(root, path), { bigint: true }).ino;
      assert.equal(fs.lstatSync(child(below(root, path), '.'), { bigint: true }).ino, here);
      if (path.length === 1) continue;
      const parent = path.subarray(0, Math.max(1, path.lastIndexOf(0x2f)));
      const up = fs.lstatSync(below(root, parent), { bigint: true }).ino;
      assert.equal(fs.lstatSync(child(below(root, path), '..'), { bigint: true }).ino, up);
    }
  },

  'open: a directory cannot be read as a file': ({ root, directories }) => {
    const buffer = Buffer.alloc(10);
    for (const { path } of directories.slice(0, 5)) {
      withFile(below(root, path), (fd) => fails('EISDIR', () => fs.readSync(fd, buffer)));
    }
  },

  'open: O_NOFOLLOW on a symlink is ELOOP': ({ root, expectations }) => {
    for (const { path, type } of expectations.manifest) {
      if (type !== 'symlink') continue;
      fails('ELOOP', () => fs.openSync(below(root, path), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW));
    }
  },

  'read: pieces of any size and place are parts of the whole': (tree) => {
    const file = largest(tree);
    const whole = fs.readFileSync(below(tree.root, file.path));
    const buffer = Buffer.alloc(300_000);
    let state = 12345;
    const next = (limit: number): number => {
      state = (state * 1103515245 + 12345) % 2147483648;
      return state % limit;
    };
    withFile(below(tree.root, file.path), (fd) => {
      for (let i = 0; i < 200; i++) {
        const offset = next(whole.length + 10_000);
        const size = 1 + next(buffer.length);
        const count = fs.readSync(fd, buffer, 0, size, offset);
        const expected = whole.subarray(offset, offset + size);
        assert.equal(count, expected.length, `${size} bytes at ${offset}`);
        assert.ok(buffer.subarray(0, count).equals(expected), `${size} bytes at ${offset} differ`);
      }
    });
  },

  'read: the end of a file is short, beyond it nothing': ({ root, files }) => {
    const buffer = Buffer.alloc(100);
    for (const { path, size = 0 } of files) {
      withFile(below(root, path), (fd) => {
        assert.equal(fs.readSync(fd, buffer, 0, 100, Math.max(0, size - 10)), Math.min(10, size));
        assert.equal(fs.readSync(fd, buffer, 0, 100, size), 0);
        assert.equal(fs.readSync(fd, buffer, 0, 100, size + 1_000_000), 0);
        assert.equal(fs.fstatSync(fd).size, size);
      });
    }
  },

  'mmap: shows what read shows': (tree) => {
    for (const { path, sha256 } of tree.files.filter(({ size = 0 }) => size > 0).slice(0, 50)) {
      const mapping = mapFile(below(tree.root, path).toString());
      assert.equal(createHash('sha256').update(mapping.bytes).digest('hex'), sha256);
      mapping.unmap();
    }
  },

  'read: many readers of many files at once see the same bytes': (tree) => {
    const script = `
      const fs = require('node:fs'), { createHash } = require('node:crypto');
      const want = JSON.parse(fs.readFileSync(0, 'utf8'));
      const digest = async (path) => {
        const hash = createHash('sha256');
        for await (const part of fs.createReadStream(path, { highWaterMark: 40000 })) hash.update(part);
        return hash.digest('hex');
      };
      Promise.all([...want, ...want, ...want].map(async ([path, sha256]) => {
        const seen = await digest(Buffer.from(path, 'hex'));
        if (seen !== sha256) throw new Error(path + ' has ' + seen);
      })).then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });`;
    const want = tree.files.map(({ path, sha256 }) => [below(tree.root, path).toString('hex'), sha256]);
    const result = spawnSync(process.execPath, ['-e', script], {
      input: JSON.stringify(want),
      encoding: 'utf8',
    });
    assert.equal(result.status, 0, result.stderr);
  },

  'write: everything that would change the tree is EROFS': (tree) => {
    const { root } = tree;
    const file = below(root, largest(tree).path);
    const fresh = child(root, 'fresh');
    const { O_RDWR, O_WRONLY, O_CREAT, O_TRUNC, O_RDONLY, W_OK } = fs.constants;
    const calls: (() => unknown)[] = [
      () => fs.openSync(file, O_WRONLY),
      () => fs.openSync(file, O_RDWR),
      () => fs.openSync(file, O_RDONLY | O_TRUNC),
      () => fs.openSync(fresh, O_WRONLY | O_CREAT),
      () => fs.truncateSync(file.toString(), 0),
      () => fs.mkdirSync(fresh),
      () => fs.unlinkSync(file),
      () => fs.renameSync(file, fresh),
      () => fs.linkSync(file, fresh),
      () => fs.symlinkSync('x', fresh),
      () => fs.chmodSync(file, 0o600),
      () => fs.lchownSync(file, 1, 1),
      () => fs.utimesSync(file, 1, 1),
      () => fs.accessSync(file, W_OK),
      () => setXattr(file, Buffer.from('user.fresh'), Buffer.from('x')),
    ];
    for (const call of calls) fails('EROFS', call);
    for (const { path } of tree.directories)
      if (path.length > 1) fails('EROFS', () => fs.rmdirSync(below(root, path)));
    assert.equal(fs.existsSync(fresh), false);
    assert.equal(fileDigest(file), largest(tree).sha256);
  },

  'xattr: absent names are ENODATA, or all are unsupported': ({ root, expectations, files, directories }) => {
    for (const { path } of [...files.slice(0, 10), ...directories.slice(0, 10)]) {
      const name = Buffer.from('user.no-such-name');
      if (expectations.xattrs) assert.equal(getXattr(below(root, path), name), undefined);
      else fails('EOPNOTSUPP', () => getXattr(below(root, path), name));
    }
  },

  'permission: another user is bound by the permission bits': ({ root, expectations, files }) => {
    if (process.getuid?.() !== 0) return;
    const nobody = 65534;
    const reachable = (path: Buffer): boolean =>
      expectations.manifest.every(
        ({ path: dir, type, mode }) =>
          type !== 'dir' ||
          !(dir.length === 1 || path.indexOf(Buffer.concat([dir, SLASH])) === 0) ||
          (mode & 1) !== 0,
      );
    // owner and group classes apply to nobody too, so files of nobody are left out
    const readable = files.filter(
      ({ uid, gid, path }) => uid !== nobody && gid !== nobody && reachable(path),
    );
    const script = `
      const fs = require('node:fs');
      const answers = JSON.parse(fs.readFileSync(0, 'utf8')).map((path) => {
        try { fs.closeSync(fs.openSync(Buffer.from(path, 'hex'), 'r')); return 'ok'; } catch (error) { return error.code; }
      });
      process.stdout.write(JSON.stringify(answers));`;
    const input = JSON.stringify(readable.map(({ path }) => below(root, path).toString('hex')));
    const result = spawnSync(process.execPath, ['-e', script], {
      input,
      encoding: 'utf8',
      uid: nobody,
      gid: nobody,
    });
    assert.equal(result.status, 0, result.stderr);
    const expected = readable.map(({ mode }) => ((mode & 4) !== 0 ? 'ok' : 'EACCES'));
    assert.deepEqual(JSON.parse(result.stdout), expected);
  },

  'statfs: says something sensible': ({ root }) => {
    const answer = fs.statfsSync(root);
    assert.ok(answer.bsize >= 512);
    assert.equal(answer.bfree, 0);
    assert.equal(answer.bavail, 0);
  },
};

/** Names of all cases. */
export const POSIX_CASES: readonly string[] = Object.keys(CASES);

/**
 * Run every case as a subtest.
 *
 * @param root  mountpoint, served by another process or thread
 * @param skip  cases that this kind of mount cannot pass, each with the reason
 */
export async function posixSuite(
  t: TestContext,
  root: string,
  expectations: PosixExpectations,
  skip: Record<string, string> = {},
): Promise<void> {
  const tree: Tree = {
    root: Buffer.from(root),
    expectations,
    files: expectations.manifest.filter(({ type }) => type === 'file'),
    directories: expectations.manifest.filter(({ type }) => type === 'dir'),
  };
  for (const name of Object.keys(skip)) assert.ok(name in CASES, `no such case: ${name}`);
  for (const [name, run] of Object.entries(CASES)) {
    await t.test(name, { skip: skip[name] ?? false }, () => run(tree));
  }
}
