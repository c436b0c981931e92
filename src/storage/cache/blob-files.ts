// What this process has of one blob, whichever image reads it: its files, what of it is ready, what is on its way. Images that read
// the same blob in the same way use one of these, so that each chunk is fetched once. Source: blob-and-cache.md 17.2, 17.3.
import type { Logger } from '../../base/log.ts';
import { CacheHealth } from './cache-health.ts';
import type { JobEnd } from './chunk-fetcher.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { DataFile } from './data-file.ts';
import type { DecodeTarget } from './decode.ts';
import { HolePuncher } from './hole-puncher.ts';
import { Publisher } from './publisher.ts';
import { RecentChunks } from './recent-chunks.ts';
import type { Neighbours } from '../dedup/neighbours.ts';

export interface BlobFilesOptions {
  /** `memory`: nothing is kept */
  mode: DecodeTarget;
  map: ChunkMap;
  data: DataFile | undefined;
  /** look for a chunk in the data file, verifying it, before it is fetched: the map does not know */
  probe: boolean;
  /** it should be kept, and cannot be */
  refused?: boolean | undefined;
  /** every chunk starts at a block boundary */
  aligned: boolean;
  /** milliseconds until what was written is flushed and its bits are set in the file */
  publishMs: number;
  /** milliseconds until a cache that refused data is tried again */
  retryMs: number;
  /** other cache files of the node that may have its chunks */
  neighbours: Neighbours | undefined;
  logger: Logger;
}

export class BlobFiles {
  readonly mode: DecodeTarget;
  readonly map: ChunkMap;
  readonly data: DataFile | undefined;
  readonly probe: boolean;
  readonly health: CacheHealth;
  /** it cannot be kept: its file is read-only, or there can be none */
  readonly isRefused: boolean;
  readonly publisher: Publisher;
  readonly puncher: HolePuncher;
  readonly neighbours: Neighbours | undefined;
  /** chunks on their way, whoever asked for them */
  readonly pending = new Map<number, Promise<JobEnd>>();
  /** those of them that readers wait for */
  readonly awaited = new Set<number>();
  /** chunks that were decoded a moment ago and that no plain file has */
  readonly recent = new RecentChunks();
  /** chunks that were looked for in the data file */
  readonly probed = new Set<number>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: BlobFilesOptions) {
    const { mode, map, data, probe, aligned, publishMs, retryMs, logger } = options;
    this.mode = mode;
    this.map = map;
    this.data = data;
    this.probe = probe;
    this.health = new CacheHealth(data?.path ?? '', retryMs, logger);
    this.neighbours = options.neighbours;
    this.publisher = new Publisher(map, data, publishMs, logger, (chunks) => this.neighbours?.record(chunks));
    this.puncher = new HolePuncher(map, aligned);
    this.isRefused = options.refused === true || data?.writable === false;
    if (data?.writable === false)
      logger.warn(`cache file ${data.path} is read-only: its blob is served without further caching`);
  }

  /** A chunk is on its way no longer. */
  arrived(index: number): void {
    this.pending.delete(index);
    this.awaited.delete(index);
  }

  /** Do something that two users of the blob would do twice if they did it at once. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** Publish what is left and close. Nothing may be under way, nobody may read from the data file any more. */
  async close(): Promise<void> {
    const { publisher, map, data } = this;
    publisher.stop();
    await publisher.finish();
    this.neighbours?.stop();
    if (data?.whileSole(() => map.close(true)) === undefined) map.close();
    data?.close();
  }
}
