// Data files that this process has open already. A file with a pre-content mark (serve/erofs) holds whoever opens it now, us too,
// and we would wait for ourselves: a second reader of a blob shares the open file of the first. That is a fact of the process,
// not of an instance, so it is kept here for all of them. Source: DESIGN 2.1.
import { fstatSync, statSync } from 'node:fs';
import { duplicateDescriptor } from '../../native/descriptor.ts';

const known = new Map<string, number>();

/** Remember an open, writable data file; the caller keeps the descriptor open until `forgetDataFile`. */
export function knowDataFile(path: string, fd: number): void {
  known.set(path, fd);
}

export function forgetDataFile(path: string): void {
  known.delete(path);
}

/** True while the kernel reads the file by itself: nothing may be taken out of it. */
export function isKnownDataFile(path: string): boolean {
  return known.has(path);
}

/** A descriptor of the known open file at a path, to be closed by the caller; undefined when there is none. */
export function knownDataFile(path: string): number | undefined {
  const fd = known.get(path);
  if (fd === undefined) return undefined;
  const [there, ours] = [statSync(path, { throwIfNoEntry: false }), fstatSync(fd)];
  return there?.ino === ours.ino && there.dev === ours.dev ? duplicateDescriptor(fd) : undefined;
}
