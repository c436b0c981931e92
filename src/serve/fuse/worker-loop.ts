// The loop of one worker thread: read a request, serve it, write the reply. Never returns to the event loop while it serves.
// It sleeps in read(), or in poll() on a CPU of its own (decision 0003); the main thread gets it out with a signal that nobody restarts (DESIGN 3, the trap).
import { constants } from 'node:os';
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { errnoName } from '../../base/errno.ts';
import { messageOf } from '../../base/errors.ts';
import { bindThread } from '../../native/affinity.ts';
import { Poller, readByAddress, setNonBlocking, writeByAddress } from '../../native/descriptor.ts';
import { lastErrno } from '../../native/libc.ts';
import { currentThreadId } from '../../native/thread-interrupt.ts';
import { AccessLog } from '../access-log.ts';
import { Dispatcher } from '../dispatcher.ts';
import { DEFERRED } from '../exchange.ts';
import { MessageBuffer } from '../message-buffer.ts';
import { BUFFER_SLACK, MAX_IO, opcodeName, ROOT_NODEID } from '../opcodes.ts';
import { inHeader, offsetsOf, outHeader } from '../protocol.ts';
import { PassthroughFs } from '../passthrough/passthrough-fs.ts';
import { PseudoView } from '../pseudo/pseudo-view.ts';
import { ServedImage, type LocalSource } from '../served-image.ts';
import { SessionState } from '../session-state.ts';
import type { Attachment, BackendNews, WorkerReport, WorkerStart } from './thread-messages.ts';
import { workerAreas, type Presence } from './worker-areas.ts';

const { EAGAIN, EINTR, ENOENT, ENODEV } = constants.errno;

const H = offsetsOf(inHeader);
const O = offsetsOf(outHeader);
/** different error texts a worker reports before it goes silent */
const MAX_REPORTS = 100;

/** Serves one channel until the session ends. */
export class WorkerLoop {
  readonly #start: WorkerStart;
  readonly #port: MessagePort;
  readonly #openSource: (share: unknown) => LocalSource;
  readonly #state: SessionState;
  readonly #dispatcher: Dispatcher;
  readonly #accessLog: AccessLog;
  readonly #request = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK);
  readonly #reply = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK, outHeader.size);
  readonly #presence: Presence;
  readonly #read = readByAddress();
  readonly #write = writeByAddress();
  readonly #reported = new Set<string>();
  #poller: Poller | undefined;
  #generation = 0;
  #held: boolean;

  /** @param openSource makes the reader of a share; throws when the image is gone */
  constructor(start: WorkerStart, port: MessagePort, openSource: (share: unknown) => LocalSource) {
    this.#start = start;
    this.#port = port;
    this.#openSource = openSource;
    this.#held = start.hold;
    this.#state = new SessionState(start.state);
    const areas = workerAreas(start.shared);
    this.#presence = areas.presence;
    this.#presence.threadId = currentThreadId();
    this.#accessLog = new AccessLog(start.accessLog, () => this.#post({ type: 'drain' }));
    this.#dispatcher = new Dispatcher({
      state: this.#state,
      serveOpen: start.serveOpen,
      startedAtSec: start.startedAtSec,
      ...areas,
      interrupt: (uniqueLow, uniqueHigh) => this.#post({ type: 'interrupt', uniqueLow, uniqueHigh }),
      report: (op, error) => this.#reportError(op, error),
    });
  }

  /** Serve until asked to stop or unmounted; both are reported. */
  run(): void {
    this.#post({ type: 'ready' });
    while (this.#news() && this.#held) this.#state.waitForNews(this.#generation);
    this.#settle();
    const errno = this.#state.stopping ? 0 : this.#serve();
    this.#presence.setDone();
    this.#post({ type: 'end', errno });
    this.#port.close();
  }

  /** Go to the CPU that it shall stay on. Where that is not allowed, it sleeps in read wherever it runs. */
  #settle(): void {
    const { cpu, deviceFd } = this.#start;
    if (cpu === undefined) return;
    try {
      bindThread(cpu);
      setNonBlocking(deviceFd, true);
    } catch (error) {
      this.#reportError('staying on a CPU', error);
    }
  }

  /** The hot loop. Returns the errno that ended it, 0 when asked to stop. */
  #serve(): number {
    const fd = this.#start.deviceFd;
    const { address, bytes } = this.#request;
    const size = bytes.length;
    const state = this.#state;
    for (;;) {
      if (state.generation !== this.#generation && !this.#news()) return 0;
      const length = this.#read(fd, address, size);
      if (length > 0) {
        // the request may be newer than what was read of the news
        const isOver = state.generation !== this.#generation && !this.#news();
        this.#answer(length);
        if (isOver) return 0;
        continue;
      }
      const errno = lastErrno();
      if (errno === EAGAIN) {
        // nothing to do; news interrupts a poll as it does a read
        this.#poller ??= new Poller([fd]);
        this.#poller.wait(-1);
        continue;
      }
      // EINTR: there is news; ENOENT: the request was interrupted while it was being handed over
      if (errno !== EINTR && errno !== ENOENT) return errno === 0 ? ENODEV : errno;
    }
  }

  #answer(length: number): void {
    const reply = this.#reply;
    const size = this.#dispatcher.dispatch(this.#request, length, reply);
    if (size > 0) {
      // ENOENT: the request was interrupted meanwhile; ENODEV shows at the next read
      this.#write(this.#start.deviceFd, reply.address, size);
    } else if (size === DEFERRED) this.#defer();
    if (this.#state.trace) this.#trace(size);
  }

  #defer(): void {
    const { view } = this.#request;
    this.#post({
      type: 'miss',
      fd: this.#start.deviceFd,
      uniqueLow: view.getUint32(H.unique, true),
      uniqueHigh: view.getUint32(H.unique + 4, true),
      ...this.#dispatcher.deferred,
    });
  }

  /** Fetch what the main thread has to say. False: it is time to end. */
  #news(): boolean {
    this.#generation = this.#state.generation;
    for (;;) {
      const received = receiveMessageOnPort(this.#port) as { message: BackendNews } | undefined;
      if (received === undefined) {
        this.#presence.seen = this.#generation;
        return !this.#state.stopping;
      }
      this.#apply(received.message);
    }
  }

  #apply(news: BackendNews): void {
    let problem: unknown;
    for (const attachment of news.attach) {
      try {
        this.#attach(attachment);
      } catch (error) {
        problem = error;
      }
    }
    for (const index of news.detach) {
      this.#dispatcher.setImage(index, undefined);
      this.#dispatcher.setDirectory(index, undefined);
    }
    this.#dispatcher.pseudo = new PseudoView(news.pseudo);
    this.#dispatcher.setRoot(news.pseudo.find(({ ino }) => ino === ROOT_NODEID)?.index ?? 0);
    if (news.attach.length > 0 && problem === undefined) this.#held = false;
    this.#post({ type: 'ack', sequence: news.sequence, problem });
  }

  #attach(attachment: Attachment): void {
    const { index } = attachment;
    if (attachment.kind === 'passthrough') {
      this.#dispatcher.setDirectory(index, new PassthroughFs(attachment.share, index));
      return;
    }
    const { generation, share, options, accounting } = attachment;
    const log = accounting ? this.#accessLog : undefined;
    this.#dispatcher.setImage(
      index,
      new ServedImage(this.#openSource(share), index, generation, options, log),
    );
  }

  /** Wire log: one JSON record per operation, never payload. */
  #trace(size: number): void {
    const { view } = this.#request;
    const out = this.#reply.view;
    const error = size > 0 ? -out.getInt32(O.error, true) : 0;
    const record = {
      op: opcodeName(view.getUint32(H.opcode, true)),
      unique: view.getBigUint64(H.unique, true).toString(),
      nodeid: `0x${view.getBigUint64(H.nodeid, true).toString(16)}`,
      us: Math.round((performance.now() - this.#dispatcher.beganAtMs) * 1000),
      errno: size === DEFERRED ? 'deferred' : error === 0 ? 0 : errnoName(error),
    };
    this.#post({ type: 'trace', line: JSON.stringify(record) });
  }

  #reportError(op: string, error: unknown): void {
    const message = `${op}: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}`;
    if (this.#reported.size >= MAX_REPORTS || this.#reported.has(message)) return;
    this.#reported.add(message);
    this.#post({ type: 'error', message });
  }

  #post(report: WorkerReport): void {
    this.#port.postMessage(report);
  }
}
