// Mutated FUSE requests, to a dispatcher that serves an image, a shared directory and pseudo directories: each gets a reply of a right
// form or none, nothing throws, nothing hangs, and what lies outside the shared directory is not reached. FUZZ_SEED repeats a run.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openBootstrap } from '../../src/rafs/open.ts';
import { COUNTER_SET_BYTES, CounterSet } from '../../src/serve/counters.ts';
import { Dispatcher, IN_FLIGHT_WORDS } from '../../src/serve/dispatcher.ts';
import { DEFERRED } from '../../src/serve/exchange.ts';
import { MessageBuffer } from '../../src/serve/message-buffer.ts';
import { BUFFER_SLACK, MAX_IO, MAX_OPCODE, Opcode } from '../../src/serve/opcodes.ts';
import { PassthroughFs, SharedDirectory } from '../../src/serve/passthrough/passthrough-fs.ts';
import { inHeader, outHeader } from '../../src/serve/protocol.ts';
import { PseudoTree } from '../../src/serve/pseudo/pseudo-tree.ts';
import { PseudoView } from '../../src/serve/pseudo/pseudo-view.ts';
import { ServedImage, type LocalSource } from '../../src/serve/served-image.ts';
import { SessionState } from '../../src/serve/session-state.ts';
import { goldenPath, requireRoot, skipUnlessGolden, tempDir, firstReason } from '../support/golden.ts';
import { fuzzRuns, fuzzSeed, mutate, Random } from './mutator.ts';

const RUNS = fuzzRuns(30_000);
const IMAGE = 1;
const DIRECTORY = 2;

interface Bench {
  dispatcher: Dispatcher;
  nodes: bigint[];
  reports: string[];
}

function bench(shared: SharedDirectory, source: LocalSource): Bench {
  const state = new SessionState();
  state.setNegotiated(45);
  const reports: string[] = [];
  const dispatcher = new Dispatcher({
    state,
    serveOpen: true,
    startedAtSec: 1,
    counters: new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES)),
    inFlight: new Uint32Array(IN_FLIGHT_WORDS),
    lookups: new Float64Array(256),
    report: (op, error) =>
      reports.push(`${op}: ${error instanceof Error ? (error.stack ?? '') : String(error)}`),
  });
  dispatcher.setImage(
    IMAGE,
    new ServedImage(source, IMAGE, 1, { enableXattr: true, mountedAtSec: 1, uid: 0, gid: 0 }),
  );
  dispatcher.setDirectory(DIRECTORY, new PassthroughFs(shared.share, DIRECTORY));
  const tree = new PseudoTree();
  tree.cover(tree.place('/image').ino, IMAGE);
  tree.cover(tree.place('/a/directory').ino, DIRECTORY);
  dispatcher.pseudo = new PseudoView(tree.snapshot());
  const root = BigInt(source.image.rootIno);
  const nodes = [1n, 2n, 3n, (BigInt(IMAGE) << 56n) | root, (BigInt(DIRECTORY) << 56n) | 1n, 9n << 56n];
  return { dispatcher, nodes, reports };
}

/** Requests that a kernel might send; names and numbers are mutated afterwards. */
function request(random: Random, nodes: readonly bigint[]): Buffer {
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
  const node = pick(nodes);
  const names = [
    'file\0',
    'sub\0',
    '.\0',
    '..\0',
    'new\0target\0',
    'a/b\0',
    'image\0',
    `${'n'.repeat(300)}\0`,
    '',
  ];
  const numbers = Buffer.alloc(8 * random.below(12));
  for (let at = 0; at + 8 <= numbers.length; at += 8)
    numbers.writeBigUInt64LE(
      pick([0n, 1n, 2n, 3n, 64n, 4096n, 1n << 20n, 1n << 40n, (1n << 63n) - 1n, node]),
      at,
    );
  const body = Buffer.concat([
    numbers,
    Buffer.from(pick(names), 'latin1'),
    Buffer.from(pick(names), 'latin1'),
  ]);
  const head = inHeader.encode({
    len: inHeader.size + body.length,
    opcode: random.below(MAX_OPCODE + 1),
    unique: 42n,
    nodeid: node,
    uid: 0,
    gid: 0,
    pid: 1,
  });
  return Buffer.concat([head, body]);
}

/** Handles are descriptors of this process, which the kernel gives back as it got them: a hostile one is not a kernel. */
const WITH_HANDLES = new Set<number>([
  Opcode.READ,
  Opcode.WRITE,
  Opcode.RELEASE,
  Opcode.RELEASEDIR,
  Opcode.FLUSH,
  Opcode.FSYNC,
  Opcode.FSYNCDIR,
  Opcode.FALLOCATE,
  Opcode.LSEEK,
  Opcode.COPY_FILE_RANGE,
  Opcode.SETATTR,
  Opcode.READDIR,
  Opcode.READDIRPLUS,
]);

test(
  'Dispatcher: mutated requests get a reply of a right form, and reach nothing outside',
  { skip: firstReason(requireRoot(), skipUnlessGolden('fuse', 'images', 'fusetree-v6')) },
  (t) => {
    const seed = fuzzSeed();
    t.diagnostic(`repeat with FUZZ_SEED=${seed} FUZZ_RUNS=${RUNS}`);
    const random = new Random(seed);
    const work = tempDir(t);
    mkdirSync(join(work, 'shared/sub'), { recursive: true });
    writeFileSync(join(work, 'shared/file'), 'content');
    writeFileSync(join(work, 'outside'), 'outside');
    const shared = SharedDirectory.open(join(work, 'shared'));
    const bootstrap = openBootstrap(join(goldenPath('fuse', 'images', 'fusetree-v6') ?? '', 'bootstrap'));
    t.after(() => {
      shared.close();
      bootstrap.close();
    });
    const { dispatcher, nodes, reports } = bench(shared, { image: bootstrap.image, read: () => -1 });
    const from = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK);
    const to = MessageBuffer.allocate(MAX_IO + BUFFER_SLACK, outHeader.size);
    let replies = 0;
    for (let run = 0; run < RUNS; run++) {
      const plain = request(random, nodes);
      const bytes = random.below(3) === 0 ? mutate(plain, random) : plain;
      if (bytes.length > from.bytes.length) continue;
      const opcode = bytes.length >= 8 ? bytes.readUInt32LE(4) : 0;
      const isDirectory = bytes.length >= 24 && bytes.readUInt8(23) === DIRECTORY;
      if (WITH_HANDLES.has(opcode) && isDirectory) {
        bytes.fill(0, inHeader.size, Math.min(bytes.length, inHeader.size + 16));
      }
      from.bytes.set(bytes);
      const length = dispatcher.dispatch(from, bytes.length, to);
      if (length === 0 || length === DEFERRED) continue;
      replies++;
      assert.ok(length >= outHeader.size && length <= to.bytes.length, `run ${run}: ${length} bytes`);
      assert.equal(to.view.getUint32(0, true), length, `run ${run}`);
      const error = to.view.getInt32(4, true);
      assert.ok(error <= 0 && error > -4096, `run ${run}: error ${error}`);
      if (
        error === 0 &&
        (opcode === Opcode.OPEN || opcode === Opcode.OPENDIR || opcode === Opcode.CREATE) &&
        isDirectory
      )
        closeHandle(to, opcode);
    }
    assert.ok(replies > RUNS / 3, `only ${replies} replies`);
    const unforeseen = reports.filter((report) => /TypeError|RangeError \[ERR|ReferenceError/.test(report));
    assert.deepEqual(unforeseen.slice(0, 3), []);
    assert.deepEqual(readdirSync(work).sort(), ['outside', 'shared']);
    assert.equal(readFileSync(join(work, 'outside'), 'utf8'), 'outside');
  },
);

function closeHandle(reply: MessageBuffer, opcode: number): void {
  const ENTRY_AND_ATTR = 128;
  const at = outHeader.size + (opcode === Opcode.CREATE ? ENTRY_AND_ATTR : 0);
  const fd = reply.view.getUint32(at, true);
  const { closeSync } = process.getBuiltinModule('node:fs');
  if (fd > 2) closeSync(fd);
}
