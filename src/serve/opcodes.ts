// Numbers of the FUSE protocol: opcodes, capability flags, notify codes, open flags.
// Source: Linux include/uapi/linux/fuse.h, protocol 7.45 (kernel 6.18). Transport-free: /dev/fuse and virtio-fs share them.

/** enum fuse_opcode. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

/** Opcodes at or above this are not looked up in a table (CUSE_INIT is 4096). */
export const MAX_OPCODE = 64;

/** Capability flags of INIT, low word (`flags`). */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  HAS_IOCTL_DIR: 1 << 11,
  AUTO_INVAL_DATA: 1 << 12,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  INIT_EXT: 1 << 30,
} as const;

/** Capability flags of INIT, high word (`flags2`): bit 32 of the kernel's constants is bit 0 here. */
export const InitFlag2 = {
  /** 6.9: the kernel repeats unanswered requests on demand, with bit 63 of `unique` set */
  HAS_RESEND: 1 << 7,
} as const;

/** enum fuse_notify_code. */
export const Notify = {
  INVAL_INODE: 2,
  INVAL_ENTRY: 3,
  RESEND: 7,
  /** 7.44, kernel 6.16: every cached dentry is looked up again */
  INC_EPOCH: 8,
} as const;

/** Flags of fuse_open_out. */
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;

/** Protocol version offered; the lower minor of both sides is used. */
export const KERNEL_VERSION = 7;
export const KERNEL_MINOR_VERSION = 45;
/** Below this (Linux 5.1) NO_OPENDIR does not exist; such a kernel is refused. */
export const MIN_KERNEL_MINOR = 29;
/** From here on Notify.INC_EPOCH exists. */
export const INC_EPOCH_MINOR = 44;

/** Largest data of one READ reply, and the write size named in INIT. */
export const MAX_IO = 0x10_0000;
/** Bytes the kernel reads ahead of a reader that goes through a file in order. */
export const READ_AHEAD = 0x4_0000;
export const MAX_PAGES = 256;
export const MAX_BACKGROUND = 65535;
export const CONGESTION_THRESHOLD = 49149;
/** Room for headers around MAX_IO; the kernel wants a request buffer of at least max_write + 80. */
export const BUFFER_SLACK = 0x1000;

/** Node id of the root of a mount. */
export const ROOT_NODEID = 1;

const names: string[] = [];
for (const [name, number] of Object.entries(Opcode)) names[number] = name;

/** Name of an opcode, `OP_<number>` when unknown. */
export function opcodeName(opcode: number): string {
  return names[opcode] ?? `OP_${opcode}`;
}
