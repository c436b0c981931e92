// The transcript of a hot upgrade, golden/api/upgrade.jsonl, replayed with two of our daemons and a supervisor: every request in
// its order, each answer compared but for the values that vary.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { launch, stateOf } from '../support/failover.ts';
import type { Daemon } from '../support/daemon.ts';
import { firstReason, goldenPath, requireFuse, skipUnlessGolden, tempDir } from '../support/golden.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';
import { maskBody, maskHeaders, readTranscript, send, withBody, type Exchange } from './nydusd-replay.ts';

const TRANSCRIPT = 'upgrade.jsonl';
const IMAGES = { tiny5: 'tiny-v5-zstd-blake3', tiny6: 'tiny-v6-zstd-blake3' };
const skip = firstReason(
  skipUnlessGolden('api', TRANSCRIPT),
  ...Object.values(IMAGES).map((name) => skipUnlessGolden('cases', name, 'bootstrap')),
  requireFuse(),
);

/** The snapshotter repeats the mounts it knows after a takeover: we say yes to exactly what is there. */
const REPEATED_MOUNT = 18;

const maskUpgrade = (body: string): string => {
  const masked = maskBody(body)
    .replace(/"supervisor":"[^"]*"/, '"supervisor":""')
    // who looks at attributes is the reader's business
    .replace(/"fop_hits":\[[\d,]*\]/, '"fop_hits":[]');
  if (!masked.includes('"backend_collection":{"/')) return masked;
  const info = JSON.parse(masked) as { backend_collection: object };
  const sorted = Object.entries(info.backend_collection).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ ...info, backend_collection: Object.fromEntries(sorted) });
};

test('nydusd: a hot upgrade answers as golden/api says', { skip }, async (t) => {
  const dir = tempDir(t);
  const mountpoint = join(dir, 'mnt');
  for (const name of ['mnt', 'cache5', 'cache6']) mkdirSync(join(dir, name));
  t.after(() => unmountBelow(dir));
  const pairs = [
    ...Object.entries(IMAGES).map(
      ([name, image]) =>
        [`/golden/${name}`, join(goldenPath('cases', image, 'bootstrap') ?? '', '..')] as const,
    ),
    ['/golden', dir] as const,
  ];
  // in one pass: the folder of the golden data may have `/golden` in its name
  const here = new Map<string, string>(pairs);
  const toHere = (text: string): string =>
    text.replace(/\/golden(?:\/tiny[56])?/g, (golden) => here.get(golden) ?? golden);
  const toGolden = (text: string): string =>
    pairs.reduce((all, [golden, here]) => all.replaceAll(here, golden), text);
  const supervisor = new Supervisor(join(dir, 'sup.sock'));
  t.after(() => supervisor.close());
  const start = async (socket: string, ...more: string[]): Promise<Daemon> => {
    const args = ['--id', 'up', '--supervisor', supervisor.path, ...more];
    const { daemon } = await launch({ dir, mountpoint, socket, args });
    t.after(() => daemon.child.kill('SIGKILL'));
    return daemon;
  };
  const old = await start('old.sock');
  let next: Daemon | undefined;
  const daemonOf = async (x: Exchange): Promise<Daemon> =>
    x.state.includes('old') ? old : (next ??= await start('new.sock', '--upgrade'));
  /** What the supervisor does meanwhile. */
  const supervise = (x: Exchange): Promise<void> => {
    if (x.statusLine !== 'HTTP/1.1 204 ') return Promise.resolve();
    if (x.request.includes('/sendfd')) return supervisor.receive();
    return x.request.includes('/takeover') ? supervisor.send() : Promise.resolve();
  };
  let compared = 0;
  for (const x of readTranscript(goldenPath('api', TRANSCRIPT) ?? '')) {
    const daemon = await daemonOf(x);
    const name = `exchange ${x.n}: ${JSON.stringify(x.request.slice(0, 80))}`;
    if (x.n === REPEATED_MOUNT) {
      const data = readFileSync(join(mountpoint, 'five/data'));
      const digest = createHash('sha256').update(data).digest('hex');
      assert.equal(digest, '05860727cc5490927f7fd62a67f27eeafd89217aa4f00a18d0b2cc4e838c859b');
    }
    const supervised = supervise(x);
    const reply = await send(daemon.apisock, withBody(x.request, toHere));
    await supervised;
    if (x.n === REPEATED_MOUNT) {
      assert.equal(reply.statusLine, 'HTTP/1.1 204 ', name);
      const other = withBody(x.request, (body) => toHere(body).replace('tiny5/bootstrap', 'tiny6/bootstrap'));
      // anything else is in the way, in upstream's words
      const changed = withBody(other, (body) =>
        body.replace('\\"enable_xattr\\": true', '\\"enable_xattr\\": false'),
      );
      assert.equal((await send(daemon.apisock, changed)).body, x.body, name);
      continue;
    }
    assert.equal(maskUpgrade(toGolden(reply.body)), maskUpgrade(x.body), name);
    assert.equal(reply.statusLine, x.statusLine, name);
    assert.deepEqual(maskHeaders(reply.headers, x.body !== ''), maskHeaders(x.headers, x.body !== ''), name);
    compared++;
    if (daemon === old && x.request.includes('/exit')) {
      assert.equal(await old.ended, 0, old.log);
      assert.deepEqual(mountsBelow(mountpoint), [mountpoint]);
    }
  }
  assert.equal(compared, 16);
  assert.ok(next !== undefined);
  assert.equal(await stateOf(next), 'RUNNING');
  assert.equal(await next.stop(), 0, next.log);
  assert.deepEqual(mountsBelow(mountpoint), []);
  assert.equal(existsSync(next.apisock), false);
});
