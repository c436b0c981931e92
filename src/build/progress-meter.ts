// Progress of a build in files and bytes, reported at a bounded rate.
import type { BuildProgress } from './options.ts';

/** Smallest time between two progress calls while data is stored. */
const PROGRESS_MS = 50;

/** Counts what is done; calls the progress function at most every PROGRESS_MS, and at each new phase. */
export class ProgressMeter {
  readonly #report: (event: BuildProgress) => void;
  #last = 0;
  /** the source itself reports how far it is */
  sourceReports = false;
  files = 0;
  bytes = 0;
  totalBytes = 0;

  constructor(report: (event: BuildProgress) => void) {
    this.#report = report;
  }

  add(files: number, bytes: number): void {
    this.files += files;
    this.bytes += bytes;
    const now = performance.now();
    if (this.sourceReports || now - this.#last < PROGRESS_MS) return;
    this.#last = now;
    this.phase('data');
  }

  phase(phase: BuildProgress['phase']): void {
    const { files, bytes, totalBytes } = this;
    this.#report({ phase, files, totalFiles: 0, bytes, totalBytes });
  }
}
