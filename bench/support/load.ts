// The load generator, one child process per client: waits for a line on stdin, does one kind of call on its share of the
// paths, prints one JSON line. Its own cost, 1 to 2 µs a call, is in every figure: ratios to fast systems look smaller than they are.
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { getXattr } from '../../src/native/xattr.ts';
import { SystemError } from '../../src/native/libc.ts';

/** Kinds of load. Paths are relative to the root of the mount. */
export type Load = 'stat' | 'getxattr' | 'missing' | 'open4k' | 'readall' | 'readdir' | 'walk';

export interface LoadResult {
  operations: number;
  bytes: number;
  /** ns since an arbitrary point that all processes of the machine share */
  began: number;
  ended: number;
  /** µs */
  p50: number;
  p99: number;
}

const piece = Buffer.allocUnsafe(1 << 20);
const xattrName = Buffer.from('user.nydus.bench');

function drain(path: string): number {
  const fd = openSync(path, 'r');
  let bytes = 0;
  for (;;) {
    const count = readSync(fd, piece, 0, piece.length, null);
    bytes += count;
    if (count < piece.length) break;
  }
  closeSync(fd);
  return bytes;
}

/** One call. @returns operations done and bytes read */
function call(kind: Load, path: string): [operations: number, bytes: number] {
  switch (kind) {
    case 'stat':
      lstatSync(path);
      return [1, 0];
    case 'missing':
      return lstatSync(`${path}.missing`, { throwIfNoEntry: false }) === undefined ? [1, 0] : [0, 0];
    case 'getxattr':
      try {
        getXattr(Buffer.from(path), xattrName);
      } catch (error) {
        if (!(error instanceof SystemError) || error.code !== 'EOPNOTSUPP') throw error;
      }
      return [1, 0];
    case 'open4k': {
      const fd = openSync(path, 'r');
      const count = readSync(fd, piece, 0, 4096, 0);
      closeSync(fd);
      return [1, count];
    }
    case 'readall':
      return [1, drain(path)];
    case 'readdir':
      return [readdirSync(path).length, 0];
    case 'walk': {
      const names = readdirSync(path);
      for (const name of names) lstatSync(join(path, name));
      return [names.length, 0];
    }
  }
}

function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function main(): void {
  const [kind, root = '', list = '', part, parts] = process.argv.slice(2);
  const all = readFileSync(list, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
  const paths = all.filter((_, at) => at % Number(parts) === Number(part)).map((path) => join(root, path));
  const times = new Float64Array(paths.length);
  process.stdout.write('ready\n');
  readSync(0, Buffer.alloc(1)); // the starting shot
  let [operations, bytes] = [0, 0];
  const began = process.hrtime.bigint();
  let last = performance.now();
  for (let at = 0; at < paths.length; at++) {
    const [done, read] = call(kind as Load, paths[at] ?? '');
    operations += done;
    bytes += read;
    const now = performance.now();
    times[at] = (now - last) * 1000;
    last = now;
  }
  const ended = process.hrtime.bigint();
  times.sort();
  const result: LoadResult = {
    operations,
    bytes,
    began: Number(began),
    ended: Number(ended),
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

if (import.meta.main) main();
