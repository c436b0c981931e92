// A network link in user space: a TCP proxy that adds round-trip time and limits bandwidth, and that can go down.
// Connections share the bandwidth fairly, as flows of a real link do; slow start and loss are not modelled.
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

export interface DelayProxyOptions {
  target: { host: string; port: number };
  /** milliseconds there and back; a new connection costs one more, as its handshake does */
  rttMs: number;
  /** of each direction; 0 = not limited */
  bitsPerSecond: number;
}

export interface DelayProxy {
  port: number;
  /** bytes that went through so far */
  bytes: () => { toClient: number; toServer: number };
  /** connections accepted so far */
  connections: () => number;
  /** true: connections are reset and new ones refused until it is false again */
  setDown: (down: boolean) => Promise<void>;
  close: () => Promise<void>;
}

/** Bytes of one connection sent before the next one has its turn. */
const QUANTUM = 16 * 1024;
/** Bytes read ahead of the link for one connection. */
const MAX_QUEUED = 256 * 1024;

/** Bytes of one connection in one direction. */
class Flow {
  readonly #link: Link;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly queue: Buffer[] = [];
  queued = 0;
  /** no piece arrives before this time */
  notBefore: number;
  #ended = false;

  constructor(link: Link, from: Socket, to: Socket, notBefore: number) {
    this.#link = link;
    this.#from = from;
    this.#to = to;
    this.notBefore = notBefore;
  }

  add(piece: Buffer): void {
    this.queue.push(piece);
    this.queued += piece.length;
    if (this.queued > MAX_QUEUED) this.#from.pause();
    this.#link.wake(this);
  }

  end(): void {
    this.#ended = true;
    this.#link.wake(this);
  }

  /** Up to a quantum of bytes, or undefined when there are none. */
  take(): Buffer | undefined {
    const first = this.queue[0];
    if (first === undefined) return undefined;
    const piece = first.subarray(0, QUANTUM);
    if (piece.length === first.length) this.queue.shift();
    else this.queue[0] = first.subarray(QUANTUM);
    this.queued -= piece.length;
    if (this.queued <= MAX_QUEUED) this.#from.resume();
    return piece;
  }

  /** True when the last byte was taken and the sender closed. */
  get finished(): boolean {
    return this.#ended && this.queue.length === 0;
  }

  deliver(piece: Buffer | undefined): void {
    if (this.#to.destroyed) return;
    if (piece === undefined) this.#to.end();
    else {
      this.#link.bytes += piece.length;
      this.#to.write(piece);
    }
  }
}

/** One direction of the link. */
class Link {
  bytes = 0;
  readonly #oneWayMs: number;
  readonly #bytesPerMs: number;
  readonly #active: Flow[] = [];
  readonly #onTheWay: { at: number; flow: Flow; piece: Buffer | undefined }[] = [];
  /** when the last byte accepted so far has left */
  #freeAt = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(oneWayMs: number, bitsPerSecond: number) {
    this.#oneWayMs = oneWayMs;
    this.#bytesPerMs = bitsPerSecond > 0 ? bitsPerSecond / 8000 : Infinity;
  }

  wake(flow: Flow): void {
    if (!this.#active.includes(flow)) this.#active.push(flow);
    this.#turn();
  }

  #turn(): void {
    const now = performance.now();
    // a millisecond ahead: timers are no finer
    while (this.#active.length > 0 && this.#freeAt <= now + 1) {
      const flow = this.#active.shift();
      const piece = flow?.take();
      if (flow === undefined) break;
      if (piece !== undefined) {
        this.#freeAt = Math.max(this.#freeAt, now) + piece.length / this.#bytesPerMs;
        this.#send(flow, piece);
      }
      if (flow.queue.length > 0) this.#active.push(flow);
      else if (flow.finished) this.#send(flow, undefined);
    }
    while (this.#onTheWay.length > 0 && (this.#onTheWay[0]?.at ?? Infinity) <= now) {
      const next = this.#onTheWay.shift();
      next?.flow.deliver(next.piece);
    }
    this.#plan(now);
  }

  #send(flow: Flow, piece: Buffer | undefined): void {
    const at = Math.max(this.#freeAt + this.#oneWayMs, flow.notBefore);
    flow.notBefore = at;
    let index = this.#onTheWay.length;
    while (index > 0 && (this.#onTheWay[index - 1]?.at ?? 0) > at) index--;
    this.#onTheWay.splice(index, 0, { at, flow, piece });
  }

  #plan(now: number): void {
    clearTimeout(this.#timer);
    const arrival = this.#onTheWay[0]?.at ?? Infinity;
    const departure = this.#active.length > 0 ? this.#freeAt : Infinity;
    const next = Math.min(arrival, departure);
    if (next === Infinity) return;
    this.#timer = setTimeout(() => this.#turn(), Math.max(0, next - now));
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#active.length = 0;
    this.#onTheWay.length = 0;
  }
}

function joinFlow(link: Link, from: Socket, to: Socket, notBefore: number): void {
  const flow = new Flow(link, from, to, notBefore);
  from.on('data', (piece: Buffer) => flow.add(piece));
  from.on('end', () => flow.end());
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
}

/** Start a link to `target`, on a free port of loopback. */
export async function startDelayProxy(options: DelayProxyOptions): Promise<DelayProxy> {
  const { target, rttMs, bitsPerSecond } = options;
  const up = new Link(rttMs / 2, bitsPerSecond);
  const down = new Link(rttMs / 2, bitsPerSecond);
  const sockets = new Set<Socket>();
  let accepted = 0;
  let isDown = false;
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    // one that the kernel had accepted already when the link went down
    if (isDown) return void client.resetAndDestroy();
    accepted++;
    const origin = connect({ ...target, noDelay: true, allowHalfOpen: true });
    const now = performance.now();
    joinFlow(up, client, origin, rttMs > 0 ? now + 1.5 * rttMs : 0);
    joinFlow(down, origin, client, 0);
    for (const [one, other] of [
      [client, origin],
      [origin, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        sockets.delete(one);
        if (!one.readableEnded) other.destroy();
      });
    }
  });
  await listen(server, 0);
  const { port } = server.address() as AddressInfo;
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.resetAndDestroy();
      up.stop();
      down.stop();
    });
  return {
    port,
    bytes: () => ({ toClient: down.bytes, toServer: up.bytes }),
    connections: () => accepted,
    setDown: async (wanted) => {
      if (wanted === isDown) return;
      isDown = wanted;
      await (wanted ? stop() : listen(server, port));
    },
    close: async () => {
      if (isDown) return;
      isDown = true;
      await stop();
    },
  };
}
