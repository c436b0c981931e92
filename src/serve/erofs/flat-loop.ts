// The loop of the thread that serves blobs as flat files to the kernel: a FUSE server with one directory and no caching. What is local
// is answered here, the rest by the main thread. A reply is whole or an error: EROFS fills up a short one with zeros.
import { constants } from 'node:os';
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { readByAddress, writeByAddress } from '../../native/descriptor.ts';
import { preadFull } from '../../native/file-io.ts';
import { lastErrno } from '../../native/libc.ts';
import { currentThreadId } from '../../native/thread-interrupt.ts';
import { BlobRanges } from '../../rafs/blob-ranges.ts';
import { S_IFDIR, S_IFREG } from '../../format/flags.ts';
import { MessageBuffer } from '../message-buffer.ts';
import {
  BUFFER_SLACK,
  CONGESTION_THRESHOLD,
  InitFlag,
  KERNEL_MINOR_VERSION,
  KERNEL_VERSION,
  MAX_BACKGROUND,
  MAX_IO,
  MAX_PAGES,
  Opcode,
  ROOT_NODEID,
} from '../opcodes.ts';
import {
  attr,
  attrOut,
  entryOut,
  inHeader,
  initIn,
  initOut,
  offsetsOf,
  openOut,
  outHeader,
  readIn,
} from '../protocol.ts';
import { countAllowed, FeedWords, type FlatNews, type FlatReport, type FlatStart } from './feed-messages.ts';

const { EINTR, ENOENT, ENODEV, ENOSYS, EIO, EAGAIN } = constants.errno;
const H = offsetsOf(inHeader);
const O = offsetsOf(outHeader);
const R = offsetsOf(readIn);
const FOPEN_DIRECT_IO = 1;
const BODY = outHeader.size;
/** names and attributes never change; seconds */
const FOREVER = 86_400n;
const NO_REPLY = -1;
const DEFERRED = -2;
const WANTED = InitFlag.ASYNC_READ | InitFlag.ASYNC_DIO | InitFlag.BIG_WRITES | InitFlag.MAX_PAGES;

interface Blob {
  size: number;
  /** open data file */
  fd: number;
  ready: Uint8Array;
  allowed: Float64Array;
  ranges: BlobRanges | undefined;
}

export class FlatLoop {
  readonly #start: FlatStart;
  readonly #port: MessagePort;
  readonly #words: FeedWords;
  readonly #blobs = new Map<number, Blob>();
  readonly #request = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK);
  readonly #reply = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK, BODY);
  readonly #read = readByAddress();
  readonly #write = writeByAddress();
  #generation = 0;

  constructor(start: FlatStart, port: MessagePort) {
    this.#start = start;
    this.#port = port;
    this.#words = new FeedWords(start.words);
    this.#words.tid = currentThreadId();
  }

  /** Serve until unmounted or asked to stop. */
  run(): void {
    this.#post({ type: 'ready' });
    const errno = this.#serve();
    this.#words.setDone();
    this.#post({ type: 'end', errno });
    this.#port.close();
  }

  #serve(): number {
    const { deviceFd } = this.#start;
    const { address, bytes } = this.#request;
    while (!this.#words.stopping) {
      const length = this.#read(deviceFd, address, bytes.length);
      if (this.#words.generation !== this.#generation) this.#news();
      if (length > 0) this.#answer();
      else {
        const errno = lastErrno();
        if (errno !== EINTR && errno !== ENOENT && errno !== EAGAIN) return errno === 0 ? ENODEV : errno;
      }
    }
    return 0;
  }

  #answer(): void {
    const { view } = this.#request;
    const out = this.#reply.view;
    const result = this.#dispatch(view.getUint32(H.opcode, true), view.getUint32(H.nodeid, true));
    if (result === NO_REPLY || result === DEFERRED) return;
    const failed = result < 0;
    out.setUint32(O.len, BODY + (failed ? 0 : result), true);
    out.setInt32(O.error, failed ? result + 1000 : 0, true);
    out.setUint32(O.unique, view.getUint32(H.unique, true), true);
    out.setUint32(O.unique + 4, view.getUint32(H.unique + 4, true), true);
    // a failed write is no error here: the request was interrupted, or the mount is gone
    this.#write(this.#start.deviceFd, this.#reply.address, BODY + (failed ? 0 : result));
  }

  /** Bytes of the answer behind the header; NO_REPLY, DEFERRED, or an errno by `fail`. */
  #dispatch(opcode: number, nodeid: number): number {
    switch (opcode) {
      case Opcode.INIT:
        return this.#init();
      case Opcode.LOOKUP:
        return this.#lookup();
      case Opcode.GETATTR: {
        if (!this.#putAttr(nodeid, BODY + attrOut.size)) return fail(ENOENT);
        attrOut.write(this.#reply.view, BODY, { attrValid: FOREVER });
        return attrOut.size + attr.size;
      }
      case Opcode.OPEN:
        openOut.write(this.#reply.view, BODY, { fh: 0n, openFlags: FOPEN_DIRECT_IO, backingId: 0 });
        return openOut.size;
      case Opcode.READ:
        return this.#readBlob(nodeid);
      case Opcode.RELEASE:
      case Opcode.FLUSH:
      case Opcode.DESTROY:
        return 0;
      case Opcode.FORGET:
      case Opcode.BATCH_FORGET:
      case Opcode.INTERRUPT:
        return NO_REPLY;
      default:
        return fail(ENOSYS);
    }
  }

  #init(): number {
    const { view } = this.#request;
    const offered = initIn.field.flags(view, inHeader.size);
    initOut.write(this.#reply.view, BODY, {
      major: KERNEL_VERSION,
      minor: Math.min(initIn.field.minor(view, inHeader.size), KERNEL_MINOR_VERSION),
      maxReadahead: 0,
      flags: WANTED & offered,
      maxBackground: MAX_BACKGROUND,
      congestionThreshold: CONGESTION_THRESHOLD,
      maxWrite: MAX_IO,
      timeGran: 1,
      maxPages: MAX_PAGES,
      flags2: 0,
    });
    return initOut.size;
  }

  #lookup(): number {
    const { bytes, view } = this.#request;
    const end = view.getUint32(H.len, true) - 1;
    const id = Number(
      Buffer.from(bytes.buffer, bytes.byteOffset + inHeader.size, end - inHeader.size).toString('latin1'),
    );
    const nodeid = id + ROOT_NODEID;
    if (!this.#blobs.has(id) || !this.#putAttr(nodeid, BODY + entryOut.size)) return fail(ENOENT);
    entryOut.write(this.#reply.view, BODY, {
      nodeid: BigInt(nodeid),
      generation: 0n,
      entryValid: FOREVER,
      attrValid: FOREVER,
    });
    return entryOut.size + attr.size;
  }

  #putAttr(nodeid: number, at: number): boolean {
    const blob = this.#blobs.get(nodeid - ROOT_NODEID);
    if (blob === undefined && nodeid !== ROOT_NODEID) return false;
    const size = BigInt(blob?.size ?? 0);
    attr.write(this.#reply.view, at, {
      ino: BigInt(nodeid),
      size,
      blocks: (size + 511n) / 512n,
      mode: blob === undefined ? S_IFDIR | 0o500 : S_IFREG | 0o400,
      nlink: 1,
      blksize: 4096,
    });
    return true;
  }

  #readBlob(nodeid: number): number {
    const { view } = this.#request;
    const id = nodeid - ROOT_NODEID;
    const blob = this.#blobs.get(id);
    const offset = Number(view.getBigUint64(inHeader.size + R.offset, true));
    const size = view.getUint32(inHeader.size + R.size, true);
    if (blob === undefined || size > MAX_IO) return fail(EIO);
    if (blob.ranges?.isReady(offset, size, blob.ready) === true) {
      const got = preadFull(blob.fd, this.#reply.address + BODY, size, offset);
      if (got >= 0 && isWhole(got, offset, size, blob.size)) {
        this.#reply.bytes.fill(0, BODY + got, BODY + size);
        this.#words.countAllowed(size);
        countAllowed(blob.allowed, size);
        return size;
      }
    }
    const [uniqueLow, uniqueHigh] = [view.getUint32(H.unique, true), view.getUint32(H.unique + 4, true)];
    this.#post({ type: 'need', id, uniqueLow, uniqueHigh, offset, size });
    return DEFERRED;
  }

  #news(): void {
    this.#generation = this.#words.generation;
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: FlatNews } | undefined;
      if (received === undefined) return;
      const news = received.message;
      if (news.type === 'drop') this.#blobs.delete(news.id);
      else if (news.type === 'blob') {
        const { id, size, fd } = news;
        const [ready, allowed] = [new Uint8Array(news.ready), new Float64Array(news.allowed)];
        this.#blobs.set(id, { size, fd, ready, allowed, ranges: undefined });
      } else {
        const blob = this.#blobs.get(news.id);
        if (blob !== undefined) blob.ranges = new BlobRanges(news.memory);
      }
    }
  }

  #post(report: FlatReport): void {
    this.#port.postMessage(report);
  }
}

/** An errno as a result that is none of the other negative ones. */
function fail(errno: number): number {
  return -errno - 1000;
}

/** Whether bytes of the data file are all that a read can have: the last block of the device may go past its end. */
export function isWhole(got: number, offset: number, size: number, deviceSize: number): boolean {
  return got === size || (offset + size >= deviceSize && deviceSize - (offset + got) < 4096);
}
