// What the kernel remembers of names, attributes and pages of one connection, and must forget when something else is mounted there.
import type { Logger } from '../../base/log.ts';
import { ROOT_NODEID } from '../opcodes.ts';
import type { SessionState } from '../session-state.ts';
import type { Attached, MountTable } from './mount-table.ts';
import { invalidateEntry, invalidateTree } from './notifications.ts';

/** Entries of an old root that are named to kernels that cannot forget everything at once. */
const MAX_INVALIDATED_NAMES = 100_000;

/** The kernel's caches of one connection. */
export class KernelCaches {
  readonly #deviceFd: number;
  readonly #state: SessionState;
  readonly #mounts: MountTable;
  readonly #logger: Logger;
  #heldBack: Attached[] | undefined;
  #closed = false;

  constructor(deviceFd: number, state: SessionState, mounts: MountTable, logger: Logger) {
    this.#deviceFd = deviceFd;
    this.#state = state;
    this.#mounts = mounts;
    this.#logger = logger;
  }

  /** Tell the kernel nothing before `release`: it may wait, in the middle of it, for an answer that nobody gives yet. */
  holdBack(): void {
    this.#heldBack = [];
  }

  /** Tell it what was held back. */
  async release(): Promise<void> {
    const all = this.#heldBack ?? [];
    this.#heldBack = undefined;
    for (const attached of all) await this.forget(attached);
  }

  /** The connection is going: nothing is told any more. */
  close(): void {
    this.#closed = true;
  }

  /** Have the kernel forget what it knows of a place. @param old what was there before */
  async forget(attached: Attached, old?: Attached): Promise<void> {
    const { node } = attached;
    if (this.#closed || this.#state.minor === 0) return;
    if (this.#heldBack !== undefined) {
      this.#heldBack.push({ ...attached });
      return;
    }
    try {
      if (node.ino !== ROOT_NODEID) {
        await invalidateEntry(this.#deviceFd, BigInt(node.parent), Buffer.from(node.name));
        return;
      }
      const shown = this.#mounts.rootNames.map((name): Uint8Array => Buffer.from(name));
      const names = old === undefined ? shown : [...namesOf(old), ...shown];
      await invalidateTree(this.#deviceFd, this.#state.minor, names);
    } catch (error) {
      this.#logger.warn(`the kernel may show old names: ${String(error)}`);
    }
  }
}

/** Names in the root directory of an image that is the root of the mount, without `.` and `..`. */
function namesOf({ node, source }: Attached): Uint8Array[] {
  if (node.ino !== ROOT_NODEID || source.kind !== 'rafs') return [];
  const { image } = source.instance;
  const names: Uint8Array[] = [];
  image.readdir(image.rootIno, 0, (_ino, name) => {
    const text = Buffer.from(name);
    if (!text.equals(Buffer.from('.')) && !text.equals(Buffer.from('..'))) names.push(text);
    return names.length < MAX_INVALIDATED_NAMES;
  });
  return names;
}
