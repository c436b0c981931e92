// A reader for the benchmark of takeovers: reads past the page cache, so that every read asks the daemon. Each line on its input is answered with
// what was seen since the last one. Argument: a file.
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** What was seen. */
export interface PauseReport {
  reads: number;
  errors: number;
  /** longest time of one read, ms */
  longestMs: number;
}

const PIECE = 4096;
const fd = openSync(process.argv[2] ?? '', constants.O_RDONLY | constants.O_DIRECT);
const pieces = Math.floor(fstatSync(fd).size / PIECE);
const piece = Buffer.alloc(PIECE);
let report: PauseReport = { reads: 0, errors: 0, longestMs: 0 };
let going = true;
createInterface(process.stdin)
  .on('line', () => {
    process.stdout.write(`${JSON.stringify(report)}\n`);
    report = { reads: 0, errors: 0, longestMs: 0 };
  })
  .on('close', () => (going = false));

process.stdout.write('ready\n');
for (let at = 0; going; at = (at + 17) % pieces) {
  const began = performance.now();
  try {
    readSync(fd, piece, 0, PIECE, at * PIECE);
  } catch {
    report.errors++;
  }
  report.reads++;
  report.longestMs = Math.max(report.longestMs, performance.now() - began);
  if (report.reads % 8 === 0) await new Promise((resolve) => void setImmediate(resolve));
}
closeSync(fd);
