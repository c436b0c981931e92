import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ratesBetween, type MountSample, type Sample } from './top-sample.ts';
import { bytesText, topText } from './top-text.ts';

function mount(mountpoint: string, numbers: Partial<MountSample> = {}): MountSample {
  return {
    mountpoint,
    type: 'Rafs',
    operations: 0,
    errors: 0,
    readBytes: 0,
    reads: 0,
    readMicros: 0,
    fetchedBytes: 0,
    fetches: 0,
    chunkReads: 0,
    chunkHits: 0,
    prefetchedBytes: 0,
    complete: false,
    ...numbers,
  };
}

function sample(at: number, ...mounts: MountSample[]): Sample {
  return { at, state: 'RUNNING', mounts };
}

test('ratesBetween: counts per second of what happened since the last look', () => {
  const before = sample(
    0,
    mount('/', { operations: 100, reads: 10, readMicros: 1000, chunkReads: 4, chunkHits: 2 }),
  );
  const now = sample(
    2000,
    mount('/', {
      operations: 300,
      reads: 30,
      readMicros: 5000,
      chunkReads: 14,
      chunkHits: 11,
      fetchedBytes: 500,
    }),
  );
  const [rates] = ratesBetween(before, now);
  assert.equal(rates?.ops_per_second, 100);
  assert.equal(rates?.read_latency_micros, 200);
  assert.equal(rates?.hit_rate, 0.9);
  assert.equal(rates?.fetched_bytes_per_second, 250);
  assert.equal(rates?.fetched_bytes, 500);
});

test('ratesBetween: a mount that is new, or that took the place of another, counts from its beginning', () => {
  const before = sample(0, mount('/old', { operations: 1000 }));
  const now = sample(1000, mount('/new', { operations: 5 }), mount('/old', { operations: 7 }));
  assert.deepEqual(
    ratesBetween(before, now).map((r) => [r.mountpoint, r.ops_per_second, r.hit_rate]),
    [
      ['/new', 5, null],
      ['/old', 7, null],
    ],
  );
});

test('bytesText: three digits at most', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [99_400, '99.4 kB'],
    [123_456, '123 kB'],
    [999_500, '1.0 MB'],
    [5e9, '5.0 GB'],
  ];
  for (const [bytes, text] of cases) assert.equal(bytesText(bytes), text);
});

test('topText: the busiest mount first, cut to the height of the terminal', () => {
  const now = sample(1000, mount('/idle'), mount('/busy', { operations: 10 }), mount('/other'));
  const rates = ratesBetween(sample(0), now);
  const lines = topText(now, rates).split('\n');
  assert.equal(lines[0], 'nydusd RUNNING, 3 mounts, 10 operations/s, 0 B/s fetched');
  assert.deepEqual(
    lines.slice(3, 6).map((line) => line.split(' ')[0]),
    ['/busy', '/idle', '/other'],
  );
  const cut = topText(now, rates, 5).split('\n');
  assert.match(cut[3] ?? '', /^\/busy +10 +0 B +- +0 B +0 B +- +0 B +0 +partly$/);
  assert.deepEqual(cut.slice(4), ['... 2 more', '']);
});

test('topText: a narrow terminal loses columns and the beginning of long paths, never a line end', () => {
  const now = sample(
    1000,
    mount('/a/very/long/path/of/an/image/that/does/not/fit', { operations: 10 }),
    mount('/b'),
  );
  const rates = ratesBetween(sample(0), now);
  const lines = (width: number): string[] =>
    topText(now, rates, Infinity, width).trimEnd().split('\n').slice(2);
  assert.match(
    lines(200)[0] ?? '',
    /^MOUNTPOINT +OPS\/S +READ\/S +READ LATENCY +FETCHED\/S +FETCHED +HITS +PREFETCHED +ERRORS +LOCAL$/,
  );
  assert.match(lines(110)[1] ?? '', /^…\S+does\/not\/fit +10 /);
  assert.match(lines(80)[0] ?? '', /^MOUNTPOINT +OPS\/S +READ\/S +FETCHED\/S +HITS +ERRORS +LOCAL$/);
  for (const width of [200, 110, 80, 72])
    assert.ok(
      lines(width).every((line) => line.length <= width),
      String(width),
    );
  // the least that is shown
  assert.match(lines(10)[0] ?? '', /^MOUNTPOINT +OPS\/S +READ\/S +FETCHED\/S +HITS +ERRORS$/);
});
