// Recorded traffic of upstream nydusd (golden/fuse): each request goes to the dispatcher over the same image, and the
// replies are compared by meaning. Differences we want are in DIFFERENCES, with their reason.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { goldenPath, skipUnlessGolden } from '../../test/support/golden.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { silentLogger } from '../base/log.ts';
import { RafsInstance } from '../rafs/instance.ts';
import { LocalReader } from '../rafs/local-reader.ts';
import { parseConfig } from '../storage/config-parse.ts';
import { COUNTER_SET_BYTES, CounterSet } from './counters.ts';
import { Dispatcher, IN_FLIGHT_WORDS } from './dispatcher.ts';
import { DEFERRED } from './exchange.ts';
import { MessageBuffer } from './message-buffer.ts';
import { InitFlag, InitFlag2, MAX_IO, opcodeName } from './opcodes.ts';
import { attr, attrOut, dirent, entryOut, initOut, outHeader } from './protocol.ts';
import { PseudoTree, type PseudoNode } from './pseudo/pseudo-tree.ts';
import { PseudoView } from './pseudo/pseudo-view.ts';
import { ServedImage } from './served-image.ts';
import { SessionState } from './session-state.ts';

/** Fields that differ from upstream's replies on purpose. */
const DIFFERENCES: Record<string, string> = {
  'pseudo.nlink': 'upstream says 0, which is a deleted directory; ours is 2',
  'init.minor': 'upstream speaks 7.33; we take the lower of 7.45 and the kernel',
  'init.flags':
    'upstream also wants HAS_IOCTL_DIR, AUTO_INVAL_DATA and WRITEBACK_CACHE, which a read-only image has no use for; ' +
    'we also want INIT_EXT',
  'init.flags2': 'HAS_RESEND, for a successor after a crash',
  'dirent.type': 'upstream says 0 (unknown); ours is the true type',
  'attr.rdev': 'upstream puts the raw i_u word of v6 inodes there; ours is 0 unless a device',
};

interface Recorded {
  op: string;
  request_hex: string;
  reply_hex: string;
  reply_len: number;
}

const SESSIONS: readonly { name: string; image: string; enableXattr: boolean; place?: string }[] = [
  { name: 'v5-xattr', image: 'fusetree-v5', enableXattr: true },
  { name: 'v5-no-xattr', image: 'fusetree-noxattr-v5', enableXattr: false },
  { name: 'v6-xattr', image: 'fusetree-v6', enableXattr: true },
  { name: 'v6-xattr-flag-only', image: 'fusetree-v6', enableXattr: false },
  { name: 'v6-no-xattr', image: 'fusetree-noxattr-v6', enableXattr: false },
  { name: 'v6-noxattr-image-enabled', image: 'fusetree-noxattr-v6', enableXattr: true },
  { name: 'v6-pseudo', image: 'fusetree-v6', enableXattr: true, place: '/m' },
];

/** The image at a place inside the mount. */
function pseudoTree(place: string): PseudoNode[] {
  const tree = new PseudoTree();
  tree.cover(tree.place(place).ino, 1);
  return tree.snapshot();
}

/** The image with an empty cache: the first read of each chunk is a miss. */
function openImage(folder: string, cache: string): Promise<RafsInstance> {
  const { config } = parseConfig(
    JSON.stringify({
      version: 2,
      backend: { type: 'localfs', localfs: { dir: join(folder, 'blobs') } },
      cache: { type: 'blobcache', filecache: { work_dir: cache } },
      rafs: { mode: 'direct' },
    }),
  );
  return RafsInstance.open({
    bootstrap: join(folder, 'bootstrap'),
    config,
    id: 'golden',
    logger: silentLogger,
  });
}

function seconds(hex: string): number {
  return Buffer.from(hex, 'hex').readUInt32LE(0);
}

/** The time at which upstream had mounted: the root's mtime in the first GETATTR. */
function mountTime(records: Recorded[]): number {
  const first = records.find(({ op }) => op === 'GETATTR');
  assert.ok(first !== undefined);
  const at =
    (outHeader.size + attrOut.size + (attr.layout.find(({ name }) => name === 'mtime')?.offset ?? 0)) * 2;
  return seconds(first.reply_hex.slice(at, at + 8));
}

function plain(value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value;
}

function fields(prefix: string, values: Record<string, unknown>): [string, unknown][] {
  return Object.entries(values).map(([key, value]) => [`${prefix}.${key}`, plain(value)]);
}

/** A reply as named values. */
function meaning(op: string, bytes: Buffer, recordedLength: number): [string, unknown][] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const head = outHeader.read(view, 0);
  const out: [string, unknown][] = [
    ['header.error', head.error],
    ['header.unique', head.unique],
    ['header.len', head.len],
  ];
  assert.equal(head.len, recordedLength, `${op}: length field`);
  let at: number = outHeader.size;
  if (head.error !== 0) return out;
  const whole = (size: number): boolean => at + size <= bytes.length;
  if (op === 'INIT') out.push(...fields('init', initOut.read(view, at)));
  else if (op === 'LOOKUP') {
    out.push(...fields('entry', entryOut.read(view, at)));
    out.push(...fields('attr', attr.read(view, at + entryOut.size)));
  } else if (op === 'GETATTR') {
    out.push(
      ...fields('attrOut', attrOut.read(view, at)),
      ...fields('attr', attr.read(view, at + attrOut.size)),
    );
  } else if (op === 'READDIR' || op === 'READDIRPLUS') {
    const plus = op === 'READDIRPLUS' ? entryOut.size + attr.size : 0;
    while (whole(plus + dirent.size)) {
      if (plus > 0) {
        out.push(
          ...fields('entry', entryOut.read(view, at)),
          ...fields('attr', attr.read(view, at + entryOut.size)),
        );
      }
      const entry = dirent.read(view, at + plus);
      const nameAt = at + plus + dirent.size;
      if (nameAt + entry.namelen > bytes.length) break;
      out.push(...fields('dirent', entry), [
        'name',
        bytes.toString('latin1', nameAt, nameAt + entry.namelen),
      ]);
      at = at + ((plus + dirent.size + entry.namelen + 7) & ~7);
    }
  } else out.push(['payload', bytes.subarray(at).toString('hex')]);
  return out;
}

for (const session of SESSIONS) {
  test(
    `golden session ${session.name}: replies mean the same`,
    { skip: skipUnlessGolden('fuse', `${session.name}.jsonl`) },
    async (t) => {
      const lines = readFileSync(goldenPath('fuse', `${session.name}.jsonl`) ?? '', 'utf8')
        .trim()
        .split('\n');
      const records = lines.slice(1).map((line) => JSON.parse(line) as Recorded);
      const folder = goldenPath('fuse', 'images', session.image) ?? '';
      const instance = await openImage(folder, tempDir(t));
      t.after(() => instance.close());
      const source = new LocalReader(instance.share);
      const state = new SessionState();
      const reports: unknown[] = [];
      const dispatcher = new Dispatcher({
        state,
        serveOpen: session.place !== undefined,
        startedAtSec: mountTime(records),
        counters: new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES)),
        inFlight: new Uint32Array(IN_FLIGHT_WORDS),
        lookups: new Float64Array(256),
        report: (op, error) => reports.push([op, error]),
      });
      const mountedAtSec = mountTime(records);
      dispatcher.setImage(
        1,
        new ServedImage(source, 1, 0, { enableXattr: session.enableXattr, mountedAtSec, uid: 0, gid: 0 }),
      );
      if (session.place === undefined) dispatcher.setRoot(1);
      else dispatcher.pseudo = new PseudoView(pseudoTree(session.place));
      const request = MessageBuffer.allocate(MAX_IO);
      const reply = MessageBuffer.allocate(MAX_IO);
      const seen = new Set<string>();
      let misses = 0;
      for (const record of records) {
        const bytes = Buffer.from(record.request_hex, 'hex');
        request.bytes.set(bytes);
        let length = dispatcher.dispatch(request, bytes.length, reply);
        if (length === DEFERRED) {
          const { ino, offset, size } = dispatcher.deferred;
          await instance.read(ino, offset, size, Buffer.alloc(size));
          misses++;
          length = dispatcher.dispatch(request, bytes.length, reply);
        }
        const wanted = Buffer.from(record.reply_hex, 'hex');
        assert.equal(length, record.reply_len, `${record.op} ${record.request_hex}: reply length`);
        const ours = meaning(
          record.op,
          Buffer.from(reply.bytes.subarray(0, wanted.length)),
          record.reply_len,
        );
        const theirs = meaning(record.op, wanted, record.reply_len);
        assert.equal(ours.length, theirs.length, record.op);
        theirs.forEach(([key, value], index) => {
          const [ourKey, ourValue] = ours[index] ?? [];
          assert.equal(ourKey, key);
          const isPseudo =
            record.op === 'GETATTR' &&
            key === 'attr.nlink' &&
            session.place !== undefined &&
            request.view.getUint32(20, true) === 0;
          if (isPseudo) seen.add('pseudo.nlink');
          else if (key in DIFFERENCES) {
            if (ourValue !== value) seen.add(key);
          } else assert.deepEqual(ourValue, value, `${record.op} ${record.request_hex}: ${key}`);
        });
      }
      assert.deepEqual(reports, []);
      assert.ok(seen.has('init.flags') && seen.has('dirent.type'), [...seen].join());
      assert.equal(state.minor, 45);
    },
  );
}

test('golden INIT: our flags are upstream’s without what a read-only image has no use for', () => {
  const upstream = 0x03c7_f821;
  const without = InitFlag.HAS_IOCTL_DIR | InitFlag.AUTO_INVAL_DATA | InitFlag.WRITEBACK_CACHE;
  const kernel = 0x73ff_fffb;
  const state = new SessionState();
  const dispatcher = new Dispatcher({
    state,
    serveOpen: false,
    startedAtSec: 0,
    counters: new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES)),
    inFlight: new Uint32Array(IN_FLIGHT_WORDS),
    lookups: new Float64Array(256),
  });
  // header: len 104, INIT, unique 2; body: 7.45, readahead 131072, flags, flags2 0x5fd
  const bytes = Buffer.from(
    '680000001a0000000200000000000000000000000000000000000000000000000000000000000000' +
      '070000002d00000000000200fbffff73fd050000'.padEnd(128, '0'),
    'hex',
  );
  const request = new MessageBuffer(bytes);
  const reply = new MessageBuffer(new Uint8Array(4096));
  assert.equal(dispatcher.dispatch(request, bytes.length, reply), 80);
  const out = initOut.read(reply.view, outHeader.size);
  assert.equal(out.flags, ((upstream & ~without) | (InitFlag.INIT_EXT & kernel)) >>> 0);
  assert.equal(out.flags2, InitFlag2.HAS_RESEND & 0x5fd);
  assert.deepEqual(
    [out.maxBackground, out.congestionThreshold, out.maxWrite, out.maxPages],
    [65535, 49149, MAX_IO, 256],
  );
  assert.equal(opcodeName(26), 'INIT');
});
