// PERFORMANCE section 4: what the daemon holds, idle and after a walk over 100,000 inodes; and issue 3 section 3: a 5 GB tar
// goes through the builder in flat memory.
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { localConfig, startDaemon } from '../../test/support/daemon.ts';
import { programCommand } from '../../test/support/programs.ts';
import { residentOf, timed, type BenchContext, type Line } from '../support/context.ts';
import { buildImage } from '../support/images.ts';
import { peerDaemon } from '../support/systems.ts';
import { manyInodes } from '../support/trees.ts';

const STREAM_BYTES = 5e9;
const FILE_BYTES = 50e6;

/** Head of a tar member. Source: POSIX pax, ustar header block. */
function tarHeader(name: string, size: number): Buffer {
  const head = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number): void => {
    head.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
  };
  head.write(name, 0, 'latin1');
  octal(0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(1_600_000_000, 136, 12);
  head.fill(0x20, 148, 156);
  head.write('0', 156, 'latin1');
  head.write('ustar\0' + '00', 257, 'latin1');
  octal(
    head.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  return head;
}

/** Write a tar of `STREAM_BYTES` into a FIFO; every file differs, content repeats only within 64 MB apart. */
async function writeTar(fifo: string): Promise<void> {
  const out = createWriteStream(fifo, { highWaterMark: 1 << 22 });
  const put = async (piece: Uint8Array): Promise<void> => {
    if (!out.write(piece)) await new Promise((resolve) => out.once('drain', resolve));
  };
  const block = Buffer.alloc(1 << 20);
  let seed = 1;
  for (let at = 0; at < STREAM_BYTES / FILE_BYTES; at++) {
    await put(tarHeader(`file-${at}`, FILE_BYTES));
    for (let left = FILE_BYTES; left > 0; left -= block.length) {
      const words = new Uint32Array(block.buffer, block.byteOffset, block.length / 4);
      for (let word = 0; word < words.length; word += 2)
        words[word] = seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      await put(Buffer.from(block.subarray(0, Math.min(left, block.length))));
    }
    const padding = (512 - (FILE_BYTES % 512)) % 512;
    if (padding > 0) await put(Buffer.alloc(padding));
  }
  await put(Buffer.alloc(1024));
  await new Promise<void>((resolve) => out.end(resolve));
}

async function stream(context: BenchContext, builder: string[]): Promise<{ peak: number; seconds: number }> {
  const dir = join(context.dir, 'work', 'stream');
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const [input, output] = [join(dir, 'tar'), join(dir, 'blob')];
  spawnSync('mkfifo', [input, output]);
  const sink = spawn('sh', ['-c', 'cat "$0" > /dev/null', output]);
  const writing = writeTar(input);
  const args = ['create', '--log-level', 'warn', '--type', 'tar-rafs', '--compressor', 'zstd'];
  const run = await timed([
    ...builder,
    ...args,
    '--blob',
    output,
    '--bootstrap',
    join(dir, 'bootstrap'),
    input,
  ]);
  await writing;
  await new Promise((resolve) => (sink.exitCode === null ? sink.once('exit', resolve) : resolve(0)));
  return { peak: run.peakBytes, seconds: run.ms / 1000 };
}

/** Lines about memory. */
export async function benchMemory(context: BenchContext): Promise<Line[]> {
  const tree = manyInodes(context);
  const image = await buildImage(context, 'memory', tree, 'none');
  const cells: Record<string, Record<string, number>> = { idleR: {}, idleD: {}, walkR: {}, walkD: {} };
  const peer = peerDaemon(context);
  for (const [name, command] of [
    ['ours', undefined],
    ['Rust', peer],
  ] as const) {
    if (name === 'Rust' && peer === undefined) continue;
    context.note(`memory: ${name}`);
    const workDir = join(context.dir, 'work', `memory-${name}`);
    rmSync(workDir, { recursive: true, force: true });
    await using daemon = await startDaemon({
      workDir,
      bootstrap: image.bootstrap,
      config: localConfig(image.blobs, join(workDir, 'cache')),
      ...(command === undefined ? {} : { command }),
    });
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const idle = residentOf(daemon.pid);
    await timed(['sh', '-c', 'ls -lR . > /dev/null'], { cwd: daemon.mountpoint });
    const walked = residentOf(daemon.pid);
    for (const [cell, bytes] of Object.entries({
      idleR: idle.resident,
      idleD: idle.privateDirty,
      walkR: walked.resident,
      walkD: walked.privateDirty,
    })) {
      const line = cells[cell];
      if (line !== undefined) line[name] = bytes / 1e6;
    }
  }
  const line = (what: string, cell: string, limit: number): Line => ({
    group: 'memory of the daemon',
    what,
    unit: 'MB',
    better: 'less',
    figures: cells[cell] ?? {},
    target: { limit },
  });
  const lines = [
    line('resident, idle', 'idleR', 95),
    line('private dirty, idle', 'idleD', 35),
    line('resident, after a walk over 100,000 inodes', 'walkR', 125),
    line('private dirty, after the walk', 'walkD', 50),
  ];
  if (context.rounds > 1) {
    context.note('memory: a 5 GB tar through FIFOs');
    const ours = await stream(context, programCommand('nydus-image'));
    lines.push({
      group: 'building: peak memory',
      what: '5 GB tar from a FIFO to a FIFO, zstd',
      unit: 'MB',
      better: 'less',
      figures: { ours: ours.peak / 1e6 },
      target: { limit: 400 },
      remark: `${ours.seconds.toFixed(0)} s, ${(STREAM_BYTES / 1e6 / ours.seconds).toFixed(0)} MB/s`,
    });
  }
  return lines;
}
