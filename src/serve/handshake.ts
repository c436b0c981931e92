// INIT: what kernel and daemon agree on. Each flag obliges us to something; the table says what.
// Source: nydusd.md 10.2; include/uapi/linux/fuse.h; kernel fs/fuse/inode.c process_init_reply.
import { constants } from 'node:os';
import type { Exchange } from './exchange.ts';
import {
  CONGESTION_THRESHOLD,
  INC_EPOCH_MINOR,
  InitFlag,
  InitFlag2,
  KERNEL_MINOR_VERSION,
  KERNEL_VERSION,
  MAX_BACKGROUND,
  MAX_IO,
  MAX_PAGES,
  MIN_KERNEL_MINOR,
} from './opcodes.ts';
import { initIn, initOut, inHeader, offsetsOf, outHeader } from './protocol.ts';

const { EINVAL, EPROTO } = constants.errno;

const H = offsetsOf(inHeader);

/** Bytes of fuse_init_in that every kernel sends; the rest came with 7.36. */
export const INIT_IN_COMPAT_SIZE = 16;

/**
 * Flags we want from any kernel:
 * ASYNC_READ, ASYNC_DIO: several reads of one file at once, in any order; PARALLEL_DIROPS: the same for directories;
 * BIG_WRITES, MAX_PAGES: requests of up to 256 pages; CACHE_SYMLINKS: targets never change;
 * DO_READDIRPLUS, READDIRPLUS_AUTO: attributes with the first piece of a listing, then while they are being used;
 * EXPLICIT_INVAL_DATA: pages stay until we say so; INIT_EXT: flags2 is read.
 * Not wanted: WRITEBACK_CACHE, ATOMIC_O_TRUNC, KILLPRIV (nothing is written), AUTO_INVAL_DATA (nothing changes),
 * HAS_IOCTL_DIR (ENOTTY either way), EXPORT_SUPPORT (`.` of a file is not answered), POSIX_ACL (upstream ignores ACLs).
 */
const WANTED =
  InitFlag.ASYNC_READ |
  InitFlag.ASYNC_DIO |
  InitFlag.PARALLEL_DIROPS |
  InitFlag.BIG_WRITES |
  InitFlag.MAX_PAGES |
  InitFlag.CACHE_SYMLINKS |
  InitFlag.DO_READDIRPLUS |
  InitFlag.READDIRPLUS_AUTO |
  InitFlag.EXPLICIT_INVAL_DATA |
  InitFlag.INIT_EXT;

/** HAS_RESEND: a repeated request (bit 63 of `unique`) is served like a new one and answered under that number. */
const WANTED2 = InitFlag2.HAS_RESEND;

/** OPEN and OPENDIR are not answered, so files need no round trip to be opened. */
const NO_OPEN = InitFlag.NO_OPEN_SUPPORT | InitFlag.NO_OPENDIR_SUPPORT;

/** Bit 63 of `unique`, in its upper half: the kernel repeats what it was not answered. */
const RESENT = 0x8000_0000;

function isResent({ request }: Exchange): boolean {
  return (request.view.getUint32(H.unique + 4, true) & RESENT) !== 0;
}

/**
 * Answer INIT. A second one is EINVAL; a kernel that is too old is EPROTO. A repeated one is answered again: a daemon that had taken note
 * of it died before it could answer, and with an error the kernel would refuse everything for good (ECONNREFUSED).
 */
export function init(x: Exchange): number {
  const { view } = x.request;
  const at = inHeader.size;
  const out = outHeader.size;
  const major = initIn.field.major(view, at);
  const minor = initIn.field.minor(view, at);
  if (major < KERNEL_VERSION || (major === KERNEL_VERSION && minor < MIN_KERNEL_MINOR)) return -EPROTO;
  const before = x.state.claimInit() ? undefined : x.state.agreed;
  if (before !== undefined && !isResent(x)) return -EINVAL;
  if (major > KERNEL_VERSION) {
    // the kernel reads our major version from this and sends another INIT
    x.state.unclaimInit();
    initOut.write(x.reply.view, out, { major: KERNEL_VERSION, minor: KERNEL_MINOR_VERSION });
    return initOut.size;
  }
  if (x.length < inHeader.size + INIT_IN_COMPAT_SIZE) {
    x.state.unclaimInit();
    return -EINVAL;
  }
  const offered = initIn.field.flags(view, at);
  const extended = (offered & InitFlag.INIT_EXT) !== 0 && x.length >= inHeader.size + initIn.size;
  const wanted = x.serveOpen ? WANTED : WANTED | NO_OPEN;
  const fresh = wanted & offered & (extended ? -1 : ~InitFlag.INIT_EXT);
  const flags = before === undefined ? fresh : Number(before & 0xffff_ffffn) | 0;
  const agreed = Math.min(minor, KERNEL_MINOR_VERSION);
  const offered2 = extended ? initIn.field.flags2(view, at) : 0;
  const flags2 = before === undefined ? (WANTED2 & offered2) >>> 0 : Number(before >> 32n);
  initOut.write(x.reply.view, out, {
    major: KERNEL_VERSION,
    minor: agreed,
    maxReadahead: initIn.field.maxReadahead(view, at),
    flags: flags >>> 0,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: CONGESTION_THRESHOLD,
    maxWrite: (flags & InitFlag.BIG_WRITES) !== 0 ? MAX_IO : 4096,
    timeGran: 1,
    maxPages: (flags & InitFlag.MAX_PAGES) !== 0 ? MAX_PAGES : 0,
    flags2,
  });
  x.state.setOptions(both(offered, offered2), both(flags, flags2));
  x.state.setNegotiated(agreed);
  return initOut.size;
}

/** Both flag words as one number. */
function both(flags: number, flags2: number): bigint {
  return (BigInt(flags2 >>> 0) << 32n) | BigInt(flags >>> 0);
}

/** What upstream agrees on with any kernel. */
const UPSTREAM_MINOR = 33;
/** The first minor with HAS_RESEND. */
const RESEND_MINOR = 40;

/**
 * The protocol minor of a session that another daemon negotiated: it is not part of a saved state. Upstream never takes HAS_RESEND,
 * we always do, so that tells who it was; of the minors after it only INC_EPOCH_MINOR (Linux 6.16) makes a difference.
 *
 * @param release version of the running kernel, such as `6.18.1`
 */
export function minorOf(agreed: bigint, release: string): number {
  if (((agreed >> 32n) & BigInt(InitFlag2.HAS_RESEND)) === 0n) return UPSTREAM_MINOR;
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  return major > 6 || (major === 6 && minor >= 16) ? INC_EPOCH_MINOR : RESEND_MINOR;
}
