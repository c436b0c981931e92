// Source trees, made once from files of this machine: the same machine gives the same trees.
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { BenchContext } from './context.ts';

/** 29,000 small files, 270 MB: PERFORMANCE section 1 and 3. */
const MANY_FILES = 29_000;
const MANY_BYTES = 270_000_000;
/** 605 MB in three files: section 1 and 3. */
const LARGE_BYTES = 605_000_000;
const LARGE_FILES = 3;
/** Inodes for start and memory: section 4. */
const INODES = 100_000;

const ROOTS = ['/usr/share', '/usr/lib', '/usr/include', '/usr'];

/** Regular files below a folder in byte order, links and other file systems left out. */
function* filesBelow(root: string, device: number): Generator<{ path: string; size: number }> {
  const names = readdirSync(root, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of names) {
    const path = join(root, entry.name);
    if (entry.isDirectory()) {
      if (statSync(path, { throwIfNoEntry: false })?.dev === device) yield* filesBelow(path, device);
    } else if (entry.isFile()) {
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      if (size > 0) yield { path, size };
    }
  }
}

/** Make a tree once: in a draft folder, renamed when whole. */
function once(context: BenchContext, name: string, make: (dir: string) => void): string {
  const dir = join(context.dir, 'trees', name);
  if (existsSync(dir)) return dir;
  context.note(`making the tree "${name}" (once)`);
  const draft = `${dir}.draft`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true });
  make(draft);
  renameSync(draft, dir);
  return dir;
}

/** Many small files. The running average is kept at the wanted size by passing over files that are too large for it. */
export function manyFiles(context: BenchContext): string {
  return once(context, 'many', (dir) => {
    const average = MANY_BYTES / MANY_FILES;
    const taken = new Set<string>();
    let [count, bytes, lap] = [0, 0, 0];
    while (count < MANY_FILES) {
      const before = count;
      for (const root of ROOTS) {
        for (const { path, size } of filesBelow(root, statSync(root).dev)) {
          if (count >= MANY_FILES) break;
          const place = join(dir, lap === 0 ? '' : `lap${lap}`, path);
          if (taken.has(place) || size > 200_000 || bytes + size > (count + 1) * average + 1_000_000)
            continue;
          taken.add(place);
          mkdirSync(dirname(place), { recursive: true });
          cpSync(path, place);
          count++;
          bytes += size;
        }
      }
      if (count === before) throw new Error('this machine has too few files in /usr for the benchmark tree');
      lap++;
    }
  });
}

/** Three large files, cut from the large files of the machine. */
export function largeFiles(context: BenchContext): string {
  return once(context, 'large', (dir) => {
    const sources = [...filesBelow('/usr', statSync('/usr').dev)].filter(({ size }) => size > 4_000_000);
    const piece = Buffer.allocUnsafe(1 << 20);
    let [source, offset] = [0, 0];
    let input = openSync(sources[0]?.path ?? '/usr/bin/env', 'r');
    for (let file = 0; file < LARGE_FILES; file++) {
      const output = openSync(join(dir, `large-${file}`), 'w');
      for (let left = Math.floor(LARGE_BYTES / LARGE_FILES); left > 0;) {
        const count = readSync(input, piece, 0, Math.min(left, piece.length), offset);
        if (count === 0) {
          closeSync(input);
          source = (source + 1) % Math.max(1, sources.length);
          input = openSync(sources[source]?.path ?? '/usr/bin/env', 'r');
          offset = 0;
          continue;
        }
        writeSync(output, piece, 0, count);
        offset += count;
        left -= count;
      }
      closeSync(output);
    }
    closeSync(input);
  });
}

/** A hundred thousand inodes with a few bytes each. */
export function manyInodes(context: BenchContext): string {
  return once(context, 'inodes', (dir) => {
    const perDir = 500;
    for (let at = 0; at < INODES; at++) {
      const folder = join(dir, `d${String(Math.floor(at / perDir)).padStart(4, '0')}`);
      if (at % perDir === 0) mkdirSync(folder);
      writeFileSync(join(folder, `file-${String(at).padStart(6, '0')}`), `${at % 1000}`);
    }
  });
}

/** Paths of all regular files, relative to the root, in byte order. */
export function relativeFiles(root: string): string[] {
  return [...filesBelow(root, statSync(root).dev)].map(({ path }) => path.slice(root.length + 1));
}

/** Bytes of all regular files. */
export function treeBytes(root: string): number {
  return [...filesBelow(root, statSync(root).dev)].reduce((sum, { size }) => sum + size, 0);
}

/** Files with the paths of all files of the tree `many`, and of all directories: what loads go through. */
export function pathLists(context: BenchContext): { files: string; dirs: string } {
  const lists = join(context.dir, 'lists');
  mkdirSync(lists, { recursive: true });
  const list = { files: join(lists, 'files'), dirs: join(lists, 'dirs') };
  const files = relativeFiles(manyFiles(context));
  writeFileSync(list.files, files.join('\n'));
  writeFileSync(list.dirs, [...new Set(files.map((path) => dirname(path)))].join('\n'));
  return list;
}
