// The API transcripts of golden/api, replayed against a real daemon: one started empty, and dedicated ones. Each difference
// is in one of the tables below, with its reason; nothing else may differ but the values that vary.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, goldenPath, requireFuse, skipUnlessGolden, tempDir } from '../support/golden.ts';
import { mountsBelow } from '../support/temporary.ts';
import {
  maskBody,
  maskHeaders,
  readTranscript,
  send,
  withBody,
  type Exchange,
  type Reply,
} from './nydusd-replay.ts';

const IDLE = 'idle-and-pseudo-mounts.jsonl';
const DEDICATED = 'dedicated.jsonl';

const skip = firstReason(
  skipUnlessGolden('api', IDLE),
  skipUnlessGolden('api', DEDICATED),
  skipUnlessGolden('cases', 'tiny-v6-zstd-blake3', 'bootstrap'),
  skipUnlessGolden('cases', 'tiny-v5-zstd-blake3', 'bootstrap'),
  skipUnlessGolden('cache', 'images', 'small-v6', 'bootstrap'),
  requireFuse(),
);

interface Difference {
  why: string;
  status: number;
  /** what our body must match; absent: no body */
  body?: RegExp;
}

const LIMIT = 'accepts more than upstream, which is safe (nydusd.md 5.1)';
const REFUSED = 'the transport answers in its own words and hangs up';

/** Where we answer otherwise, by exchange of the idle transcript. */
const DIFFERENT: Record<number, Difference> = {
  76: { why: 'names what is wrong with the file', status: 500, body: /Failed to fill superBlock: .*`/ },
  79: { why: 'v6 images are verified, upstream cannot', status: 204 },
  82: {
    why: 'names the key and its line',
    status: 500,
    body: /Failed to load config: failed to parse configuration information: `mode` at line 1: .*`/,
  },
  94: { why: 'the older form is served', status: 204 },
  95: { why: 'the older form is served', status: 204 },
  96: { why: 'the older key fstype is understood', status: 204 },
  99: { why: REFUSED, status: 400, body: /"Invalid HTTP Version: Unsupported HTTP version\.\n/ },
  100: { why: REFUSED, status: 400, body: /"Invalid HTTP Method: Unsupported HTTP method\.\n/ },
  102: { why: REFUSED, status: 400, body: /"Invalid HTTP Method: Unsupported HTTP method\.\n/ },
  104: { why: 'a line end without CR is a bad request, not 500', status: 400, body: /"Invalid/ },
  105: { why: REFUSED, status: 400, body: /"Invalid request\.\n/ },
  106: { why: REFUSED, status: 400, body: /"Invalid header\. Reason: Header is incorrectly formatted\.\n/ },
  107: { why: 'Connection: close closes, and says so', status: 200, body: /"state":"RUNNING"/ },
  108: { why: LIMIT, status: 204 },
  109: { why: 'the reason phrase of 100 is written', status: 100 },
  110: { why: REFUSED, status: 400, body: /"Invalid header\. Reason: Invalid value\. Key:Content-Length/ },
  111: { why: REFUSED, status: 400, body: /"Invalid header\. Reason: Invalid value\. Key:Content-Length/ },
  115: { why: LIMIT, status: 200, body: /"state":"RUNNING"/ },
  116: { why: 'the second of two replies is not compared', status: 200, body: /"total_errors":0/ },
  118: { why: REFUSED, status: 400, body: /"Invalid request\.\n/ },
  119: { why: LIMIT, status: 200, body: /"state":"RUNNING"/ },
  120: { why: LIMIT, status: 200, body: /"state":"RUNNING"/ },
  153: { why: 'an image of the other version takes its place', status: 204 },
  168: { why: 'what is unmounted is not counted any more (nydusd.md 5.10)', status: 404, body: /NoCounter/ },
  122: {
    why: REFUSED,
    status: 400,
    body: /"Request payload with size 51201 is larger than the limit of 51200/,
  },
};

interface Places {
  /** text of the transcripts -> path here */
  pairs: [golden: string, here: string][];
}

function places(work: string): Places {
  const image = (name: string): string => join(goldenPath('cases', name, 'bootstrap') ?? '', '..');
  const small = join(goldenPath('cache', 'images', 'small-v6', 'bootstrap') ?? '', '..');
  mkdirSync(join(work, 'in'));
  writeFileSync(join(work, 'in', 'data'), Buffer.alloc(8000, 1));
  return {
    pairs: [
      ['$WORK/ai/tiny6', image('tiny-v6-zstd-blake3')],
      ['$WORK/ai/tiny5', image('tiny-v5-zstd-blake3')],
      ['$WORK/ai/small6', small],
      ['$WORK/in/tiny', join(work, 'in')],
      ['$WORK/aw', work],
    ],
  };
}

const toHere = ({ pairs }: Places, text: string): string =>
  pairs.reduce((all, [golden, here]) => all.replaceAll(golden, here), text);
const toGolden = ({ pairs }: Places, text: string): string =>
  pairs.reduce((all, [golden, here]) => all.replaceAll(here, golden), text);

/** The request of an exchange with paths of this machine; long bodies were cut in the transcript. */
function requestOf(x: Exchange, where: Places): string {
  if (x.n === 121 || x.n === 122) {
    const size = x.n === 121 ? 51200 : 51201;
    return `PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: ${size}\r\n\r\n${'{"log_level":"info"}'.padEnd(size)}`;
  }
  return x.request.includes('$WORK') ? withBody(x.request, (body) => toHere(where, body)) : x.request;
}

function check(x: Exchange, reply: Reply, where: Places, mask: (body: string) => string = maskBody): void {
  const name = `exchange ${x.n}: ${JSON.stringify(x.request.slice(0, 80))}`;
  const ours = mask(toGolden(where, reply.body));
  const golden = mask(x.body);
  assert.equal(ours, golden, name);
  assert.equal(reply.statusLine, x.statusLine, name);
  const masked = golden !== x.body || ours !== reply.body;
  assert.deepEqual(maskHeaders(reply.headers, masked), maskHeaders(x.headers, masked), name);
}

/** Replies to HEAD have no body, whatever their length says. */
async function replay(daemon: Daemon, x: Exchange, where: Places): Promise<Reply> {
  return send(daemon.apisock, requestOf(x, where));
}

async function unmount(daemon: Daemon, mountpoint: string): Promise<void> {
  await send(daemon.apisock, `DELETE /api/v1/mount?mountpoint=${mountpoint} HTTP/1.1\r\n\r\n`);
}

/** Counts of operations depend on the kernel's read-ahead and on who looks; their form does not. */
const counts = (body: string): string =>
  maskBody(body)
    .replace(
      /"(fop_\w+|block_count_read)":\[([\d,]*)\]/g,
      (_, key: string, list: string) => `"${key}":${list.split(',').length}`,
    )
    .replace(
      /"(total_fops|prefetch_\w+|read_count|read_amount_total|partial_hits|total|entries_count)":\d+/g,
      '"$1":0',
    )
    .replace(/"data_all_ready":\w+/, '"data_all_ready":false') // upstream says false though every chunk is there
    .replace(/"first_access_time_\w+":\d+/g, '')
    .replace(/"nr_read":\d+/g, '"nr_read":1');

/** Per-inode counters of the inodes that were read; which others were looked up depends on who looks. */
const readInodes = (body: string): string => {
  const files = JSON.parse(body) as Record<string, { data_read: number }>;
  const read = Object.entries(files).filter(([, file]) => file.data_read > 0);
  return counts(
    JSON.stringify(Object.fromEntries(read.map(([ino, file]) => [ino, { ...file, total_fops: 0 }]))),
  );
};

describe('golden API transcripts', { skip }, () => {
  it('nydusd: an idle daemon answers as golden/api says', async (t: TestContext) => {
    const work = tempDir(t);
    const where = places(work);
    const seed = readFileSync(goldenPath('api', 'configs', 'seed-form-config.json') ?? '', 'utf8');
    writeFileSync(join(work, 'seed.json'), toHere(where, seed));
    const args = ['--id', 'd-idle', '--supervisor', join(work, 'nosuch.sock')];
    await using daemon = await startDaemon({ workDir: join(work, 'd'), args });
    const supervised = (body: string): string =>
      maskBody(body).replace(/"supervisor":"[^"]*"/, '"supervisor":""');
    let compared = 0;
    let different = 0;
    let remount: Exchange | undefined;
    for (const x of readTranscript(goldenPath('api', IDLE) ?? '')) {
      if (x.n === 131) readTree(daemon.mountpoint);
      if (x.n === 151) remount = x;
      if (x.n === 101) {
        // the body that upstream sends in answer to HEAD is not HTTP
        const reply = await headOnly(daemon.apisock, x.request);
        assert.deepEqual([reply.statusLine, ...reply.headers], [x.statusLine, ...x.headers]);
        continue;
      }
      const reply = await replay(daemon, x, where);
      const difference = DIFFERENT[x.n];
      if (difference === undefined) {
        const masked = (body: string): string =>
          sortMounts(supervised(body.startsWith('{"1') ? readInodes(body) : counts(body)));
        check(x, reply, where, x.state === 'pseudo mounts' ? masked : supervised);
        compared++;
        continue;
      }
      different++;
      const name = `exchange ${x.n} (${difference.why})`;
      assert.match(reply.statusLine, new RegExp(`^HTTP/1\\.1 ${difference.status}\\b`), name);
      if (difference.body === undefined) assert.equal(reply.body, '', name);
      else assert.match(reply.body, difference.body, name);
      // what upstream refused is mounted now, in the way of what follows
      if (x.n === 153 && remount !== undefined) await replay(daemon, remount, where);
      if (difference.status === 204 && x.state === 'idle' && x.request.includes('/mount'))
        await unmount(daemon, x.n === 79 ? '/a' : '/');
    }
    assert.equal(different, Object.keys(DIFFERENT).length);
    assert.ok(compared >= 96, `${compared} exchanges compared`);
    // the last exchange asked the daemon to exit: the mount stays, the socket goes
    assert.equal(await daemon.ended, 0, daemon.log);
    assert.equal(existsSync(daemon.apisock), false);
    assert.deepEqual(mountsBelow(daemon.mountpoint), [daemon.mountpoint]);
  });

  for (const [version, image, size] of [
    ['v6', 'small6', 309000],
    ['v5', 'tiny5', 8000],
  ] as const) {
    it(`nydusd: a daemon dedicated to a ${version} image answers as golden/api says`, async (t: TestContext) => {
      const work = tempDir(t);
      const where = places(work);
      const text = readFileSync(goldenPath('api', 'configs', `dedicated-${version}.json`) ?? '', 'utf8');
      const config = JSON.parse(toHere(where, text)) as object;
      const bootstrap = toHere(where, `$WORK/ai/${image}/bootstrap`);
      await using daemon = await startDaemon({ workDir: join(work, 'd'), bootstrap, config });
      if (version === 'v6') await prefetched(daemon);
      let compared = 0;
      for (const x of readTranscript(goldenPath('api', DEDICATED) ?? '')) {
        if (!x.state.startsWith(`dedicated ${version}`)) continue;
        if (x.state.endsWith('after reads') && x.request.startsWith('GET /api/v1/daemon HTTP'))
          readSome(daemon, version);
        const reply = await replay(daemon, x, where);
        const isFiles = /metrics\/files/.test(x.request) && x.body.startsWith('{"');
        check(x, reply, where, isFiles && reply.statusLine.includes('200') ? readInodes : counts);
        compared++;
      }
      assert.ok(compared >= 50, `${compared} exchanges compared`);
      const metrics = (await daemon.get('/api/v1/metrics')) as { data_read: number };
      assert.equal(metrics.data_read, size);
      // upstream aborts on both of these
      const blobs = await send(daemon.apisock, 'GET /api/v2/blobs?domain_id=x HTTP/1.1\r\n\r\n');
      assert.equal(blobs.statusLine, 'HTTP/1.1 501 ');
      const sendfd = await send(daemon.apisock, 'PUT /api/v1/daemon/fuse/sendfd HTTP/1.1\r\n\r\n');
      assert.match(sendfd.body, /Upgrade\(DaemonAbnormal\(UpgradeManager\(/);
      assert.equal(await daemon.stop(), 0);
    });
  }
});

/** Upstream lists mounts in the order of a hash map. */
function sortMounts(body: string): string {
  if (!body.includes('"backend_collection":{')) return body;
  const info = JSON.parse(body) as { backend_collection: object };
  const sorted = Object.entries(info.backend_collection).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ ...info, backend_collection: Object.fromEntries(sorted) });
}

/** All that a user sees, with every file read. */
function readTree(dir: string): void {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) readTree(path);
    else if (entry.isFile()) readFileSync(path);
  }
}

/** What the golden run read: two files of the v6 image, one of the v5 image. */
function readSome(daemon: Daemon, version: 'v5' | 'v6'): void {
  if (version === 'v5') {
    assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
    return;
  }
  assert.equal(readFileSync(join(daemon.mountpoint, 'z-large')).length, 300000);
  assert.equal(readFileSync(join(daemon.mountpoint, 'd0', 'f01')).length, 9000);
}

async function prefetched(daemon: Daemon): Promise<void> {
  for (;;) {
    const cache = (await daemon.get('/api/v1/metrics/blobcache')) as { data_all_ready: boolean };
    if (cache.data_all_ready) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function headOnly(socketPath: string, request: string): Promise<Reply> {
  const { connect } = await import('node:net');
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath, () => socket.write(request));
    socket.on('error', reject);
    socket.once('data', (data) => {
      socket.destroy();
      const [statusLine = '', ...headers] = data.toString().trimEnd().split('\r\n');
      resolve({ statusLine, headers, body: '' });
    });
  });
}
