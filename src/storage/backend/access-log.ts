// Accesses of one blob, recorded in its first seconds and replayed into the page cache on the next start.
// File `{blob path}.access`: records of u64 offset, u32 length, u32 zero. Source: blob-and-cache.md 21.6.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { struct, u32, u64n } from '../../format/struct.ts';
import { viewOf } from '../../base/bytes.ts';
import { willNeed } from '../../native/file-io.ts';

/** One range that was read. */
export const accessRecord = struct('accessRecord', {
  size: 16,
  source: 'upstream storage/src/backend/localfs.rs of 2021, access log of blob files',
  fields: {
    offset: u64n('first byte read, from the start of the blob'),
    length: u32('bytes read'),
    reserved: u32('zero'),
  },
});

/** More records than this are neither written nor replayed. */
export const MAX_ACCESS_RECORDS = 2048;
/** Longest recording: timers end at 2^31 milliseconds. */
const MAX_RECORD_SECONDS = 86_400;

export interface Access {
  offset: number;
  length: number;
}

/** Records of a file; what is no whole record, past the limit or outside the blob is left out. */
export function readAccessLog(path: string, blobSize: number): Access[] {
  const bytes = readFileSync(path);
  const view = viewOf(bytes);
  const count = Math.min(MAX_ACCESS_RECORDS, Math.floor(bytes.length / accessRecord.size));
  const out: Access[] = [];
  for (let i = 0; i < count; i++) {
    // the high half decides first: a damaged offset must not throw
    if (view.getUint32(i * accessRecord.size + 4, true) > 0xff) continue;
    const { offset, length } = accessRecord.read(view, i * accessRecord.size);
    if (length > 0 && offset + length <= blobSize) out.push({ offset, length });
  }
  return out;
}

/** Ask the kernel for every recorded range. Returns at once; the kernel reads in the background. */
export function replay(fd: number, accesses: readonly Access[]): void {
  for (const { offset, length } of accesses) willNeed(fd, offset, length);
}

/** Collects accesses and writes them once when the time is over, or at `stop`. */
export class AccessRecorder {
  readonly #path: string;
  readonly #logger: Logger;
  readonly #accesses: Access[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** @param seconds how long accesses are recorded */
  constructor(path: string, seconds: number, logger: Logger) {
    this.#path = path;
    this.#logger = logger;
    this.#timer = setTimeout(() => this.stop(), Math.min(seconds, MAX_RECORD_SECONDS) * 1000);
    this.#timer.unref();
  }

  add(offset: number, length: number): void {
    if (this.#timer === undefined || length <= 0) return;
    const last = this.#accesses.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else if (this.#accesses.length < MAX_ACCESS_RECORDS) this.#accesses.push({ offset, length });
  }

  /** Write the file, through a temporary name: a killed daemon leaves none that is cut short. */
  stop(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#accesses.length === 0) return;
    const draft = `${this.#path}.${process.pid}.tmp`;
    try {
      writeFileSync(draft, Buffer.concat(this.#accesses.map((access) => accessRecord.encode(access))));
      renameSync(draft, this.#path);
    } catch (error) {
      this.#logger.warn(`cannot record accesses in ${this.#path}: ${messageOf(error)}`);
    }
  }
}
