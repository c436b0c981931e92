// Hostile bytes on the API socket of a running daemon: whatever comes, it answers in its own words or hangs up, goes on serving
// both the API and the mount, and leaks no connection. FUZZ_SEED repeats a run.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { operations } from '../../src/daemon/openapi.ts';
import { apiRequest, localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { fuzzRuns, fuzzSeed, Random } from './mutator.ts';

const ROUNDS = fuzzRuns(400);
const ANSWER_MS = 2000;

const BODY = JSON.stringify({
  fs_type: 'rafs',
  source: '/b/image.boot',
  config: '{"device":{}}',
  prefetch_files: ['/'],
});
const SAMPLES = [
  'GET /api/v1/daemon HTTP/1.1\r\nHost: localhost\r\n\r\n',
  'GET /api/v1/metrics/files?latest=true&id=%2F HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n',
  'PUT /api/v1/config?id=/x HTTP/1.1\r\nHost: l\r\nContent-Length: 24\r\n\r\n{"registry_auth":"eDp5"}',
  `POST /api/v1/mount?mountpoint=/x HTTP/1.1\r\nHost: l\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
  `PUT /api/v1/mount HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${BODY.length.toString(16)}\r\n${BODY}\r\n0\r\n\r\n`,
  'DELETE /api/v1/mount?mountpoint=/nosuch HTTP/1.1\r\nHost: localhost\r\n\r\n',
  // every other endpoint, but the one that ends the daemon
  ...Object.keys(operations)
    .filter((operation) => operation !== 'PUT /api/v1/daemon/exit')
    .map((operation) => `${operation}?id=/&mountpoint=/x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}`),
];

function mutate(sample: string, random: Random): Buffer {
  let bytes = Buffer.from(sample, 'latin1');
  const at = (): number => random.below(bytes.length);
  for (let change = 1 + random.below(6); change > 0 && bytes.length > 1; change--) {
    switch (random.below(5)) {
      case 0:
        bytes[at()] = random.below(256);
        break;
      case 1:
        bytes = bytes.subarray(0, Math.max(1, at()));
        break;
      case 2: {
        const place = at();
        const piece = Buffer.alloc(random.below(3000), random.below(256));
        bytes = Buffer.concat([bytes.subarray(0, place), piece, bytes.subarray(place)]);
        break;
      }
      case 3: {
        const place = at();
        bytes = Buffer.concat([
          bytes.subarray(0, place),
          bytes.subarray(Math.min(bytes.length, place + 1 + random.below(20))),
        ]);
        break;
      }
      default: {
        const [from, to] = [at(), at()];
        bytes = Buffer.concat([bytes, bytes.subarray(Math.min(from, to), Math.max(from, to))]);
      }
    }
  }
  return bytes;
}

/** Send bytes; resolves with what came back until it hung up, or was silent for a moment: it waits for the rest. */
function send(path: string, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(path);
    const end = (): void => {
      socket.destroy();
      resolve(answer);
    };
    let silence = setTimeout(end, 30);
    socket.on('data', (piece) => {
      answer += piece.toString('latin1');
      clearTimeout(silence);
      silence = setTimeout(end, 5);
    });
    socket.on('close', () => {
      clearTimeout(silence);
      resolve(answer);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET') reject(error);
    });
    socket.write(bytes);
  });
}

/** What a descriptor of a process is; empty when it is closed meanwhile. */
function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return '';
  }
}

test(
  'nydusd: hostile bytes on the API socket get its own errors, and nothing stops',
  { skip: firstReason(requireFuse(), requireRoot()) },
  async (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`repeat with FUZZ_SEED=${seed} FUZZ_RUNS=${ROUNDS}`);
    const random = new Random(seed);
    const work = tempDir(t);
    for (const dir of ['tree', 'blobs']) mkdirSync(join(work, dir));
    writeFileSync(join(work, 'tree/file'), 'content');
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: work });
    await using daemon = await startDaemon({
      workDir: join(work, 'd'),
      bootstrap: join(work, 'boot'),
      config: localConfig(join(work, 'blobs'), join(work, 'cache')),
    });
    const sockets = (): number =>
      readdirSync(`/proc/${daemon.pid}/fd`).filter((fd) => linkOf(daemon.pid, fd).startsWith('socket:'))
        .length;
    const before = sockets();
    for (let round = 0; round < ROUNDS; round++) {
      const sample = SAMPLES[random.below(SAMPLES.length)] ?? '';
      const bytes = mutate(sample, random);
      const answer = await send(daemon.apisock, bytes);
      if (answer !== '')
        assert.match(answer, /^HTTP\/1\.1 (100 Continue\r\n\r\nHTTP\/1\.1 )?[245]\d\d/, `round ${round}`);
      if (round % 50 === 0) {
        const { status } = await apiRequest(daemon.apisock, 'GET', '/api/v1/daemon', undefined, ANSWER_MS);
        assert.equal(status, 200, `round ${round} of seed ${seed}`);
      }
    }
    assert.equal(readFileSync(join(daemon.mountpoint, 'file'), 'utf8'), 'content');
    for (let wait = 0; sockets() > before + 1 && wait < 100; wait++)
      await new Promise((r) => setTimeout(r, 20));
    assert.ok(sockets() <= before + 1, `connections stay open: ${before} sockets before, ${sockets()} after`);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.doesNotMatch(daemon.log, /nydusd failed|\bat \S+:\d+:\d+/);
  },
);

/** Resident bytes of a process. */
function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

test(
  'nydusd: a client that asks without end and reads nothing costs neither memory nor the turn of others',
  { skip: firstReason(requireFuse(), requireRoot()) },
  async (t) => {
    await using daemon = await startDaemon({ workDir: join(tempDir(t), 'd') });
    const greedy = connect(daemon.apisock);
    t.after(() => greedy.destroy());
    greedy.pause();
    greedy.on('error', () => {});
    const requests = Buffer.from('GET /metrics HTTP/1.1\r\n\r\n'.repeat(2000));
    const before = residentBytes(daemon.pid);
    // 20,000 requests: 140 MB more, when they are all taken
    for (let n = 0; n < 10; n++) greedy.write(requests);
    for (let n = 0; n < 20; n++) {
      const { status } = await apiRequest(daemon.apisock, 'GET', '/api/v1/daemon', undefined, ANSWER_MS);
      assert.equal(status, 200);
    }
    const grown = residentBytes(daemon.pid) - before;
    assert.ok(grown < 70 << 20, `${grown} bytes more`);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);
