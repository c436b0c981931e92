// Validates a whole image and collects every problem, where all other readers stop at the first.
// Source of the rules: rafs-metadata.md 3.9, 3.13, 4.14, 4.19, 5.2.
import { FormatError, NydusError } from '../base/errors.ts';
import type { RafsImage } from '../format/image.ts';
import { Rafs5Image } from '../format/rafs5/reader.ts';
import { Rafs6Image } from '../format/rafs6/reader.ts';
import { checkTree5 } from './check-rafs5.ts';
import { checkTree6 } from './check-rafs6.ts';

/** Problems collected before a check gives up: enough to see what is wrong, bounded for hostile images. */
const DEFAULT_LIMIT = 1000;

/** One thing that is wrong. */
export interface Problem {
  /** path of the entry, or the table, that has it */
  place: string;
  problem: string;
}

/** What a check found. */
export interface CheckReport {
  problems: Problem[];
  /** true when the check gave up because of too many problems */
  truncated: boolean;
  /** tree entries, the root included */
  entries: number;
  /** distinct inodes */
  inodes: number;
  /** references to chunks, counted once per inode */
  chunks: number;
  /** xattrs, counted once per inode */
  xattrs: number;
}

/** Stops a check that has found enough. */
class TooManyProblems extends Error {}

/** Where the checks of both versions put what they find. */
export class Findings {
  readonly report: CheckReport = {
    problems: [],
    truncated: false,
    entries: 0,
    inodes: 0,
    chunks: 0,
    xattrs: 0,
  };
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Note a problem; ends the check when there are too many. */
  add(place: string, problem: string): void {
    this.report.problems.push({ place, problem });
    if (this.report.problems.length >= this.#limit) throw new TooManyProblems();
  }

  /** Run part of a check; a FormatError it throws is a problem of `place`. Returns undefined then. */
  try<T>(place: string, part: () => T): T | undefined {
    try {
      return part();
    } catch (error) {
      if (!(error instanceof NydusError)) throw error;
      this.add(place, error.message);
      return undefined;
    }
  }
}

/**
 * Check all that can be known without the data blobs: tree, parents, names, links, chunks, tables, v5 digests.
 *
 * @param options.limit problems after which the check gives up
 */
export function checkImage(image: RafsImage, options: { limit?: number } = {}): CheckReport {
  const findings = new Findings(options.limit ?? DEFAULT_LIMIT);
  try {
    if (image instanceof Rafs5Image) checkTree5(image, findings);
    else if (image instanceof Rafs6Image) checkTree6(image, findings);
    else throw new FormatError({ struct: 'image' }, `no check for version ${image.super.version}`);
  } catch (error) {
    if (!(error instanceof TooManyProblems)) throw error;
    findings.report.truncated = true;
  }
  return findings.report;
}

/**
 * Check an image and fail on the first problem.
 *
 * @throws FormatError naming the first problem and how many more there are
 */
export function requireValid(image: RafsImage): CheckReport {
  const report = checkImage(image);
  const [first] = report.problems;
  if (first === undefined) return report;
  const more = report.problems.length - 1;
  const rest = more === 0 ? '' : ` (and ${more}${report.truncated ? ' or more' : ''} other problems)`;
  throw new FormatError({ struct: first.place }, `${first.problem}${rest}`);
}
