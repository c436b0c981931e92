// One client of the API socket for the benchmark: asks the same question over one connection, writes what each answer took. Times are
// taken around a blocking write and read: no event loop of ours is in them. Arguments: socket, number of questions.
import { closeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { readSync, writeSync } from 'node:fs';
import { setNonBlocking } from '../../src/native/descriptor.ts';
import { connectUnix } from '../../src/native/unix-socket.ts';

const [path = '', count = '1000'] = process.argv.slice(2);
const REQUEST = Buffer.from('GET /api/v1/daemon HTTP/1.1\r\nHost: x\r\n\r\n');
const HIGHEST = -20;
/** Between two questions: as an operator's tools ask, not as fast as can be. */
const PAUSE_MS = 2;

try {
  // what the client waits for the processor is not the daemon's
  setPriority(HIGHEST);
} catch {
  // not permitted: its share stays in the figures
}
const socket = connectUnix(path);
setNonBlocking(socket, false);
const answer = Buffer.alloc(1 << 20);
const pause = new Int32Array(new SharedArrayBuffer(4));
const times: number[] = [];
for (let n = 0; n < Number(count); n++) {
  const began = performance.now();
  writeSync(socket, REQUEST);
  let got = 0;
  let wanted = -1;
  while (wanted < 0 || got < wanted) {
    const size = readSync(socket, answer, got, answer.length - got, null);
    if (size === 0) throw new Error('the daemon hung up');
    got += size;
    if (wanted >= 0) continue;
    const text = answer.subarray(0, got).toString('latin1');
    const end = text.indexOf('\r\n\r\n');
    const length = /content-length: (\d+)/i.exec(text)?.[1];
    if (end >= 0) wanted = end + 4 + Number(length ?? 0);
  }
  times.push(performance.now() - began);
  Atomics.wait(pause, 0, 0, PAUSE_MS);
}
closeSync(socket);
process.stdout.write(JSON.stringify(times));
