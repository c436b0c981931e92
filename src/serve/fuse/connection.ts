// What one daemon leaves another of a FUSE connection, beside its descriptor. Source: nydusd.md 12.
import type { PseudoNode } from '../pseudo/pseudo-tree.ts';

/** What a successor must know of a connection. */
export interface Connection {
  /** INIT flags, `flags2` above */
  offered: bigint;
  agreed: bigint;
  directories: readonly Pick<PseudoNode, 'ino' | 'parent' | 'name'>[];
  /** numbers of the next backend and the next directory */
  next: { index: number; ino: number };
}

/** Where something is mounted, in the kernel's eyes. */
export interface Place {
  mountpoint: string;
  index: number;
  generation: number;
}

/** What happens to requests that a daemon before has read and not answered. */
export type FailoverPolicy = 'none' | 'resend' | 'flush';
