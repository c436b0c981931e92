// The loop of the thread that reads events: local? allowed at once; else written down and handed to the main thread. It sleeps in
// read(); the main thread gets it out with a signal that nobody restarts. Source: DESIGN 2.1, 3.
import { closeSync, fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { errnoName } from '../../base/errno.ts';
import { readByAddress, writeByAddress } from '../../native/descriptor.ts';
import { FAN_ALLOW, FAN_DENY_EIO } from '../../native/fanotify.ts';
import { lastErrno } from '../../native/libc.ts';
import { allocateMemory } from '../../native/memory.ts';
import { currentThreadId } from '../../native/thread-interrupt.ts';
import { BlobRanges } from '../../rafs/blob-ranges.ts';
import { newEvent, putResponse, readEvent, RESPONSE_SIZE, settleEvent } from './events.ts';
import { countAllowed, FeedWords, type FeedNews, type FeedReport, type FeedStart } from './feed-messages.ts';
import { Journal, READ_SIZE, UNKNOWN_BLOB } from './journal.ts';

const { EINTR, EAGAIN } = constants.errno;
/** Pause while all slots of the journal are taken, ms. */
const FULL_MS = 1;

interface Blob {
  id: number;
  dev: number;
  ino: number;
  ready: Uint8Array;
  allowed: Float64Array;
  ranges: BlobRanges | undefined;
}

/** Reads events until asked to stop. */
export class EventLoop {
  readonly #start: FeedStart;
  readonly #port: MessagePort;
  readonly #words: FeedWords;
  readonly #journal: Journal;
  readonly #blobs = new Map<number, Blob>();
  /** blobs by inode number: usually one each */
  readonly #byInode = new Map<number, Blob[]>();
  readonly #event = newEvent();
  readonly #response = allocateMemory(4096);
  readonly #read = readByAddress();
  readonly #write = writeByAddress();
  #generation = 0;

  constructor(start: FeedStart, port: MessagePort) {
    this.#start = start;
    this.#port = port;
    this.#words = new FeedWords(start.words);
    this.#journal = new Journal(start.journalFd);
    this.#words.tid = currentThreadId();
  }

  /** Serve until asked to stop, or the group fails; how it ended is reported. */
  run(): void {
    const errno = this.#serve();
    this.#words.setDone();
    this.#post({ type: 'end', errno });
    this.#port.close();
  }

  #serve(): number {
    const { groupFd } = this.#start;
    const { address, bytes } = this.#journal.read;
    while (!this.#words.stopping) {
      if (this.#words.generation !== this.#generation) this.#news();
      const length = this.#read(groupFd, address, READ_SIZE);
      if (length > 0) {
        // an event may be newer than what was read of the news
        if (this.#words.generation !== this.#generation) this.#news();
        this.#batch(length);
        bytes.fill(0, 0, length);
        continue;
      }
      const errno = lastErrno();
      if (errno !== EINTR && errno !== EAGAIN) {
        this.#post({ type: 'error', message: `reading events: ${errnoName(errno)}` });
        if (errno === constants.errno.EBADF || errno === constants.errno.EINVAL) return errno;
      }
    }
    return 0;
  }

  #batch(length: number): void {
    const { view } = this.#journal.read;
    for (let at = 0; readEvent(view, at, length, this.#event); at += this.#event.length) this.#one(view, at);
  }

  #one(view: DataView, at: number): void {
    const event = this.#event;
    const { fd, tid, offset, count } = event;
    if (fd < 0) return; // the queue overflowed, which an unlimited one does not
    const blob = count < 0 ? undefined : this.#blobOf(fd);
    if (blob?.ranges?.isReady(offset, count, blob.ready) === true) {
      this.#words.countAllowed(count);
      countAllowed(blob.allowed, count);
      this.#answer(view, at, fd, FAN_ALLOW);
    } else if (tid === this.#start.mainTid) {
      // the thread that would fetch waits for itself: anything but an error would be for ever, or zeros
      this.#post({ type: 'error', message: `our own main thread reads what is not local, at ${offset}` });
      this.#answer(view, at, fd, FAN_DENY_EIO);
    } else {
      this.#defer(view, at, blob?.id ?? UNKNOWN_BLOB);
    }
  }

  #defer(view: DataView, at: number, blob: number): void {
    const { fd, offset, count } = this.#event;
    let slot = this.#journal.add(fd, blob, offset, count);
    while (slot < 0) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_MS);
      slot = this.#journal.add(fd, blob, offset, count);
    }
    settleEvent(view, at);
    this.#post({ type: 'need', slot, fd, blob, offset, count });
  }

  #answer(view: DataView, at: number, fd: number, response: number): void {
    putResponse(this.#response.view, 0, fd, response);
    // a failure means that nobody waits any more
    this.#write(this.#start.groupFd, this.#response.address, RESPONSE_SIZE);
    settleEvent(view, at);
    closeSync(fd);
  }

  #blobOf(fd: number): Blob | undefined {
    const { ino, dev } = fstatSync(fd);
    const list = this.#byInode.get(ino);
    return list?.length === 1 && list[0]?.dev === dev ? list[0] : list?.find((blob) => blob.dev === dev);
  }

  #news(): void {
    this.#generation = this.#words.generation;
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: FeedNews } | undefined;
      if (received === undefined) return;
      this.#apply(received.message);
    }
  }

  #apply(news: FeedNews): void {
    if (news.type === 'blob') {
      const { id, dev, ino } = news;
      const [ready, allowed] = [new Uint8Array(news.ready), new Float64Array(news.allowed)];
      const blob: Blob = { id, dev, ino, ready, allowed, ranges: undefined };
      this.#blobs.set(id, blob);
      this.#byInode.set(ino, [...(this.#byInode.get(ino) ?? []), blob]);
      return;
    }
    const blob = this.#blobs.get(news.id);
    if (blob === undefined) return;
    if (news.type === 'ranges') blob.ranges = new BlobRanges(news.memory);
    else {
      this.#blobs.delete(news.id);
      const rest = (this.#byInode.get(blob.ino) ?? []).filter((other) => other !== blob);
      if (rest.length > 0) this.#byInode.set(blob.ino, rest);
      else this.#byInode.delete(blob.ino);
    }
  }

  #post(report: FeedReport): void {
    this.#port.postMessage(report);
  }
}
