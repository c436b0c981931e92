// The dispatcher over a tiny image in memory: messages are bytes with their field names beside them.
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test } from 'node:test';
import { FormatError } from '../base/errors.ts';
import { S_IFDIR, S_IFREG } from '../format/flags.ts';
import type { InodeAttr, RafsImage } from '../format/image.ts';
import { CounterSet, type Counters, COUNTER_SET_BYTES, emptyStats, Fop } from './counters.ts';
import { Dispatcher, IN_FLIGHT_WORDS } from './dispatcher.ts';
import { DEFERRED } from './exchange.ts';
import { MessageBuffer } from './message-buffer.ts';
import { MAX_OPCODE, Opcode, opcodeName } from './opcodes.ts';
import { OP_BY_NUMBER, OPS } from './ops.ts';
import { inHeader, outHeader } from './protocol.ts';
import { ServedImage, type LocalSource } from './served-image.ts';
import { SessionState } from './session-state.ts';

const { EINVAL, EIO, ENOENT, ENOSYS, ENOTDIR, EROFS, ENAMETOOLONG, ENOTTY, EACCES, EPROTO } = constants.errno;

/** Directory 16 with the file `f` (17, 5000 bytes, mode 0640, uid 7, gid 8, 1950). Inode 17 holds a missing chunk from 4096 on. */
const image = {
  super: { hasXattr: false, explicitUidGid: true, inodesCount: 2 },
  rootIno: 16,
  lookup(dir: number, name: Uint8Array): number {
    if (dir !== 16) throw new FormatError({ struct: 'inode' }, 'is no directory');
    return Buffer.from(name).toString() === 'f' ? 17 : 0;
  },
  attr(ino: number, out: InodeAttr): void {
    if (ino !== 16 && ino !== 17) throw new FormatError({ struct: 'inode' }, `${ino} is no inode`);
    const file = ino === 17;
    Object.assign(out, {
      ino,
      nlink: file ? 1 : 2,
      uid: 7,
      gid: 8,
      size: file ? 5000 : 32,
      blocks: file ? 10 : 1,
      rdev: 9,
    });
    Object.assign(out, {
      mode: file ? S_IFREG | 0o640 : S_IFDIR | 0o700,
      mtime: file ? -631152000 : 0,
      mtimeNsec: 5,
    });
  },
  readdir(
    _dir: number,
    cookie: number,
    visit: (i: number, n: Uint8Array, t: number, c: number) => boolean,
  ): void {
    const entries: [number, string, number][] = [
      [16, '.', 2],
      [16, '..', 2],
      [17, 'f', 1],
    ];
    for (let at = cookie; at < entries.length; at++) {
      const [ino, name, type] = entries[at] ?? [0, '', 0];
      if (!visit(ino, Buffer.from(name), type, at + 1)) return;
    }
  },
} as unknown as RafsImage;

const source: LocalSource = {
  image,
  read: (_ino, offset, size, target, at) => {
    if (offset >= 4096) return -1;
    target.fill(0x61, at, at + Math.min(size, 5000 - offset));
    return Math.min(size, 5000 - offset);
  },
};

interface Bench {
  dispatcher: Dispatcher;
  counters: Counters;
  lookups: Float64Array;
  reports: unknown[];
  send(bytes: Buffer): { length: number; reply: Buffer };
}

function bench(serveOpen = false, negotiated = 45): Bench {
  const state = new SessionState();
  if (negotiated > 0) state.setNegotiated(negotiated);
  const set = new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES));
  const counters = set.at(1);
  const lookups = new Float64Array(256);
  const reports: unknown[] = [];
  const dispatcher = new Dispatcher({
    state,
    serveOpen,
    startedAtSec: 1000,
    counters: set,
    inFlight: new Uint32Array(IN_FLIGHT_WORDS),
    lookups,
    report: (op, error) => reports.push([op, error]),
  });
  dispatcher.setImage(
    1,
    new ServedImage(source, 1, 3, { enableXattr: false, mountedAtSec: 2000, uid: 0, gid: 0 }),
  );
  dispatcher.setRoot(1);
  const request = new MessageBuffer(new Uint8Array(8192));
  const reply = new MessageBuffer(new Uint8Array(8192));
  const send = (bytes: Buffer): { length: number; reply: Buffer } => {
    request.bytes.fill(0xee);
    request.bytes.set(bytes);
    reply.bytes.fill(0xdd);
    const length = dispatcher.dispatch(request, bytes.length, reply);
    return { length, reply: Buffer.from(reply.bytes.subarray(0, Math.max(0, length))) };
  };
  return { dispatcher, counters, lookups, reports, send };
}

function message(opcode: number, nodeid: bigint, body: Buffer | string = '', uid = 0, gid = 0): Buffer {
  const payload = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  const head = inHeader.encode({
    len: inHeader.size + payload.length,
    opcode,
    unique: 0x42n,
    nodeid,
    uid,
    gid,
  });
  return Buffer.concat([head, payload]);
}

function u64s(...values: (number | bigint)[]): Buffer {
  const out = Buffer.alloc(values.length * 8);
  values.forEach((value, index) => out.writeBigUInt64LE(BigInt(value), index * 8));
  return out;
}

/** fh, offset, size and flags, lock owner, flags */
function readBody(offset: number | bigint, size: number): Buffer {
  return u64s(0, offset, size, 0, 0);
}

const FILE = (1n << 56n) | 17n;

test('Dispatcher: LOOKUP writes entry and attributes, byte by byte', () => {
  const { send, lookups } = bench();
  const { length, reply } = send(message(Opcode.LOOKUP, 1n, 'f\0'));
  assert.equal(length, 144);
  const hex = (...parts: string[]): string => parts.join('').replaceAll(' ', '');
  assert.equal(
    reply.toString('hex'),
    hex(
      '90000000', // len 144
      '00000000', // error
      '4200000000000000', // unique
      '1100000000000001', // nodeid 1 << 56 | 17
      '0300000000000000', // generation
      '0000000001000000', // entry_valid 2^32
      '0000000001000000', // attr_valid 2^32
      '00000000 00000000', // nanoseconds of both
      '1100000000000001', // ino
      '8813000000000000', // size 5000
      '0a00000000000000', // blocks 10
      '0000000000000000', // atime
      '806261daffffffff', // mtime -631152000
      '0000000000000000', // ctime
      '00000000 05000000 00000000', // nanoseconds
      'a0810000', // mode 0100640
      '01000000', // nlink
      '07000000 08000000', // uid, gid
      '00000000', // rdev: no device
      '00100000', // blksize
      '00000000', // flags
    ),
  );
  assert.equal(lookups[1], 1);
});

test('Dispatcher: inodes without a time show the mount, the root has mode 0755', () => {
  const { reply } = bench().send(message(Opcode.GETATTR, 1n, u64s(0, 0)));
  // attr_out 16, then ino 8, size 8, blocks 8, three times
  assert.deepEqual(
    [56, 64, 72].map((at) => reply.readBigUInt64LE(at)),
    [2000n, 2000n, 2000n],
  );
  assert.deepEqual(
    [80, 84, 88].map((at) => reply.readUInt32LE(at)),
    [0, 0, 0],
  );
  assert.equal(reply.readUInt32LE(92), S_IFDIR | 0o755);
});

test('Dispatcher: a missing name is an entry without an inode that may be remembered', () => {
  const { send, lookups } = bench();
  const { length, reply } = send(message(Opcode.LOOKUP, 1n, 'g\0'));
  assert.equal(length, 144);
  assert.equal(reply.readBigUInt64LE(16), 0n);
  assert.equal(reply.readBigUInt64LE(32), 0x1_0000_0000n);
  assert.equal(lookups[1], 0);
});

test('Dispatcher: kernels that cannot be told to forget do not remember missing names of the root', () => {
  const { reply } = bench(true, 36).send(message(Opcode.LOOKUP, 1n, 'g\0'));
  assert.equal(reply.readInt32LE(4), -ENOENT);
});

test('Dispatcher: errors are minus the errno in a 16-byte reply', () => {
  const cases: [string, Buffer, number][] = [
    ['a file is no directory', message(Opcode.LOOKUP, FILE, 'x\0'), ENOTDIR],
    ['a name with a slash', message(Opcode.LOOKUP, 1n, 'a/b\0'), EINVAL],
    ['a name without an end', message(Opcode.LOOKUP, 1n, 'abc'), EINVAL],
    ['a name with a NUL inside', message(Opcode.LOOKUP, 1n, 'a\0b\0'), EINVAL],
    ['an empty name', message(Opcode.LOOKUP, 1n, '\0\0'), EINVAL],
    ['a long name', message(Opcode.LOOKUP, 1n, `${'n'.repeat(256)}\0`), ENAMETOOLONG],
    ['no such inode', message(Opcode.GETATTR, (1n << 56n) | 99n, u64s(0, 0)), EINVAL],
    ['no such backend', message(Opcode.GETATTR, (2n << 56n) | 16n, u64s(0, 0)), ENOENT],
    ['node id 0', message(Opcode.GETATTR, 0n, u64s(0, 0)), ENOENT],
    ['a short body', message(Opcode.READ, FILE, u64s(0, 0)), EINVAL],
    ['an opcode nobody knows', message(63, 1n), ENOSYS],
    ['an opcode past the table', message(0xffff_ffff, 1n), ENOSYS],
    ['opcode 0', message(0, 1n), ENOSYS],
    ['STATX', message(Opcode.STATX, 1n, Buffer.alloc(24)), ENOSYS],
    ['FLUSH', message(Opcode.FLUSH, FILE, Buffer.alloc(24)), ENOSYS],
    ['OPEN without need', message(Opcode.OPEN, FILE, u64s(0)), ENOSYS],
    ['IOCTL', message(Opcode.IOCTL, FILE, Buffer.alloc(32)), ENOTTY],
    ['WRITE', message(Opcode.WRITE, FILE, Buffer.alloc(40)), EROFS],
    ['MKDIR', message(Opcode.MKDIR, 1n, Buffer.alloc(16)), EROFS],
    ['GETXATTR of an image without', message(Opcode.GETXATTR, FILE, `${'\0'.repeat(8)}user.k\0`), ENOSYS],
    [
      'a second INIT',
      message(Opcode.INIT, 0n, Buffer.from('070000002d0000000000020000000000', 'hex')),
      EINVAL,
    ],
    [
      'INIT of an old kernel',
      message(Opcode.INIT, 0n, Buffer.from('070000001c0000000000020000000000', 'hex')),
      EPROTO,
    ],
    ['execute what nobody may', message(Opcode.ACCESS, FILE, u64s(1)), EACCES],
    ['read as another user', message(Opcode.ACCESS, FILE, u64s(4), 9, 9), EACCES],
  ];
  for (const [name, bytes, errno] of cases) {
    const { length, reply } = bench().send(bytes);
    assert.equal(length, outHeader.size, name);
    assert.equal(reply.readInt32LE(4), -errno, name);
    assert.equal(reply.readBigUInt64LE(8), 0x42n, name);
  }
});

test('Dispatcher: a length field that is not the length of the message is EINVAL, half a header is no message', () => {
  const { send } = bench();
  const lying = message(Opcode.GETATTR, 1n, u64s(0, 0));
  lying.writeUInt32LE(4096, 0);
  assert.equal(send(lying).reply.readInt32LE(4), -EINVAL);
  assert.equal(send(message(Opcode.GETATTR, 1n).subarray(0, 39)).reply.readInt32LE(4), -EINVAL);
  assert.equal(send(Buffer.alloc(15)).length, 0);
  assert.equal(send(Buffer.alloc(0)).length, 0);
});

test('Dispatcher: an INIT that the kernel repeats gets the same answer again', () => {
  const { send } = bench(false, 0);
  const body = Buffer.concat([Buffer.from('070000002d000000000002000b040041', 'hex'), Buffer.alloc(48)]);
  const first = send(message(Opcode.INIT, 0n, body)).reply;
  assert.equal(first.readInt32LE(4), 0);
  const repeated = message(Opcode.INIT, 0n, body);
  repeated.writeUInt32LE(0x8000_0000, 12);
  const second = send(repeated).reply;
  assert.equal(second.readUInt32LE(12), 0x8000_0000);
  assert.deepEqual(second.subarray(16), first.subarray(16));
});

test('Dispatcher: before INIT nothing is served', () => {
  assert.equal(
    bench(false, 0)
      .send(message(Opcode.GETATTR, 1n, u64s(0, 0)))
      .reply.readInt32LE(4),
    -EIO,
  );
});

test('Dispatcher: READ answers what is local, defers what is not, counts both ends', () => {
  const { send, dispatcher, counters } = bench();
  const { length, reply } = send(message(Opcode.READ, FILE, readBody(0, 4000)));
  assert.equal(length, 16 + 4000);
  assert.ok(reply.subarray(16).every((byte) => byte === 0x61));
  assert.equal(send(message(Opcode.READ, FILE, readBody(4096, 904))).length, DEFERRED);
  const { startedAtMs, ...wanted } = dispatcher.deferred;
  assert.deepEqual(wanted, { index: 1, ino: 17, offset: 4096, size: 904 });
  assert.ok(startedAtMs > 0);
  assert.equal(send(message(Opcode.READ, FILE, readBody(0xffff_ffff_ffff_ffffn, 10))).length, 16);
  const stats = emptyStats();
  counters.addTo(stats);
  assert.deepEqual([stats.fop_hits[Fop.read], stats.data_read], [2, 4000]);
});

test('Dispatcher: READDIR gives true types and goes on after the cookie', () => {
  const { send } = bench();
  const { length, reply } = send(message(Opcode.READDIR, 1n, readBody(2, 4096)));
  assert.equal(
    reply.subarray(16, length).toString('hex'),
    // ino, off 3, namelen 1, type DT_REG, name padded
    '1100000000000001' + '0300000000000000' + '01000000' + '08000000' + '6600000000000000',
  );
  // no room for one entry: nothing
  assert.equal(send(message(Opcode.READDIR, 1n, readBody(0, 31))).length, 16);
  assert.equal(send(message(Opcode.READDIR, 1n, readBody(0, 0))).length, 16);
  assert.equal(send(message(Opcode.READDIR, 1n, readBody(0, 64))).length, 16 + 64);
});

test('Dispatcher: READDIRPLUS counts lookups of names, not of . and ..; FORGET takes them back without a reply', () => {
  const { send, lookups } = bench();
  assert.equal(send(message(Opcode.READDIRPLUS, 1n, readBody(0, 4096))).length, 16 + 3 * 160);
  assert.equal(lookups[1], 1);
  send(message(Opcode.LOOKUP, 1n, 'f\0'));
  assert.equal(send(message(Opcode.FORGET, FILE, u64s(1))).length, 0);
  assert.equal(lookups[1], 1);
  // count says 1000 entries, the message holds one: only that one is read
  assert.equal(send(message(Opcode.BATCH_FORGET, 0n, Buffer.concat([u64s(1000), u64s(FILE, 1)]))).length, 0);
  assert.equal(lookups[1], 0);
  assert.equal(send(message(Opcode.INTERRUPT, 0n, u64s(0x40))).length, 0);
});

test('Dispatcher: a repeated request is answered under its number, bit 63 included', () => {
  const bytes = message(Opcode.GETATTR, 1n, u64s(0, 0));
  bytes.writeBigUInt64LE((1n << 63n) | 0x42n, 8);
  assert.equal(bench().send(bytes).reply.readBigUInt64LE(8), (1n << 63n) | 0x42n);
});

test('Dispatcher: without an image the root is an empty pseudo directory', () => {
  const { dispatcher, send } = bench(true);
  dispatcher.setRoot(0);
  const { reply } = send(message(Opcode.GETATTR, 1n, u64s(0, 0)));
  assert.equal(reply.readBigUInt64LE(16), 1n << 32n);
  assert.equal(reply.readUInt32LE(92), S_IFDIR | 0o777);
  assert.equal(send(message(Opcode.LOOKUP, 1n, 'f\0')).reply.readInt32LE(4), -ENOENT);
  assert.equal(send(message(Opcode.READDIR, 1n, readBody(0, 4096))).length, 16);
  assert.equal(send(message(Opcode.OPENDIR, 1n, u64s(0))).length, 32);
});

test('Dispatcher: random bytes get a reply of bounded size or none', () => {
  const { send } = bench();
  let state = 99;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  for (let round = 0; round < 20_000; round++) {
    const bytes = Buffer.alloc(next() % 200);
    for (let at = 0; at < bytes.length; at++) bytes[at] = next() >>> 24;
    if (bytes.length >= 40) {
      if (round % 8 !== 0) bytes.writeUInt32LE(bytes.length, 0);
      bytes.writeUInt32LE((next() >>> 8) % (MAX_OPCODE + 2), 4);
      if (round % 3 !== 0) bytes.writeBigUInt64LE([1n, FILE, (1n << 56n) | 16n][round % 7] ?? 1n, 16);
    }
    const { length } = send(bytes);
    assert.ok(
      length === 0 || length === DEFERRED || (length >= 16 && length <= 8192),
      `round ${round}: ${length}`,
    );
  }
});

test('OPS: one row for each opcode, names as in the kernel', () => {
  assert.equal(OPS.length, Object.keys(Opcode).length);
  for (const row of OPS) {
    assert.equal(OP_BY_NUMBER[row.opcode], row);
    assert.equal(opcodeName(row.opcode), row.name);
  }
  assert.deepEqual(
    OPS.filter(({ replies }) => !replies).map(({ name }) => name),
    ['FORGET', 'INTERRUPT', 'NOTIFY_REPLY', 'BATCH_FORGET'],
  );
});
