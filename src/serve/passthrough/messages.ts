// Messages of the FUSE protocol that change things; a RAFS image needs none of them, a directory does.
// Source: Linux include/uapi/linux/fuse.h.
import { struct, u32, u64, u64n } from '../../format/struct.ts';

const source = (name: string): string => `Linux include/uapi/linux/fuse.h, struct ${name}`;

/** SETATTR request. */
export const setattrIn = struct('setattrIn', {
  size: 88,
  source: source('fuse_setattr_in'),
  fields: {
    valid: u32('SetattrValid: which fields count'),
    padding: u32('zero'),
    fh: u64n('open handle'),
    size: u64n('bytes'),
    lockOwner: u64('lock owner'),
    atime: u64('seconds, signed'),
    mtime: u64('seconds, signed'),
    ctime: u64('seconds, signed'),
    atimensec: u32('nanoseconds'),
    mtimensec: u32('nanoseconds'),
    ctimensec: u32('nanoseconds'),
    mode: u32('permissions'),
    unused4: u32('zero'),
    uid: u32('owner'),
    gid: u32('group'),
    unused5: u32('zero'),
  },
});

/** Bits of `setattrIn.valid`. */
export const SetattrValid = {
  MODE: 1,
  UID: 2,
  GID: 4,
  SIZE: 8,
  ATIME: 16,
  MTIME: 32,
  FH: 64,
  ATIME_NOW: 128,
  MTIME_NOW: 256,
} as const;

/** MKNOD request; the name follows. */
export const mknodIn = struct('mknodIn', {
  size: 16,
  source: source('fuse_mknod_in'),
  fields: {
    mode: u32('type and permissions'),
    rdev: u32('device'),
    umask: u32('umask'),
    padding: u32('zero'),
  },
});

/** MKDIR request; the name follows. */
export const mkdirIn = struct('mkdirIn', {
  size: 8,
  source: source('fuse_mkdir_in'),
  fields: { mode: u32('permissions'), umask: u32('umask') },
});

/** RENAME request; two names follow. */
export const renameIn = struct('renameIn', {
  size: 8,
  source: source('fuse_rename_in'),
  fields: { newdir: u64('node id of the other directory') },
});

/** RENAME2 request; two names follow. */
export const rename2In = struct('rename2In', {
  size: 16,
  source: source('fuse_rename2_in'),
  fields: {
    newdir: u64('node id of the other directory'),
    flags: u32('RENAME_ flags'),
    padding: u32('zero'),
  },
});

/** LINK request; the new name follows. */
export const linkIn = struct('linkIn', {
  size: 8,
  source: source('fuse_link_in'),
  fields: { oldnodeid: u64('node id of the file') },
});

/** CREATE request; the name follows. */
export const createIn = struct('createIn', {
  size: 16,
  source: source('fuse_create_in'),
  fields: {
    flags: u32('O_ flags'),
    mode: u32('permissions'),
    umask: u32('umask'),
    openFlags: u32('FUSE_OPEN_'),
  },
});

/** WRITE request; the data follows. */
export const writeIn = struct('writeIn', {
  size: 40,
  source: source('fuse_write_in'),
  fields: {
    fh: u64n('open handle'),
    offset: u64n('bytes'),
    size: u32('bytes'),
    writeFlags: u32('flags'),
    lockOwner: u64('lock owner'),
    flags: u32('O_ flags of the file'),
    padding: u32('zero'),
  },
});

/** WRITE and COPY_FILE_RANGE reply. */
export const writeOut = struct('writeOut', {
  size: 8,
  source: source('fuse_write_out'),
  fields: { size: u32('bytes written'), padding: u32('zero') },
});

/** RELEASE and RELEASEDIR request. */
export const releaseIn = struct('releaseIn', {
  size: 24,
  source: source('fuse_release_in'),
  fields: {
    fh: u64n('open handle'),
    flags: u32('O_ flags of the file'),
    releaseFlags: u32('flags'),
    lockOwner: u64('lock owner'),
  },
});

/** FLUSH request. */
export const flushIn = struct('flushIn', {
  size: 24,
  source: source('fuse_flush_in'),
  fields: {
    fh: u64n('open handle'),
    unused: u32('zero'),
    padding: u32('zero'),
    lockOwner: u64('lock owner'),
  },
});

/** FSYNC and FSYNCDIR request. */
export const fsyncIn = struct('fsyncIn', {
  size: 16,
  source: source('fuse_fsync_in'),
  fields: { fh: u64n('open handle'), fsyncFlags: u32('1 = data only'), padding: u32('zero') },
});

/** SETXATTR request of connections without SETXATTR_EXT; name and value follow. */
export const setxattrIn = struct('setxattrIn', {
  size: 8,
  source: source('fuse_setxattr_in, FUSE_COMPAT_SETXATTR_IN_SIZE'),
  fields: { size: u32('bytes of the value'), flags: u32('XATTR_ flags') },
});

/** FALLOCATE request. */
export const fallocateIn = struct('fallocateIn', {
  size: 32,
  source: source('fuse_fallocate_in'),
  fields: {
    fh: u64n('open handle'),
    offset: u64n('bytes'),
    length: u64n('bytes'),
    mode: u32('FALLOC_ flags'),
    padding: u32('zero'),
  },
});

/** LSEEK request. */
export const lseekIn = struct('lseekIn', {
  size: 24,
  source: source('fuse_lseek_in'),
  fields: {
    fh: u64n('open handle'),
    offset: u64n('bytes'),
    whence: u32('SEEK_DATA or SEEK_HOLE'),
    padding: u32('zero'),
  },
});

/** LSEEK reply. */
export const lseekOut = struct('lseekOut', {
  size: 8,
  source: source('fuse_lseek_out'),
  fields: { offset: u64n('bytes') },
});

/** COPY_FILE_RANGE request. */
export const copyFileRangeIn = struct('copyFileRangeIn', {
  size: 56,
  source: source('fuse_copy_file_range_in'),
  fields: {
    fhIn: u64n('open handle to read from'),
    offsetIn: u64n('bytes'),
    nodeidOut: u64('node id to write to'),
    fhOut: u64n('open handle to write to'),
    offsetOut: u64n('bytes'),
    length: u64n('bytes'),
    flags: u64('zero'),
  },
});
