// Messages of the FUSE protocol, declared once. Names are the kernel's, camelCased, without the fuse_ prefix.
// Source: Linux include/uapi/linux/fuse.h. Hot code takes offsets from these tables and moves 32-bit words: node ids
// have the backend index in their top byte, past what a number holds exactly, and a bigint costs 20 ns (STYLE 2.2).
import { bytes, i32, struct, u16, u32, u64, u64n, type Struct } from '../format/struct.ts';

const source = (name: string): string => `Linux include/uapi/linux/fuse.h, struct ${name}`;

/** Head of every request. */
export const inHeader = struct('inHeader', {
  size: 40,
  source: source('fuse_in_header'),
  fields: {
    len: u32('bytes of the request, this header included'),
    opcode: u32('Opcode'),
    unique: u64('request id; even, bit 63 set when repeated after RESEND'),
    nodeid: u64('inode the request is about: backend index << 56 | ino, or 1 for the root'),
    uid: u32('caller'),
    gid: u32('caller'),
    pid: u32('caller'),
    totalExtlen: u16('length of extensions in 8-byte units'),
    padding: u16('zero'),
  },
});

/** Head of every reply and notification. */
export const outHeader = struct('outHeader', {
  size: 16,
  source: source('fuse_out_header'),
  fields: {
    len: u32('bytes of the reply, this header included'),
    error: i32('0, or minus an errno; a notify code when unique is 0'),
    unique: u64('id of the request; 0 = notification'),
  },
});

/** Attributes of an inode. */
export const attr = struct('attr', {
  size: 88,
  source: source('fuse_attr'),
  fields: {
    ino: u64('number users see; here equal to the node id'),
    size: u64('bytes'),
    blocks: u64('ceil(size / 512)'),
    atime: u64('seconds, signed'),
    mtime: u64('seconds, signed'),
    ctime: u64('seconds, signed'),
    atimensec: u32('nanoseconds'),
    mtimensec: u32('nanoseconds'),
    ctimensec: u32('nanoseconds'),
    mode: u32('type and permissions'),
    nlink: u32('number of links'),
    uid: u32('owner'),
    gid: u32('group'),
    rdev: u32('device number of char and block devices'),
    blksize: u32('4096'),
    flags: u32('zero'),
  },
});

/** Reply of LOOKUP, head of a READDIRPLUS entry; followed by attr. */
export const entryOut = struct('entryOut', {
  size: 40,
  source: source('fuse_entry_out'),
  fields: {
    nodeid: u64('node id; 0 = there is no such name, remember that'),
    generation: u64('another number = another inode under the same id'),
    entryValid: u64('seconds the name may be cached'),
    attrValid: u64('seconds the attributes may be cached'),
    entryValidNsec: u32('nanoseconds'),
    attrValidNsec: u32('nanoseconds'),
  },
});

/** Reply of GETATTR; followed by attr. */
export const attrOut = struct('attrOut', {
  size: 16,
  source: source('fuse_attr_out'),
  fields: {
    attrValid: u64('seconds the attributes may be cached'),
    attrValidNsec: u32('nanoseconds'),
    dummy: u32('zero'),
  },
});

/** INIT request; kernels before 7.36 send the first 16 bytes. */
export const initIn = struct('initIn', {
  size: 64,
  source: source('fuse_init_in'),
  fields: {
    major: u32('7'),
    minor: u32('protocol minor of the kernel'),
    maxReadahead: u32('bytes'),
    flags: u32('InitFlag the kernel offers'),
    flags2: u32('InitFlag2 the kernel offers, when INIT_EXT'),
    unused: bytes(44, 'zero'),
  },
});

/** INIT reply. */
export const initOut = struct('initOut', {
  size: 64,
  source: source('fuse_init_out'),
  fields: {
    major: u32('7'),
    minor: u32('the lower minor of both sides'),
    maxReadahead: u32('as asked for'),
    flags: u32('InitFlag in use'),
    maxBackground: u16('asynchronous requests at once'),
    congestionThreshold: u16('asynchronous requests from which the kernel slows down'),
    maxWrite: u32('largest WRITE'),
    timeGran: u32('nanoseconds per tick of times'),
    maxPages: u16('pages of one request, when MAX_PAGES'),
    mapAlignment: u16('zero'),
    flags2: u32('InitFlag2 in use'),
    maxStackDepth: u32('zero'),
    requestTimeout: u16('zero'),
    unused: bytes(22, 'zero'),
  },
});

/** GETATTR request. */
export const getattrIn = struct('getattrIn', {
  size: 16,
  source: source('fuse_getattr_in'),
  fields: { getattrFlags: u32('1 = fh is valid'), dummy: u32('zero'), fh: u64('open handle') },
});

/** OPEN and OPENDIR request. */
export const openIn = struct('openIn', {
  size: 8,
  source: source('fuse_open_in'),
  fields: { flags: u32('O_ flags'), openFlags: u32('FUSE_OPEN_ flags') },
});

/** OPEN and OPENDIR reply. */
export const openOut = struct('openOut', {
  size: 16,
  source: source('fuse_open_out'),
  fields: { fh: u64('open handle; we use none'), openFlags: u32('FOPEN_ flags'), backingId: i32('zero') },
});

/** READ, READDIR and READDIRPLUS request. */
export const readIn = struct('readIn', {
  size: 40,
  source: source('fuse_read_in'),
  fields: {
    fh: u64('open handle'),
    offset: u64n('bytes, or the cookie of the last directory entry'),
    size: u32('bytes wanted'),
    readFlags: u32('flags'),
    lockOwner: u64('lock owner'),
    flags: u32('O_ flags of the file'),
    padding: u32('zero'),
  },
});

/** Directory entry; the name follows, padded to 8 bytes. */
export const dirent = struct('dirent', {
  size: 24,
  source: source('fuse_dirent'),
  fields: {
    ino: u64('number users see'),
    off: u64n('cookie to go on after this entry'),
    namelen: u32('bytes of the name'),
    type: u32('DT_ number'),
  },
});

/** GETXATTR and LISTXATTR request; the name of GETXATTR follows, NUL-terminated. */
export const getxattrIn = struct('getxattrIn', {
  size: 8,
  source: source('fuse_getxattr_in'),
  fields: { size: u32('room for the answer; 0 = tell the size'), padding: u32('zero') },
});

/** GETXATTR and LISTXATTR reply when the size was asked for. */
export const getxattrOut = struct('getxattrOut', {
  size: 8,
  source: source('fuse_getxattr_out'),
  fields: { size: u32('bytes'), padding: u32('zero') },
});

/** STATFS reply. */
export const kstatfs = struct('kstatfs', {
  size: 80,
  source: source('fuse_kstatfs'),
  fields: {
    blocks: u64n('zero'),
    bfree: u64n('zero'),
    bavail: u64n('zero'),
    files: u64n('inodes of the image'),
    ffree: u64n('zero'),
    bsize: u32('512'),
    namelen: u32('255'),
    frsize: u32('zero'),
    padding: u32('zero'),
    spare: bytes(24, 'zero'),
  },
});

/** ACCESS request. */
export const accessIn = struct('accessIn', {
  size: 8,
  source: source('fuse_access_in'),
  fields: { mask: u32('R_OK, W_OK, X_OK'), padding: u32('zero') },
});

/** INTERRUPT request. */
export const interruptIn = struct('interruptIn', {
  size: 8,
  source: source('fuse_interrupt_in'),
  fields: { unique: u64('request to give up') },
});

/** FORGET request. */
export const forgetIn = struct('forgetIn', {
  size: 8,
  source: source('fuse_forget_in'),
  fields: { nlookup: u64n('lookups to take back') },
});

/** BATCH_FORGET request; `count` forgetOne follow. */
export const batchForgetIn = struct('batchForgetIn', {
  size: 8,
  source: source('fuse_batch_forget_in'),
  fields: { count: u32('entries'), dummy: u32('zero') },
});

/** One inode of BATCH_FORGET. */
export const forgetOne = struct('forgetOne', {
  size: 16,
  source: source('fuse_forget_one'),
  fields: { nodeid: u64('node id'), nlookup: u64n('lookups to take back') },
});

/** INVAL_INODE notification. */
export const notifyInvalInode = struct('notifyInvalInode', {
  size: 24,
  source: source('fuse_notify_inval_inode_out'),
  fields: { ino: u64('node id'), off: u64n('first byte'), len: u64n('bytes; 0 = all') },
});

/** INVAL_ENTRY notification; the name follows, NUL-terminated. */
export const notifyInvalEntry = struct('notifyInvalEntry', {
  size: 16,
  source: source('fuse_notify_inval_entry_out'),
  fields: { parent: u64('node id'), namelen: u32('bytes of the name'), flags: u32('zero') },
});

/* eslint-disable @typescript-eslint/no-explicit-any */
/** Byte offsets of the fields of a struct, for code that moves words itself. */
export function offsetsOf<F extends Struct<any>>(table: F): { readonly [K in keyof F['field']]: number } {
  return Object.freeze(Object.fromEntries(table.layout.map(({ name, offset }) => [name, offset]))) as {
    readonly [K in keyof F['field']]: number;
  };
}
