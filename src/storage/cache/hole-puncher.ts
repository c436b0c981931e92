// Takes cold chunks out of a data file that is being served. The order makes it safe: bits are cleared, then the
// epoch changes, then the blocks go. Readers in other threads note the epoch before they look at a bit and read again when it
// changed meanwhile (LocalReader); fetches start on this thread, so none can bring a chunk back between the steps. Other
// processes do not use the file: the caller holds its lock alone. The disk may see the holes before the cleared bits; when the machine
// goes down in between, the note in the map has every chunk verified before its first use.
import { alignUp } from '../../base/bytes.ts';
import { punchHole } from '../../native/file-io.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { ChunkTable } from './chunk-table.ts';

const BLOCK = 4096;

interface Hole {
  start: number;
  end: number;
}

export class HolePuncher {
  readonly #map: ChunkMap;
  readonly #aligned: boolean;
  /** chunk to look at next: all get their turn before one is looked at again */
  #hand = 0;
  #unsupported = false;

  /** @param aligned every chunk starts at a block boundary, so that the rest of its last block is padding */
  constructor(map: ChunkMap, aligned: boolean) {
    this.#map = map;
    this.#aligned = aligned;
  }

  /**
   * Punch out chunks until `bytes` are free: those that nobody has read since the last look, and where these are not enough,
   * others in turn. Synchronous.
   *
   * @param isMoving chunks that are on their way
   * @param taken    told which go, before they do
   * @returns bytes given back
   */
  punch(
    table: ChunkTable,
    fd: number,
    bytes: number,
    isMoving: (index: number) => boolean,
    taken?: (chunks: readonly number[]) => void,
  ): number {
    if (this.#unsupported) return 0;
    const cold = this.#takeCold(table, bytes, isMoving);
    const holes = this.#holes(table, cold);
    if (holes.length === 0) return 0;
    this.#map.seal();
    taken?.(cold);
    for (const index of cold) this.#map.forget(index);
    Atomics.add(this.#map.epoch, 0, 1);
    let freed = 0;
    for (const { start, end } of holes) {
      if (punchHole(fd, start, end - start) === 0) freed += end - start;
      else this.#unsupported = true;
    }
    return freed;
  }

  #takeCold(table: ChunkTable, bytes: number, isMoving: (index: number) => boolean): number[] {
    const cold: number[] = [];
    const taken = new Set<number>();
    let found = 0;
    // twice around: when everything was read lately, the limit of the disk still holds
    for (let looked = 0; looked < 2 * table.count && found < bytes; looked++) {
      const index = this.#hand;
      this.#hand = (this.#hand + 1) % table.count;
      if (!this.#map.isReady(index) || this.#map.takeTouch(index) || isMoving(index)) continue;
      if (taken.has(index)) continue;
      taken.add(index);
      cold.push(index);
      found += table.plainSize(index);
    }
    return cold.sort((a, b) => a - b);
  }

  /** Whole blocks that have nothing but these chunks. */
  #holes(table: ChunkTable, cold: readonly number[]): Hole[] {
    const holes: Hole[] = [];
    for (const index of cold) {
      const start = table.plainOffset(index);
      const end = start + table.plainSize(index);
      const last = holes.at(-1);
      if (last !== undefined && last.end <= start && start - last.end < (this.#aligned ? BLOCK : 1))
        last.end = end;
      else holes.push({ start, end });
    }
    return holes
      .map(({ start, end }) => ({
        start: alignUp(start, BLOCK),
        end: this.#aligned ? alignUp(end, BLOCK) : end - (end % BLOCK),
      }))
      .filter(({ start, end }) => end > start);
  }
}
