// Makes readiness last: some time after chunks were written their data is flushed, then their bits are set in the map file.
// A bit in the file never leads its data. Source: blob-and-cache.md 17.3.
import { messageOf } from '../../base/errors.ts';
import { MIB } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { DataFile } from './data-file.ts';

/** Unpublished data is flushed after this time, or when this much has come together. */
export const PUBLISH_MS = 1000;
const PUBLISH_BYTES = 1024 * MIB;

export class Publisher {
  readonly #map: ChunkMap;
  readonly #data: DataFile | undefined;
  readonly #millis: number;
  readonly #logger: Logger;
  readonly #told: ((chunks: readonly number[]) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #bytes = 0;
  #closed = false;

  /**
   * @param millis from the first chunk that was written until the flush starts
   * @param told   chunks whose bits are in the file now
   */
  constructor(
    map: ChunkMap,
    data: DataFile | undefined,
    millis: number,
    logger: Logger,
    told?: (chunks: readonly number[]) => void,
  ) {
    this.#map = map;
    this.#data = data;
    this.#millis = millis;
    this.#logger = logger;
    this.#told = told;
  }

  /** A chunk was written to the data file; call `schedule` after the last one. */
  add(index: number, bytes: number): void {
    this.#map.remember(index);
    this.#bytes += bytes;
  }

  /** See that what was added is published in time. */
  schedule(): void {
    if (this.#bytes === 0 || !this.#map.persistent || this.#closed) return;
    if (this.#bytes >= PUBLISH_BYTES) void this.publish();
    else if (this.#timer === undefined) {
      this.#timer = setTimeout(() => void this.publish(), this.#millis);
      this.#timer.unref();
    }
  }

  /** Flush what was written and set its bits in the map file. One flush at a time. */
  publish(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#running ??= this.#publishOnce().finally(() => {
      this.#running = undefined;
      this.schedule();
    });
    return this.#running;
  }

  async #publishOnce(): Promise<void> {
    this.#bytes = 0;
    const chunks = this.#map.takeUnpublished();
    if (chunks.length === 0 || this.#data === undefined) return;
    try {
      await this.#data.flush();
      this.#map.publish(chunks);
      // what was taken away meanwhile is not there
      this.#told?.(chunks.filter((index) => this.#map.isReadyInFile(index)));
    } catch (error) {
      this.#logger.warn(
        `cannot flush ${this.#data.path}: ${messageOf(error)}; its new chunks are fetched again next time`,
      );
    }
  }

  /** No timer starts any more. */
  stop(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** After `stop`: publish what is left. */
  async finish(): Promise<void> {
    await this.#running;
    await this.#publishOnce();
  }
}
