// What one daemon leaves for the next: its mounts, the pseudo directories, what was agreed with the kernel. The bytes are those
// of upstream, so that either takes over from the other. Source: nydusd.md 12.4; golden api/upgrade-state.bin.
import { FormatError } from '../../base/errors.ts';
import { MAX_STATE_SIZE, MAX_STATE_STRING, StateReader, StateWriter } from './envelope.ts';

/** Mounts of one daemon: the index is a byte, 0 is taken. */
export const MAX_STATE_MOUNTS = 255;
/** Pseudo directories; the same as a daemon makes. */
export const MAX_STATE_DIRECTORIES = 65_536;
/** Paths in the list of one mount. */
export const MAX_STATE_PREFETCH = 65_536;

/** One mount. */
export interface StateMount {
  kind: 'rafs' | 'passthrough';
  source: string;
  /** text as it was mounted */
  config: string;
  mountpoint: string;
  prefetchFiles: readonly string[] | undefined;
  /** highest byte of its node ids */
  index: number;
}

/** One pseudo directory; the root is left out. */
export interface StateDirectory {
  ino: number;
  parent: number;
  name: string;
}

/** What was agreed with the kernel, and how node ids go on. */
export interface VfsState {
  /** flags of INIT, `flags2` above; 0: there was no INIT yet */
  inOptions: bigint;
  outOptions: bigint;
  noReaddir: boolean;
  sealSize: boolean;
  idMap: readonly [internal: number, external: number, range: number];
  noOpen: boolean;
  noOpendir: boolean;
  noWriteback: boolean;
  killprivV2: boolean;
  nextInode: bigint;
  directories: readonly StateDirectory[];
  nextIndex: number;
}

export interface UpgradeState {
  mounts: readonly StateMount[];
  vfs: VfsState;
  /** name of the connection below /sys/fs/fuse/connections */
  connectionId: bigint;
}

const KINDS = ['rafs', 'passthrough'] as const;

/**
 * Spell a state.
 *
 * @param maxString longest string; more than upstream's limit only where no other program reads it
 * @throws FormatError a string is too long
 */
export function encodeState(state: UpgradeState, maxString = MAX_STATE_STRING): Buffer {
  const w = new StateWriter(maxString);
  w.u64(state.mounts.length);
  for (const mount of state.mounts) {
    w.string('mountpoint', mount.mountpoint);
    writeMount(w, mount);
  }
  w.bytes(encodeVfs(state.vfs));
  w.u64(state.connectionId);
  return w.seal();
}

function writeMount(w: StateWriter, mount: StateMount): void {
  w.u32(KINDS.indexOf(mount.kind));
  w.string('source', mount.source);
  w.string(`config of ${mount.mountpoint}`, mount.config);
  w.string('mountpoint', mount.mountpoint);
  w.bool(mount.prefetchFiles !== undefined);
  if (mount.prefetchFiles !== undefined) {
    w.u64(mount.prefetchFiles.length);
    for (const path of mount.prefetchFiles) w.string('prefetch files', path);
  }
  w.u8(mount.index);
}

function encodeVfs(vfs: VfsState): Buffer {
  const w = new StateWriter();
  w.u64(vfs.inOptions);
  w.u64(vfs.outOptions);
  w.bool(vfs.noReaddir);
  w.bool(vfs.sealSize);
  for (const id of vfs.idMap) w.u32(id);
  for (const flag of [vfs.noOpen, vfs.noOpendir, vfs.noWriteback, vfs.killprivV2]) w.bool(flag);
  const pseudo = new StateWriter();
  pseudo.u64(vfs.nextInode);
  pseudo.u64(vfs.directories.length);
  for (const { ino, parent, name } of vfs.directories) {
    pseudo.u64(ino);
    pseudo.u64(parent);
    pseudo.string('name', name);
  }
  w.bytes(pseudo.seal());
  w.u8(vfs.nextIndex);
  return w.seal();
}

/**
 * Read a state that comes from outside.
 *
 * @throws FormatError  anything is wrong with it: nothing of it may be used then
 */
export function decodeState(bytes: Buffer, maxString = MAX_STATE_STRING): UpgradeState {
  const r = new StateReader('saved state', bytes, maxString);
  const mounts: StateMount[] = [];
  for (let left = r.count('mounts', MAX_STATE_MOUNTS, 46); left > 0; left--) mounts.push(readMount(r));
  const vfs = decodeVfs(r.bytes('vfs', MAX_STATE_SIZE));
  const state = { mounts, vfs, connectionId: r.u64('connection id') };
  r.finish();
  checkState(state);
  return state;
}

function readMount(r: StateReader): StateMount {
  const key = r.string('mountpoint');
  const kindNumber = r.u32('file system');
  const kind = KINDS[kindNumber];
  if (kind === undefined) throw wrong('file system', `${kindNumber} is not known`);
  const source = r.string('source');
  const config = r.string('config');
  const mountpoint = r.string('mountpoint');
  if (mountpoint !== key) throw wrong('mountpoint', `${mountpoint} stands under ${key}`);
  let prefetchFiles: string[] | undefined;
  if (r.bool('prefetch files')) {
    prefetchFiles = [];
    for (let left = r.count('prefetch files', MAX_STATE_PREFETCH, 8); left > 0; left--)
      prefetchFiles.push(r.string('prefetch files'));
  }
  return { kind, source, config, mountpoint, prefetchFiles, index: r.u8('index') };
}

function decodeVfs(bytes: Buffer): VfsState {
  const r = new StateReader('saved vfs', bytes);
  const head = {
    inOptions: r.u64('in_opts'),
    outOptions: r.u64('out_opts'),
    noReaddir: r.bool('no_readdir'),
    sealSize: r.bool('seal_size'),
    idMap: [r.u32('id_map'), r.u32('id_map'), r.u32('id_map')] as const,
    noOpen: r.bool('no_open'),
    noOpendir: r.bool('no_opendir'),
    noWriteback: r.bool('no_writeback'),
    killprivV2: r.bool('killpriv_v2'),
  };
  const pseudo = new StateReader('saved directories', r.bytes('directories', MAX_STATE_SIZE));
  const nextInode = pseudo.u64('next inode');
  const directories: StateDirectory[] = [];
  for (let left = pseudo.count('directories', MAX_STATE_DIRECTORIES, 24); left > 0; left--) {
    const [ino, parent] = [pseudo.u64('ino'), pseudo.u64('parent')];
    if (ino >= nextInode || parent >= nextInode)
      throw wrong('directories', `inode ${ino} in ${parent}, the next free one is ${nextInode}`);
    directories.push({ ino: Number(ino), parent: Number(parent), name: pseudo.string('name') });
  }
  pseudo.finish();
  const vfs = { ...head, nextInode, directories, nextIndex: r.u8('next index') };
  r.finish();
  return vfs;
}

function wrong(field: string, problem: string): FormatError {
  return new FormatError({ struct: 'saved state', field }, problem);
}

/** Highest number of a pseudo directory: one word of a node id. */
const MAX_INODE = 0xffff_ffffn;

function checkState({ mounts, vfs }: UpgradeState): void {
  const indexes = new Set(mounts.map(({ index }) => index));
  if (indexes.size !== mounts.length || indexes.has(0)) throw wrong('index', 'is 0 or stands twice');
  if (new Set(mounts.map(({ mountpoint }) => mountpoint)).size !== mounts.length)
    throw wrong('mountpoint', 'stands twice');
  if (vfs.nextInode > MAX_INODE) throw wrong('next inode', `${vfs.nextInode}, the limit is ${MAX_INODE}`);
  if (vfs.idMap[2] !== 0) throw wrong('id_map', 'user ids are mapped, which is not supported');
}
