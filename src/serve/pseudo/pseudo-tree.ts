// The pseudo filesystem: directories that lead to what is mounted. Kept on the main thread; workers get snapshots.
// Source: nydusd.md 9.
import { UsageError } from '../../base/errors.ts';
import { ROOT_NODEID } from '../opcodes.ts';

/** Pseudo directories at most, and their depth: mountpoints come from a socket. */
export const MAX_PSEUDO_DIRECTORIES = 65_536;
const MAX_DEPTH = 64;
const MAX_NAME_BYTES = 255;

/** One pseudo directory. */
export interface PseudoNode {
  /** node id; 1 is the root */
  readonly ino: number;
  readonly parent: number;
  /** name in the parent; empty for the root */
  readonly name: string;
  /** index of the backend that covers it, 0 = none */
  readonly index: number;
}

interface Directory {
  ino: number;
  parent: Directory | undefined;
  name: string;
  index: number;
  children: Map<string, Directory>;
}

/** Components of a mountpoint. UsageError EINVAL when it is none. */
export function mountpointParts(path: string): string[] {
  if (!path.startsWith('/')) throw new UsageError(`mountpoint ${path} does not begin with /`);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  const bad = parts.find(
    (part) => part === '..' || part.includes('\0') || Buffer.byteLength(part) > MAX_NAME_BYTES,
  );
  if (bad !== undefined) throw new UsageError(`mountpoint ${path} has the component ${JSON.stringify(bad)}`);
  if (parts.length > MAX_DEPTH)
    throw new UsageError(`mountpoint ${path} is deeper than ${MAX_DEPTH} directories`);
  return parts;
}

/** The tree of a session. Directories stay when what covered them goes: their node ids are known to the kernel. */
export class PseudoTree {
  readonly #root: Directory = {
    ino: ROOT_NODEID,
    parent: undefined,
    name: '',
    index: 0,
    children: new Map(),
  };
  readonly #byIno = new Map<number, Directory>([[ROOT_NODEID, this.#root]]);
  #lastIno = ROOT_NODEID;

  /** The directory of a mountpoint, if there is one. */
  find(path: string): PseudoNode | undefined {
    let at: Directory | undefined = this.#root;
    for (const part of mountpointParts(path)) at = at?.children.get(part);
    return at === undefined ? undefined : nodeOf(at);
  }

  /**
   * The directory of a mountpoint, made with its parents where it is missing.
   *
   * @throws UsageError EINVAL no mountpoint, or too many directories
   */
  place(path: string): PseudoNode {
    let at = this.#root;
    for (const part of mountpointParts(path)) at = at.children.get(part) ?? this.#add(at, part);
    return nodeOf(at);
  }

  #add(parent: Directory, name: string): Directory {
    if (this.#byIno.size >= MAX_PSEUDO_DIRECTORIES)
      throw new UsageError(`more than ${MAX_PSEUDO_DIRECTORIES} directories of mountpoints`);
    const made: Directory = { ino: ++this.#lastIno, parent, name, index: 0, children: new Map() };
    parent.children.set(name, made);
    this.#byIno.set(made.ino, made);
    return made;
  }

  /** Path of a directory. */
  pathOf(ino: number): string {
    const names: string[] = [];
    for (let at = this.#byIno.get(ino); at?.parent !== undefined; at = at.parent) names.unshift(at.name);
    return `/${names.join('/')}`;
  }

  /** Number of the next directory. */
  get nextIno(): number {
    return this.#lastIno + 1;
  }

  /**
   * Make the directories of a daemon before, under the numbers that the kernel knows.
   *
   * @throws UsageError EINVAL a number stands twice, or a parent is missing
   */
  restore(directories: readonly Pick<PseudoNode, 'ino' | 'parent' | 'name'>[], nextIno: number): void {
    for (const { ino, parent: parentIno, name } of [...directories].sort((a, b) => a.ino - b.ino)) {
      const parent = this.#byIno.get(parentIno);
      if (parent === undefined || this.#byIno.has(ino) || parent.children.has(name) || name === '')
        throw new UsageError(
          `directory ${JSON.stringify(name)} with inode ${ino} does not fit into ${parentIno}`,
        );
      const made: Directory = { ino, parent, name, index: 0, children: new Map() };
      parent.children.set(name, made);
      this.#byIno.set(ino, made);
    }
    this.#lastIno = Math.max(nextIno - 1, ...this.#byIno.keys());
  }

  /** Cover a directory with a backend; 0 uncovers it. */
  cover(ino: number, index: number): void {
    const directory = this.#byIno.get(ino);
    if (directory !== undefined) directory.index = index;
  }

  /** Index of the backend at the root, 0 = none. */
  get rootIndex(): number {
    return this.#root.index;
  }

  /** Names in the root directory. */
  get rootNames(): string[] {
    return [...this.#root.children.keys()];
  }

  /** All directories, parents before children: to be sent to a worker. */
  snapshot(): PseudoNode[] {
    return [...this.#byIno.values()].map(nodeOf);
  }
}

function nodeOf({ ino, parent, name, index }: Directory): PseudoNode {
  return { ino, parent: parent?.ino ?? ino, name, index };
}
