// What is mounted in a session: backends by index and by mountpoint, and the pseudo directories that lead to them.
// Source: nydusd.md 9.
import { UsageError } from '../../base/errors.ts';
import type { RafsInstance } from '../../rafs/instance.ts';
import { BACKENDS } from '../counters.ts';
import type { SharedDirectory } from '../passthrough/passthrough-fs.ts';
import { PseudoTree, type PseudoNode } from '../pseudo/pseudo-tree.ts';
import { isWanted, type AccountingOptions } from './accounting.ts';
import type { Attachment } from './thread-messages.ts';

/** Backends that can be mounted at once. */
export const MAX_MOUNTS = BACKENDS - 1;

/** What the session needs of an image; RafsInstance has it. */
export type SessionInstance = Pick<RafsInstance, 'image' | 'share' | 'read'>;

/** Something that can be mounted. */
export type MountSource =
  | { kind: 'rafs'; instance: SessionInstance }
  | { kind: 'passthrough'; directory: Pick<SharedDirectory, 'share'> };

/** How it is shown. */
export interface AttachOptions {
  /** answer xattr requests although the image has no xattr flag */
  enableXattr: boolean;
  /** shown as the times of inodes whose stored seconds are 0 */
  mountedAtSec: number;
  accounting: AccountingOptions;
}

/** One backend that workers serve. */
export interface Attached {
  readonly index: number;
  /** how often its index was used before: tells its inodes from those of an image before it */
  readonly generation: number;
  /** the pseudo directory it covers */
  readonly node: PseudoNode;
  readonly source: MountSource;
  readonly options: AttachOptions;
}

/** What a worker is told of it. */
export function attachmentOf({ index, generation, source, options }: Attached): Attachment {
  if (source.kind === 'passthrough') return { kind: 'passthrough', index, share: source.directory.share };
  const { enableXattr, mountedAtSec, accounting } = options;
  const uid = process.geteuid?.() ?? 0;
  const gid = process.getegid?.() ?? 0;
  return {
    kind: 'rafs',
    index,
    generation,
    share: source.instance.share,
    options: { enableXattr, mountedAtSec, uid, gid },
    accounting: isWanted(accounting),
  };
}

export class MountTable {
  readonly #tree = new PseudoTree();
  /** shown, by node id of the pseudo directory */
  readonly #shown = new Map<number, Attached>();
  /** known to workers, by index: what is shown, and what is being replaced */
  readonly #known = new Map<number, Attached>();
  #lastIndex = 0;
  /** how many were ever shown */
  #shownCount = 0;
  /** how often each index was given to something else */
  readonly #reuses = new Map<number, number>();

  /** What is mounted at a place. */
  at(mountpoint: string): Attached | undefined {
    const node = this.#tree.find(mountpoint);
    return node === undefined ? undefined : this.#shown.get(node.ino);
  }

  /** Whether the directory of a mountpoint is there already: the kernel may know it. */
  hasDirectory(mountpoint: string): boolean {
    return this.#tree.find(mountpoint) !== undefined;
  }

  get known(): Attached[] {
    return [...this.#known.values()];
  }

  /** No index is free. */
  get isFull(): boolean {
    return this.#known.size >= MAX_MOUNTS;
  }

  get snapshot(): PseudoNode[] {
    return this.#tree.snapshot();
  }

  get rootNames(): string[] {
    return this.#tree.rootNames;
  }

  /** How many were ever shown. */
  get shownCount(): number {
    return this.#shownCount;
  }

  /** Index of the next backend, and number of the next directory: for a successor. */
  get next(): { index: number; ino: number } {
    return { index: (this.#lastIndex % MAX_MOUNTS) + 1, ino: this.#tree.nextIno };
  }

  /** What is shown, by the numbers that the kernel knows. */
  places(): { mountpoint: string; index: number; generation: number }[] {
    return [...this.#shown.values()].map(({ node, index, generation }) => ({
      mountpoint: this.#tree.pathOf(node.ino),
      index,
      generation,
    }));
  }

  /** Go on where a daemon before was: its directories and its numbers. Only in an empty table. */
  restore(
    directories: readonly Pick<PseudoNode, 'ino' | 'parent' | 'name'>[],
    next: { index: number; ino: number },
  ): void {
    this.#tree.restore(directories, next.ino);
    this.#lastIndex = Math.max(0, next.index - 1);
  }

  /**
   * Show what a daemon before has shown, under the same numbers.
   *
   * @throws UsageError EINVAL no mountpoint, or the place or the index is taken
   */
  restoreMount(
    mountpoint: string,
    { index, generation }: { index: number; generation: number },
    source: MountSource,
    options: AttachOptions,
  ): Attached {
    const node = this.#tree.place(mountpoint);
    if (this.#known.has(index) || this.#shown.has(node.ino))
      throw new UsageError(`${mountpoint} or its index ${index} is taken`);
    this.#reuses.set(index, generation);
    this.#shownCount++;
    const restored: Attached = { index, generation, node, source, options };
    this.show(restored);
    return restored;
  }

  /**
   * Give a backend an index of its own and show it at a place, instead of what is shown there.
   *
   * @throws UsageError EINVAL no mountpoint, or all indexes are taken
   */
  add(mountpoint: string, source: MountSource, options: AttachOptions): Attached {
    const index = this.#nextIndex();
    const node = this.#tree.place(mountpoint);
    // 0 for the first one, as upstream has it always: a successor does not know it otherwise
    const generation = (this.#reuses.get(index) ?? -1) + 1;
    this.#reuses.set(index, generation);
    this.#shownCount++;
    const added: Attached = { index, generation, node, source, options };
    this.show(added);
    return added;
  }

  /** Show a backend at its place. */
  show(attached: Attached): void {
    this.#known.set(attached.index, attached);
    this.#shown.set(attached.node.ino, attached);
    this.#tree.cover(attached.node.ino, attached.index);
  }

  /** Show nothing at the place of a backend. */
  hide({ node }: Attached): void {
    this.#shown.delete(node.ino);
    this.#tree.cover(node.ino, 0);
  }

  /** Workers know the backend no more: its index is free. */
  remove({ index }: Attached): void {
    this.#known.delete(index);
  }

  /** The next free index after the last one given: an index comes back as late as possible. */
  #nextIndex(): number {
    for (let step = 1; step < BACKENDS; step++) {
      const index = ((this.#lastIndex + step - 1) % (BACKENDS - 1)) + 1;
      if (this.#known.has(index)) continue;
      this.#lastIndex = index;
      return index;
    }
    throw new UsageError(`all ${BACKENDS - 1} places of a daemon are taken`, {
      hint: 'unmount something, or start another daemon',
    });
  }
}
