// A gzip stream decoded by the workers of a pool, a step at a time: while the caller reads one piece the next is made. In
// place of the streams of node:zlib, whose every piece wakes two threads: the thread that parses the tar is then the one that
// all others wait for (docs/measured-build.md).
import { FormatError } from '../base/errors.ts';
import { endInflate, type InflateStream } from '../native/inflate.ts';
import type { InflateDone } from './inflate-job.ts';
import type { WorkerPool } from './pool.ts';

/** Input of a step: pieces from a network are collected up to this. */
const INPUT_SIZE = 256 * 1024;
/** Output of a step: a worker needs some 2 ms for it, much longer than its messages. */
const OUTPUT_SIZE = 1024 * 1024;

class Decoding {
  readonly #stream: InflateStream;
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #pool: WorkerPool;
  #input: ArrayBuffer = new ArrayBuffer(INPUT_SIZE);
  #from = 0;
  #to = 0;
  /** of a piece that did not fit into the input */
  #rest: Uint8Array = new Uint8Array(0);
  #ended: InflateDone['ended'] = 'no';
  #sourceEnded = false;
  /** the output was filled: there may be more without further input */
  #full = false;

  constructor(stream: InflateStream, source: AsyncIterator<Uint8Array>, pool: WorkerPool) {
    this.#stream = stream;
    this.#source = source;
    this.#pool = pool;
  }

  async #fill(): Promise<void> {
    const input = new Uint8Array(this.#input);
    this.#from = this.#to = 0;
    while (this.#to < input.length) {
      if (this.#rest.length === 0) {
        if (this.#sourceEnded) return;
        const next = await this.#source.next();
        if (next.done === true) this.#sourceEnded = true;
        else this.#rest = next.value;
      }
      const taken = this.#rest.subarray(0, input.length - this.#to);
      input.set(taken, this.#to);
      this.#to += taken.length;
      this.#rest = this.#rest.subarray(taken.length);
    }
  }

  /** Nothing more counts, but whoever verifies the source wants it read to its end. */
  async #drain(): Promise<undefined> {
    while (!this.#sourceEnded) this.#sourceEnded = (await this.#source.next()).done === true;
  }

  /** The next piece, in `output`; undefined at the end. @throws FormatError the stream is damaged */
  async step(output: ArrayBuffer): Promise<{ output: ArrayBuffer; piece: Uint8Array } | undefined> {
    let room = output;
    for (;;) {
      if (this.#ended === 'stream') return this.#drain();
      if (this.#from === this.#to && !this.#full) await this.#fill();
      if (this.#from === this.#to && !this.#full) {
        if (this.#ended !== 'no') return undefined;
        throw new FormatError({ struct: 'compressed tar' }, 'unexpected end of file');
      }
      const done = await this.#pool.inflate({
        stream: this.#stream,
        input: this.#input,
        from: this.#from,
        to: this.#to,
        output: room,
        between: this.#ended === 'member',
      });
      ({ input: this.#input, output: room, ended: this.#ended } = done);
      this.#from += done.read;
      this.#full = done.written === room.byteLength;
      if (done.written > 0) return { output: room, piece: new Uint8Array(room, 0, done.written) };
      if (done.problem !== undefined) throw new FormatError({ struct: 'compressed tar' }, done.problem);
    }
  }
}

/**
 * Decode a gzip stream. A piece is valid until the next one is asked for.
 *
 * @param stream from `beginInflate`; it is ended here
 * @throws FormatError the stream is damaged or cut short
 */
export async function* inflated(
  stream: InflateStream,
  source: AsyncIterator<Uint8Array>,
  pool: WorkerPool,
): AsyncGenerator<Uint8Array> {
  const decoding = new Decoding(stream, source, pool);
  let spare = new ArrayBuffer(OUTPUT_SIZE);
  let next = decoding.step(new ArrayBuffer(OUTPUT_SIZE));
  try {
    for (;;) {
      const done = await next;
      if (done === undefined) return;
      next = decoding.step(spare);
      // it may fail long before it is asked for
      next.catch(() => {});
      yield done.piece;
      spare = done.output;
    }
  } finally {
    // not waited for: it may sleep on a FIFO whose bytes never come
    void next.catch(() => {}).then(() => endInflate(stream));
    void source.return?.()?.catch(() => {});
  }
}
