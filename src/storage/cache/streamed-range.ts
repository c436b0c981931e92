// A range on its way from a backend: each part can be used as soon as its own bytes are there.
import type { BlobReader } from '../backend/backend.ts';

interface Waiting {
  end: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

export class StreamedRange {
  /** shared, so that decode threads see it without a copy */
  readonly #bytes: Uint8Array;
  readonly #waiting: Waiting[] = [];
  #done = 0;
  #end: { error?: unknown } | undefined;

  /** Starts to read. Failures show in `part`. */
  constructor(reader: BlobReader, start: number, length: number, prefetch: boolean, over: () => void) {
    this.#bytes = new Uint8Array(new SharedArrayBuffer(length));
    const progress = (done: number): void => {
      this.#done = done;
      this.#tell();
    };
    reader
      .read(start, length, undefined, { prefetch, into: this.#bytes, progress })
      .then(
        (got) => {
          // a reader that has its own memory
          if (got.buffer !== this.#bytes.buffer) this.#bytes.set(got.subarray(0, length));
          this.#done = got.length;
          this.#end = {};
        },
        (error: unknown) => void (this.#end = { error }),
      )
      .finally(() => {
        over();
        this.#tell();
      });
  }

  /**
   * Bytes from `from` to `end`, counted from the start of the range; fewer where the blob ends.
   *
   * @throws BackendError EIO  they could not be read
   */
  async part(from: number, end: number): Promise<Uint8Array> {
    if (this.#done < end && this.#end === undefined) {
      await new Promise<void>((resolve, reject) => {
        this.#waiting.push({ end, resolve, reject });
      });
    }
    if (this.#done < end && this.#end?.error !== undefined) throw this.#end.error;
    return this.#bytes.subarray(from, Math.min(end, this.#done));
  }

  #tell(): void {
    for (let at = this.#waiting.length - 1; at >= 0; at--) {
      const waiting = this.#waiting[at];
      if (waiting === undefined || (waiting.end > this.#done && this.#end === undefined)) continue;
      this.#waiting.splice(at, 1);
      if (waiting.end > this.#done && this.#end?.error !== undefined) waiting.reject(this.#end.error);
      else waiting.resolve();
    }
  }
}
