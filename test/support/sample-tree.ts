// A deterministic source tree with the sizes at which things go wrong: around blocks, chunks and directory blocks.
import { createHash } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setXattr } from '../../src/native/xattr.ts';
import { chmodBytes, chownBytes, setTimes } from './file-attributes.ts';
import { walkTree } from './tree-manifest.ts';

/** Bytes that do not compress and depend on the seed alone. */
export function noise(seed: string, size: number): Buffer {
  const out = Buffer.alloc(size);
  let block = createHash('sha512').update(seed).digest();
  for (let at = 0; at < size; at += 64) {
    block.copy(out, at);
    block = createHash('sha512').update(block).digest();
  }
  return out;
}

/** Text that compresses well. */
export function text(seed: string, size: number): Buffer {
  const line = (at: number): string => `${seed} line ${at} of a file that a compressor likes\n`;
  const pieces: string[] = [];
  for (let at = 0, length = 0; length < size; at++) {
    pieces.push(line(at));
    length += pieces.at(-1)?.length ?? 0;
  }
  return Buffer.from(pieces.join('').slice(0, size));
}

export interface SampleOptions {
  /** owners and trusted xattrs too; needs root */
  root: boolean;
}

/** Make the tree in an existing directory. About 12 MB in 2,700 entries. */
export function makeSampleTree(dir: string, options: SampleOptions): void {
  const put = (name: string, data: Uint8Array): void => writeFileSync(join(dir, name), data);
  mkdirSync(join(dir, 'sizes'));
  for (const unit of [4096, 65536, 1 << 20]) {
    for (const delta of [-1, 0, 1])
      put(`sizes/${unit}${delta < 0 ? '' : '+'}${delta}`, noise(`${unit}${delta}`, unit + delta));
  }
  put('sizes/empty', Buffer.alloc(0));
  put('sizes/one', Buffer.from('1'));
  put('sizes/text3m', text('a', 3 * (1 << 20) + 5));
  put('sizes/text3m-again', text('a', 3 * (1 << 20) + 5));
  put('sizes/zeros', Buffer.alloc(200_000));
  const sparse = openSync(join(dir, 'sizes/sparse'), 'w');
  writeSync(sparse, 'in the middle', 1_500_000);
  closeSync(sparse);
  truncateSync(join(dir, 'sizes/sparse'), 4_000_001);

  mkdirSync(join(dir, 'many'));
  for (let at = 0; at < 2500; at++)
    put(`many/file-${String(at).padStart(5, '0')}`, Buffer.from(`content ${at % 700}`));
  let deep = join(dir, 'deep');
  for (let level = 0; level < 60; level++) {
    mkdirSync(deep);
    deep = join(deep, `level-${level}`);
  }
  writeFileSync(deep, 'at the bottom');

  mkdirSync(join(dir, 'names'));
  put(`names/${'n'.repeat(255)}`, Buffer.from('longest name'));
  writeFileSync(
    Buffer.concat([Buffer.from(join(dir, 'names/')), Buffer.of(0xff, 0xfe, 0x0a, 0x20, 0x25)]),
    'not UTF-8',
  );
  put('names/\u{1f600} 文件', Buffer.from('unicode'));
  symlinkSync('../sizes/one', join(dir, 'names/link'));
  symlinkSync('x'.repeat(4000), join(dir, 'names/long-link'));
  linkSync(join(dir, 'sizes/one'), join(dir, 'names/hard'));
  linkSync(join(dir, 'sizes/one'), join(dir, 'many/hard'));

  mkdirSync(join(dir, 'modes'));
  for (const mode of [0o000, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o1777]) {
    const path = Buffer.from(join(dir, `modes/${mode.toString(8)}`));
    writeFileSync(path, mode.toString(8));
    if (options.root) chownBytes(path, mode, mode === 0o644 ? 4294967294 : 1000);
    chmodBytes(path, mode);
  }
  put('modes/attributes', Buffer.from('xattrs'));
  const name = options.root ? 'trusted.nydus' : 'user.nydus';
  setXattr(Buffer.from(join(dir, 'modes/attributes')), Buffer.from(name), Buffer.from([0, 255, 1]));

  for (const entry of walkTree(dir).toReversed()) {
    if (entry.type === 'symlink') continue;
    const path = entry.path.length === 1 ? Buffer.from(dir) : Buffer.concat([Buffer.from(dir), entry.path]);
    setTimes(path, 1_500_000_000 + entry.path.length, entry.path.length * 1000);
  }
}
