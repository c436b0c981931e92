// The pseudo filesystem as a worker sees it: an index over a snapshot of the tree.
import { ROOT_NODEID } from '../opcodes.ts';
import type { PseudoNode } from './pseudo-tree.ts';

/** One name in a pseudo directory. */
export interface PseudoEntry {
  readonly name: Buffer;
  /** node id of the pseudo directory */
  readonly ino: number;
  /** backend that covers it, 0 = none */
  readonly index: number;
}

/** Looks things up in a snapshot. */
export class PseudoView {
  readonly #entries = new Map<number, PseudoEntry[]>([[ROOT_NODEID, []]]);
  readonly #byName = new Map<string, PseudoEntry>();

  constructor(nodes: readonly PseudoNode[] = []) {
    for (const { ino, parent, name, index } of nodes) {
      if (!this.#entries.has(ino)) this.#entries.set(ino, []);
      if (ino === ROOT_NODEID) continue;
      const entry: PseudoEntry = { name: Buffer.from(name), ino, index };
      this.#entries.get(parent)?.push(entry);
      this.#byName.set(`${parent}/${entry.name.toString('latin1')}`, entry);
    }
  }

  has(ino: number): boolean {
    return this.#entries.has(ino);
  }

  /** Entries in the order they were made; a cookie is a position and one. */
  entries(ino: number): readonly PseudoEntry[] {
    return this.#entries.get(ino) ?? [];
  }

  child(ino: number, name: Uint8Array): PseudoEntry | undefined {
    return this.#byName.get(`${ino}/${Buffer.from(name).toString('latin1')}`);
  }

  parent(ino: number): number {
    for (const [parent, entries] of this.#entries)
      if (entries.some((entry) => entry.ino === ino)) return parent;
    return ROOT_NODEID;
  }
}
