// Readers that give up while the backend stalls, through the real kernel: they end at once, the daemon keeps nothing of them,
// and the chunk can be read afterwards. The kernel sends INTERRUPT only for what it asks in the name of one reader: a page that is
// read again after its read-ahead failed. Read-ahead itself has no owner. Source: fs/fuse/file.c, fuse_read_folio, fuse_readahead.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fop } from '../../src/serve/counters.ts';
import { BlobServer } from '../support/blob-server.ts';
import { apiRequest, startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requirePeer, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';

const skip = firstReason(requireFuse(), requirePeer('python3'));
const CHUNK = 0x1_0000;

interface Stalled {
  daemon: Daemon;
  data: Buffer;
  file: string;
  /** requests that the server holds back */
  held: () => ServerResponse[];
  /** answer everything from now on, and what was held back */
  release: () => void;
}

/**
 * A daemon whose backend takes every request for data and answers none, until it is released.
 *
 * @param failures requests for data that are refused first: each makes one read fail
 */
async function stalled(t: TestContext, failures: number, args: string[] = []): Promise<Stalled> {
  const dir = tempDir(t);
  for (const name of ['source', 'blobs', 'cache']) mkdirSync(join(dir, name));
  const data = randomBytes(4 * CHUNK);
  writeFileSync(join(dir, 'source/file'), data);
  const bootstrap = join(dir, 'bootstrap');
  const build = ['create', '--compressor', 'none', '--chunk-size', String(CHUNK), '--bootstrap', bootstrap];
  nydusImage([...build, '--blob-dir', join(dir, 'blobs'), join(dir, 'source')]);
  const blobId = readdirSync(join(dir, 'blobs'))[0] ?? '';
  const blob = readFileSync(join(dir, 'blobs', blobId));
  const server = await BlobServer.start(t, { find: ({ url }) => (url === `/${blobId}` ? blob : undefined) });
  const held: { response: ServerResponse; answer: () => void }[] = [];
  // sizes and tables lie behind the chunks: the daemon starts with them
  server.always = (request, response) => {
    const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? Infinity);
    if (start >= data.length) return server.serve(request, response);
    if (failures-- > 0) return void response.writeHead(404).end();
    held.push({ response, answer: () => server.serve(request, response) });
  };
  const daemon = await startDaemon({
    workDir: join(dir, 'run'),
    bootstrap,
    args,
    config: {
      version: 2,
      backend: { type: 'http-proxy', 'http-proxy': { addr: `http://${server.host}`, timeout: 3600 } },
      cache: { type: 'blobcache', filecache: { work_dir: join(dir, 'cache') } },
      rafs: { mode: 'direct' },
    },
  });
  t.after(() => daemon[Symbol.asyncDispose]());
  return {
    daemon,
    data,
    file: join(daemon.mountpoint, 'file'),
    held: () => held.map(({ response }) => response),
    release: () => {
      server.always = undefined;
      for (const { answer } of held.splice(0)) answer();
    },
  };
}

interface InFlight {
  opcode: number;
  unique: number;
}

async function inFlight(daemon: Daemon): Promise<InFlight[]> {
  const { status, body } = await apiRequest(daemon.apisock, 'GET', '/api/v1/metrics/inflight');
  return status === 204 ? [] : (JSON.parse(body) as InFlight[]);
}

async function uniques(daemon: Daemon): Promise<number[]> {
  return (await inFlight(daemon)).map(({ unique }) => unique);
}

async function opcodes(daemon: Daemon): Promise<number[]> {
  return (await inFlight(daemon)).map(({ opcode }) => opcode);
}

const READ = 15;

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let round = 0; round < 1000; round++) {
    if (await holds()) return;
    await sleep(10);
  }
  assert.fail('it did not come to pass in 10 s');
}

async function untilInFlight(daemon: Daemon, count: number): Promise<void> {
  await until(async () => (await inFlight(daemon)).length === count);
}

async function untilHeld(held: () => unknown[]): Promise<void> {
  await until(() => held().length > 0);
}

/** Reads that failed. */
async function readErrors(daemon: Daemon): Promise<number | undefined> {
  return ((await daemon.get('/api/v1/metrics')) as { fop_errors: number[] }).fop_errors[Fop.read];
}

/** What ended a process: status or signal. Fails when it does not end. */
async function endOf(t: TestContext, child: ChildProcess): Promise<number | string | null> {
  t.after(() => child.kill('SIGKILL'));
  const [status, signal] = (await once(child, 'exit', { signal: AbortSignal.timeout(20_000) })) as [
    number | null,
    string | null,
  ];
  return status ?? signal;
}

for (const signal of ['SIGINT', 'SIGKILL'] as const) {
  test(
    `nydusd: ${signal} ends a reader whose backend stalls: INTERRUPT frees its request, and the chunk is readable later`,
    {
      skip,
    },
    async (t) => {
      const { daemon, data, file, held, release } = await stalled(t, 1, ['--fuse-threads', '1']);
      const reader = spawn('cat', [file], { stdio: 'ignore' });
      const ended = endOf(t, reader);
      await untilHeld(held);
      assert.deepEqual(await opcodes(daemon), [READ]);
      const before = (await readErrors(daemon)) ?? 0;
      reader.kill(signal);
      assert.equal(await ended, signal);
      // the server has answered nothing meanwhile
      await untilInFlight(daemon, 0);
      assert.equal(held().length, 1);
      assert.equal(await readErrors(daemon), before + 1);
      release();
      assert.ok((await readFile(file)).equals(data));
      assert.equal(daemon.log.match(/ERROR .*read of inode/g)?.length, 1, daemon.log);
      assert.equal(await daemon.stop(), 0, daemon.log);
    },
  );
}

/** Told to give up by SIGUSR1; reads the same place again when it is told to by a line on stdin. */
const PATIENT_READER = `
import os, signal, sys
class GivenUp(Exception): pass
def give_up(*_): raise GivenUp
signal.signal(signal.SIGUSR1, give_up)
fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    os.pread(fd, 16, 0)
    print('read', flush=True)
except GivenUp:
    print('given up', flush=True)
sys.stdin.readline()
print(os.pread(fd, 16, 0).hex(), flush=True)
`;

test(
  'nydusd: a reader that catches the signal goes on and reads the same place later; who waits for the same chunk is not disturbed',
  {
    skip,
  },
  async (t) => {
    const { daemon, data, file, held, release } = await stalled(t, 1);
    const reader = spawn('python3', ['-c', PATIENT_READER, file], { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = endOf(t, reader);
    let said = '';
    reader.stdout.on('data', (piece: Buffer) => (said += piece.toString()));
    await untilHeld(held);
    assert.deepEqual(await opcodes(daemon), [READ]);
    const [first = 0] = await uniques(daemon);
    // the second page of the same chunk, and what read-ahead adds to it
    const other = spawn('dd', [`if=${file}`, 'bs=4096', 'skip=1', 'count=1'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const otherEnded = endOf(t, other);
    const got: Buffer[] = [];
    other.stdout.on('data', (piece: Buffer) => got.push(piece));
    await until(async () => (await uniques(daemon)).length > 1);
    reader.kill('SIGUSR1');
    await until(async () => !(await uniques(daemon)).includes(first));
    await until(() => said !== '');
    assert.equal(said, 'given up\n');
    assert.equal(other.exitCode, null);
    release();
    assert.equal(await otherEnded, 0);
    assert.ok(Buffer.concat(got).equals(data.subarray(4096, 8192)));
    reader.stdin.end('again\n');
    assert.equal(await ended, 0);
    assert.equal(said, `given up\n${data.toString('hex', 0, 16)}\n`);
    await untilInFlight(daemon, 0);
  },
);

test(
  'nydusd: read-ahead that nobody waits for any more is answered like any other, and kept',
  { skip },
  async (t) => {
    const { daemon, data, file, held, release } = await stalled(t, 0);
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const reader = spawn('cat', [file], { stdio: 'ignore' });
      const ended = endOf(t, reader);
      await untilHeld(held);
      reader.kill(signal);
      assert.equal(await ended, signal);
    }
    assert.deepEqual(new Set(await opcodes(daemon)), new Set([READ]));
    release();
    await untilInFlight(daemon, 0);
    assert.ok((await readFile(file)).equals(data));
    assert.doesNotMatch(daemon.log, /ERROR/);
  },
);

test(
  'nydusd: SIGTERM while readers wait for a backend that stalls: they get an error, it ends with 0',
  {
    skip,
  },
  async (t) => {
    const { daemon, file, held } = await stalled(t, 0);
    const reader = spawn('cat', [file], { stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = endOf(t, reader);
    let said = '';
    reader.stderr.on('data', (piece: Buffer) => (said += piece.toString()));
    await untilHeld(held);
    assert.equal(await daemon.stop('SIGTERM', 20_000), 0, daemon.log);
    assert.equal(await ended, 1);
    assert.match(
      said,
      /: (Interrupted system call|Software caused connection abort|Transport endpoint is not connected|Input\/output error)$/m,
    );
  },
);
