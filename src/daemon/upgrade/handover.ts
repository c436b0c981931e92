// From a running daemon to its saved state, and back: what the codec spells is made here of mounts and session.
// Source: nydusd.md 12.3, 12.4; docs/failover.md.
import { closeSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Mount } from '../mounts.ts';
import type { Handover, ImageInstance, MountSession } from '../parts.ts';
import { decodeState, encodeState, type StateMount, type UpgradeState } from './state.ts';

/**
 * The state has no place for how often an index was used. Where that is not 0 (after 255 mounts in one daemon) it stands in the list
 * of files to prefetch, as a file that no image has: upstream finds nothing there, and says so in its log.
 */
const REUSED = '/.nydusd-index-reused-';

function withGeneration(
  files: readonly string[] | undefined,
  generation: number,
): readonly string[] | undefined {
  return generation === 0 ? files : [...(files ?? []), `${REUSED}${generation}`];
}

function splitGeneration(files: readonly string[] | undefined): {
  prefetchFiles: readonly string[] | undefined;
  generation: number;
} {
  const mark = files?.find((path) => path.startsWith(REUSED));
  const generation = Number(mark?.slice(REUSED.length) ?? 0);
  if (mark === undefined || !Number.isSafeInteger(generation)) return { prefetchFiles: files, generation: 0 };
  const others = files?.filter((path) => path !== mark) ?? [];
  return { prefetchFiles: others.length === 0 ? undefined : others, generation };
}

/**
 * What a successor needs to go on.
 *
 * @throws UsageError  something is mounted that cannot be handed over
 */
export function stateOf(handover: Handover, mounts: readonly Mount[]): UpgradeState {
  const places = new Map(handover.places.map((place) => [place.mountpoint, place]));
  return {
    mounts: mounts.map((mount) => stateOfMount(mount, places.get(canonical(mount.mountpoint)))),
    vfs: {
      inOptions: handover.offered,
      outOptions: handover.agreed,
      noReaddir: false,
      sealSize: false,
      idMap: [0, 0, 0],
      noOpen: !handover.serveOpen,
      noOpendir: !handover.serveOpen,
      noWriteback: false,
      killprivV2: handover.serveOpen,
      nextInode: BigInt(handover.next.ino),
      directories: handover.directories.map(({ ino, parent, name }) => ({ ino, parent, name })),
      nextIndex: handover.next.index,
    },
    connectionId: BigInt(handover.connectionId),
  };
}

/** A mountpoint as the pseudo directories spell it. */
function canonical(mountpoint: string): string {
  return `/${mountpoint
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')}`;
}

function stateOfMount(mount: Mount, place: Handover['places'][number] | undefined): StateMount {
  const { mountpoint, source, target, prefetchFiles, configText } = mount;
  if (target.kind !== 'rafs') throw refusePassthrough(mountpoint);
  if (place === undefined) throw new UsageError(`nothing is shown at ${mountpoint}`);
  const { index, generation } = place;
  const files = withGeneration(prefetchFiles, generation);
  return { kind: 'rafs', source, config: configText, mountpoint, prefetchFiles: files, index };
}

function refusePassthrough(mountpoint: string): UsageError {
  return new UsageError(`the shared directory at ${mountpoint} cannot be handed over`, {
    hint: 'its open files are known to this process alone: unmount it first',
  });
}

/** Bytes for a supervisor. */
export function encodeHandover(handover: Handover, mounts: readonly Mount[], maxString?: number): Buffer {
  return encodeState(stateOf(handover, mounts), maxString);
}

/** Something to be mounted again. */
export interface RestoredMount extends StateMount {
  generation: number;
}

/** A decoded state, as a session and a daemon need it. */
export interface Restored {
  connection: {
    offered: bigint;
    agreed: bigint;
    directories: UpgradeState['vfs']['directories'];
    next: { index: number; ino: number };
  };
  serveOpen: boolean;
  mounts: RestoredMount[];
}

/**
 * Read a state of ours or of upstream.
 *
 * @throws FormatError  the bytes are no state
 * @throws UsageError   it holds what cannot be taken over
 */
export function readHandover(bytes: Buffer, maxString?: number): Restored {
  const { mounts, vfs } = decodeState(bytes, maxString);
  const directory = mounts.find(({ kind }) => kind !== 'rafs');
  if (directory !== undefined) throw refusePassthrough(directory.mountpoint);
  return {
    connection: {
      offered: vfs.inOptions,
      agreed: vfs.outOptions,
      directories: vfs.directories,
      next: { index: vfs.nextIndex, ino: Number(vfs.nextInode) },
    },
    serveOpen: !vfs.noOpen || !vfs.noOpendir,
    mounts: mounts.map((mount) => ({ ...mount, ...splitGeneration(mount.prefetchFiles) })),
  };
}

/** Parts of a session that a handover needs; sessions of other drivers lack them. */
export type Restorable<I extends ImageInstance> = MountSession<I> & {
  restore: NonNullable<MountSession<I>['restore']>;
  resume: NonNullable<MountSession<I>['resume']>;
};

/** Take a connection over, or close its descriptor. */
export async function adoptOrClose<I extends ImageInstance>(
  fd: number,
  adopt: () => Promise<Restorable<I>>,
): Promise<Restorable<I>> {
  try {
    return await adopt();
  } catch (error) {
    closeSync(fd);
    throw new UsageError(`cannot take the mount over: ${messageOf(error)}`, { cause: error, exitCode: 1 });
  }
}
