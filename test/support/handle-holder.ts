// A program with open files: opens what it is told, says so, and goes on with it when it gets a line. It is a process of its own: whoever
// starts a daemon must hold nothing of the mount, since exec closes descriptors and that waits for the daemon.
//   node handle-holder.ts ROOT [WRITTEN]     reads ROOT/file0, lists ROOT, writes WRITTEN
import { closeSync, openSync, readFileSync } from 'node:fs';
import { open, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** What was seen through the open handles. */
export interface HeldReport {
  /** hex: the first and the last thousand bytes of the file */
  pieces: string[];
  /** hex: all of it, through another descriptor */
  whole: string;
  size: number;
  names: string[];
}

const SIZE = 1000;
const [root = '', written = ''] = process.argv.slice(2);

const path = join(root, 'file0');
const handle = await open(path, 'r');
const other = openSync(path, 'r');
const piece = Buffer.alloc(SIZE);
await handle.read(piece, 0, SIZE, 0);
const pieces = [piece.toString('hex')];
const dir = await opendir(root, { bufferSize: 16 });
const names: string[] = [];
for (let i = 0; i < 20; i++) {
  const entry = await dir.read();
  if (entry !== null) names.push(entry.name);
}
const writer = written === '' ? undefined : await open(written, 'w+');
await writer?.write('before ');
process.stdout.write('ready\n');
const input = createInterface(process.stdin)[Symbol.asyncIterator]();
await input.next();

const { size } = await handle.stat();
await handle.read(piece, 0, SIZE, size - SIZE);
pieces.push(piece.toString('hex'));
await handle.sync();
await handle.datasync();
await handle.close();
const whole = readFileSync(other).toString('hex');
closeSync(other);
for (let entry = await dir.read(); entry !== null; entry = await dir.read()) names.push(entry.name);
await dir.close();
await writer?.write('after');
await writer?.sync();
await writer?.close();
const report: HeldReport = { pieces, whole, size, names };
process.stdout.write(`${JSON.stringify(report)}\n`);
process.stdin.destroy();
