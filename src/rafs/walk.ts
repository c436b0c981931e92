// Walks a whole tree without recursion, and refuses trees that are none: cycles, shared directories, endless depth.
import { FormatError } from '../base/errors.ts';
import { MAX_TREE_DEPTH } from '../base/limits.ts';
import { FileType6 } from '../format/rafs6/layout.ts';
import { isDot, isDotDot } from '../format/names.ts';
import { newAttr, type RafsImage } from '../format/image.ts';

/** One entry met on a walk. */
export interface WalkEntry {
  readonly ino: number;
  /** directory that holds the entry; the root's is itself */
  readonly parent: number;
  /** a copy; empty for the root */
  readonly name: Buffer;
  /** absolute path, `/` for the root */
  readonly path: Buffer;
  /** FileType6 */
  readonly fileType: number;
  /** 0 for the root */
  readonly depth: number;
}

const ROOT_PATH = Buffer.from('/');

/**
 * Depth-first, a directory before its children, names in byte order.
 *
 * @throws FormatError an entry is damaged, a directory is reached twice, or the nesting is deeper than MAX_TREE_DEPTH
 */
export function* walkTree(image: RafsImage, start: number = image.rootIno): Generator<WalkEntry> {
  const seen = new Set<number>([start]);
  const budget = new ByteBudget(image.bytes.length);
  const root: WalkEntry = {
    ino: start,
    parent: start === image.rootIno ? start : image.parentOf(start),
    name: Buffer.alloc(0),
    path: ROOT_PATH,
    fileType: FileType6.directory,
    depth: 0,
  };
  const pending: WalkEntry[] = [root];
  for (let entry = pending.pop(); entry !== undefined; entry = pending.pop()) {
    yield entry;
    if (entry.fileType !== FileType6.directory) continue;
    budget.spend(direntBytes(image, entry.ino), entry.path);
    const children = readChildren(image, entry);
    for (let i = children.length - 1; i >= 0; i--) {
      const child = children[i] as WalkEntry;
      if (child.fileType === FileType6.directory) {
        if (seen.has(child.ino)) {
          throw new FormatError(
            { struct: 'tree' },
            `directory ${child.ino} is reached twice, the second time as ${child.path.toString()}`,
          );
        }
        seen.add(child.ino);
      }
      pending.push(child);
    }
  }
}

/**
 * Bytes that are looked at on a walk. Parts of a valid image do not overlap, so all of them together are no longer
 * than the image; a hostile one may let every directory share the same long list.
 */
export class ByteBudget {
  #left: number;

  constructor(imageSize: number) {
    this.#left = imageSize;
  }

  /** @throws FormatError more was spent than the image has */
  spend(bytes: number, path: Uint8Array): void {
    this.#left -= bytes;
    if (this.#left < 0) {
      throw new FormatError(
        { struct: 'tree' },
        `parts of the image overlap, noticed at ${Buffer.from(path).toString()}`,
      );
    }
  }
}

/** Bytes of the entries of a v6 directory; v5 entries name their parent, so none is listed twice. */
function direntBytes(image: RafsImage, dir: number): number {
  if (image.super.version === 5) return 0;
  const attr = newAttr();
  image.attr(dir, attr);
  return attr.size;
}

/** Entries of a directory but `.` and `..`, in byte order of their names. */
export function readChildren(
  image: RafsImage,
  dir: { ino: number; path: Buffer; depth: number },
): WalkEntry[] {
  const children: WalkEntry[] = [];
  const depth = dir.depth + 1;
  if (depth > MAX_TREE_DEPTH) {
    throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
  }
  const prefix = dir.path.length === 1 ? dir.path : Buffer.concat([dir.path, ROOT_PATH]);
  image.readdir(dir.ino, 0, (ino, name, fileType) => {
    if (isDot(name, 0, name.length) || isDotDot(name, 0, name.length)) return true;
    const copy = Buffer.from(name);
    children.push({ ino, parent: dir.ino, name: copy, path: Buffer.concat([prefix, copy]), fileType, depth });
    return true;
  });
  return children;
}
