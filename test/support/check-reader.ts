// A process that reads random pieces below a mount and compares them with the source tree until its input ends.
// Arguments: mount, source, seed. Prints one JSON line: what it saw.
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** What a reader saw. */
export interface ReaderReport {
  reads: number;
  /** pieces that differ from the source */
  wrong: number;
  /** of these, pieces that are zeros */
  zeros: number;
  /** errno names by how often */
  errors: Record<string, number>;
  /** longest time of one read, ms */
  longestMs: number;
}

function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
}

async function main(mount: string, source: string, seedText: string): Promise<void> {
  const files = filesBelow(source).filter((name) => statSync(join(source, name)).size > 0);
  const content = new Map(files.map((name) => [name, readFileSync(join(source, name))]));
  let state = Number(seedText) >>> 0;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const report: ReaderReport = { reads: 0, wrong: 0, zeros: 0, errors: {}, longestMs: 0 };
  let going = true;
  process.stdin.on('end', () => (going = false));
  process.stdin.resume();
  const piece = Buffer.alloc(64 * 1024);
  console.log('ready');
  while (going) {
    for (let i = 0; i < 8; i++) one();
    await new Promise((resolve) => setImmediate(resolve));
  }
  console.log(JSON.stringify(report));

  function one(): void {
    const name = files[random(files.length)] ?? '';
    const wanted = content.get(name) ?? Buffer.alloc(0);
    const offset = random(wanted.length);
    const began = performance.now();
    try {
      const fd = openSync(join(mount, name), 'r');
      try {
        const got = readSync(fd, piece, 0, 1 + random(piece.length), offset);
        const seen = piece.subarray(0, got);
        if (!seen.equals(wanted.subarray(offset, offset + got)) || got === 0) {
          report.wrong++;
          if (seen.every((byte) => byte === 0)) report.zeros++;
        }
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
      report.errors[code] = (report.errors[code] ?? 0) + 1;
    }
    report.reads++;
    report.longestMs = Math.max(report.longestMs, Math.round(performance.now() - began));
  }
}

const [mount = '', source = '', seed = '1'] = process.argv.slice(2);
await main(mount, source, seed);
