// The order in which a cache is written, recorded and cut at every point, as a power failure does it: what was not flushed is there, or
// not, or half, and the map has the bits of any moment. At no cut does a bit speak of data that is not on the disk, but for chunks that were
// being taken out: there the note in the map has everything verified. The table of the chunks is there or not, and may be torn.
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectingLogger, readWhole } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../test/conformance/make-image.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { RafsInstance } from '../rafs/instance.ts';

const CHUNK = 65536;
const HEADER = 4096;
const STATE = 20;
const IN_USE = 1;
const BOOT_ID = 24;
const PAGE = 4096;
const DATA = sampleData(60 * CHUNK + 1000, 51);

/** One step, in the order in which it happened. */
type Step =
  | { kind: 'written'; chunk: number }
  | { kind: 'flush starts' }
  | { kind: 'flush ends' }
  /** the map as every process sees it: any page of it may be on the disk from now on */
  | { kind: 'map'; bytes: Buffer }
  /** `.blob.meta` has its name */
  | { kind: 'meta'; bytes: Buffer }
  /** chunks that are being taken out: their bits go, then their blocks */
  | { kind: 'withdrawn'; chunk: number }
  | { kind: 'punched' }
  /** msync: the map is on the disk as it is */
  | { kind: 'map synced'; bytes: Buffer };

interface Recording {
  image: MadeImage;
  workDir: string;
  steps: Step[];
}

function open(image: MadeImage, workDir: string, lines: string[] = []): Promise<RafsInstance> {
  return RafsInstance.open({
    bootstrap: image.bootstrap,
    id: 'power',
    logger: collectingLogger(lines),
    config: instanceConfig({ blobDir: image.blobDir, workDir, rafs: { batch_size: 0 } }),
    decodeThreads: 0,
    publishMs: 2,
  });
}

const bitsOf = (map: Uint8Array, count: number): number[] =>
  Array.from({ length: count }, (_, i) => i).filter(
    (i) => ((map[HEADER + (i >> 3)] ?? 0) & (0x80 >> (i & 7))) !== 0,
  );

/** Read an image in a scattered order while every step of its cache is written down. */
async function record(t: TestContext, version: 5 | 6, takesOut: boolean): Promise<Recording> {
  const dir = tempDir(t);
  const image = makeImage(dir, [{ name: 'big', data: DATA }], { version, compressor: 'zstd' });
  const workDir = join(dir, 'cache');
  const instance = await open(image, workDir);
  const cache = instance.cacheOf(0);
  assert.ok(cache?.data !== undefined);
  const { map, data } = cache;
  const path = join(workDir, `${image.blobId}.blob.data.chunk_map`);
  // it was made and flushed when the cache was opened
  const steps: Step[] = [{ kind: 'map synced', bytes: readFileSync(path) }];
  const seen = new Set<number>();
  const metaPath = join(workDir, `${image.blobId}.blob.meta`);
  let meta = false;
  const look = (): void => {
    if (!meta && existsSync(metaPath)) {
      meta = true;
      steps.push({ kind: 'meta', bytes: readFileSync(metaPath) });
    }
    for (let chunk = 0; chunk < map.count; chunk++) {
      if (!map.isReady(chunk) || seen.has(chunk)) continue;
      seen.add(chunk);
      steps.push({ kind: 'written', chunk });
    }
    const bytes = readFileSync(path);
    const last = steps.findLast((step) => step.kind === 'map');
    if (last === undefined || !last.bytes.equals(bytes)) steps.push({ kind: 'map', bytes });
  };
  // the objects are the real ones; their calls are written down on the way
  const [flush, publish, sync] = [data.flush.bind(data), map.publish.bind(map), map.sync.bind(map)];
  const forget = map.forget.bind(map);
  map.forget = (chunk) => {
    look();
    steps.push({ kind: 'withdrawn', chunk });
    seen.delete(chunk);
    forget(chunk);
    look();
  };
  data.flush = async () => {
    look();
    steps.push({ kind: 'flush starts' });
    await flush();
    look();
    steps.push({ kind: 'flush ends' });
  };
  map.publish = (chunks) => {
    look();
    publish(chunks);
    look();
  };
  map.sync = () => {
    look();
    sync();
    steps.push({ kind: 'map synced', bytes: readFileSync(path) });
  };
  const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
  const target = Buffer.alloc(100);
  for (let i = 0; i < image.chunks.length; i++) {
    await instance.read(ino, ((i * 23) % image.chunks.length) * CHUNK, 100, target);
    look();
    if (i % 3 === 0) await new Promise((resolve) => void setTimeout(resolve, 3));
    look();
    if (takesOut && i % 12 === 11 && (await cache.giveBack(5 * CHUNK)) > 0) steps.push({ kind: 'punched' });
    look();
  }
  // the last that happens before the note says "closed"
  if (takesOut && (await cache.giveBack(3 * CHUNK)) > 0) steps.push({ kind: 'punched' });
  await instance.close();
  // what close wrote last: the note
  steps.push({ kind: 'map', bytes: readFileSync(path) });
  return { image, workDir, steps };
}

/** What may be on the disk after the first steps. */
interface Cut {
  /** data that is there for certain, and data that may be */
  durable: Set<number>;
  written: Set<number>;
  /** data whose bits may still be on the disk while its blocks are not */
  leaving: Set<number>;
  /** each page of the map is as in one of these */
  maps: Buffer[];
  /** `.blob.meta`, where it may be on the disk */
  meta: Buffer | undefined;
}

function* cuts(steps: readonly Step[]): Generator<Cut> {
  const [durable, written, leaving] = [new Set<number>(), new Set<number>(), new Set<number>()];
  let meta: Buffer | undefined;
  let flushing: number[] = [];
  let maps: Buffer[] = [];
  for (const step of steps) {
    if (step.kind === 'written') written.add(step.chunk);
    else if (step.kind === 'flush starts') flushing = [...written];
    else if (step.kind === 'flush ends') {
      for (const chunk of flushing.filter((one) => written.has(one))) {
        durable.add(chunk);
        leaving.delete(chunk);
      }
    } else if (step.kind === 'withdrawn') {
      durable.delete(step.chunk);
      written.delete(step.chunk);
      leaving.add(step.chunk);
    } else if (step.kind === 'meta') meta = step.bytes;
    else if (step.kind === 'punched') {
      // the blocks may have gone with the first of the bits
    } else if (step.kind === 'map') maps = [...maps, step.bytes];
    else maps = [step.bytes];
    yield { durable, written, leaving, maps, meta };
  }
}

/** The data file as it is when every chunk is there. */
function wholeFile({ chunks }: MadeImage): Buffer {
  const end = Math.max(...chunks.map(({ plainOffset, plainSize }) => plainOffset + plainSize));
  const file = Buffer.alloc(end);
  chunks.forEach(({ plainOffset, plainSize }, at) => {
    DATA.copy(file, plainOffset, at * CHUNK, at * CHUNK + plainSize);
  });
  return file;
}

function metaFileOf(dir: string, { blobId }: MadeImage): Buffer | undefined {
  const path = join(dir, `${blobId}.blob.meta`);
  return existsSync(path) ? readFileSync(path) : undefined;
}

/** The table as it may be: not there, there, with a page that never came, or half of it under the name it is written with. */
function loseMeta(base: string, meta: Buffer | undefined, chance: () => number): void {
  rmSync(`${base}.blob.meta`, { force: true });
  if (meta === undefined) return;
  const half = meta.subarray(0, Math.floor(chance() * meta.length));
  const kind = Math.floor(chance() * 4);
  if (kind === 0) writeFileSync(`${base}.blob.meta.4711.tmp`, half);
  else if (kind === 1) writeFileSync(`${base}.blob.meta`, meta);
  else if (kind === 2) {
    const torn = Buffer.from(meta);
    const at = Math.floor(chance() * Math.ceil(meta.length / PAGE)) * PAGE;
    torn.fill(chance() < 0.5 ? 0 : 0xa5, at, Math.min(at + PAGE, meta.length));
    writeFileSync(`${base}.blob.meta`, torn);
  } else writeFileSync(`${base}.blob.meta`, half);
}

for (const [version, takesOut] of [
  [5, false],
  [6, false],
  [5, true],
  [6, true],
] as const) {
  const what = takesOut ? 'cache that gives chunks back' : 'cache';
  test(`v${version} ${what}: at every point of the recorded order a bit on the disk has its data on the disk`, async (t) => {
    const { image, steps } = await record(t, version, takesOut);
    const count = image.chunks.length;
    let [points, bits] = [0, 0];
    for (const { durable, leaving, maps } of cuts(steps)) {
      points++;
      // a map that may have too much says that it is in use: none of it is believed after a restart
      const isNoted = maps.every((map) => map.readUInt32LE(STATE) === IN_USE);
      for (const map of maps)
        for (const chunk of bitsOf(map, count)) {
          bits++;
          assert.ok(
            durable.has(chunk) || (leaving.has(chunk) && isNoted),
            `chunk ${chunk} at step ${points}`,
          );
        }
    }
    const flushes = steps.filter(({ kind }) => kind === 'flush ends').length;
    t.diagnostic(`${points} points, ${flushes} flushes, ${bits} bits`);
    assert.ok(flushes >= 3, `${flushes} flushes`);
    assert.ok(bits > count);
    assert.equal(
      steps.some(({ kind }) => kind === 'punched'),
      takesOut,
    );
    assert.equal(
      steps.some(({ kind }) => kind === 'meta'),
      version === 6,
    );
  });

  test(`v${version} ${what}: what a power failure leaves is served right, whichever writes it took`, async (t) => {
    const { image, workDir, steps } = await record(t, version, takesOut);
    const whole = wholeFile(image);
    const all = [...cuts(steps)].map(({ durable, written, leaving, ...rest }) => ({
      durable: new Set(durable),
      written: new Set(written),
      leaving: new Set(leaving),
      ...rest,
    }));
    let random = version;
    const chance = (): number => (random = (Math.imul(random, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    const every = Math.max(1, Math.floor(all.length / Number(process.env['NYDUS_POWER_CUTS'] ?? 16)));
    for (let at = 0; at < all.length; at += every) {
      const cut = all[at];
      assert.ok(cut !== undefined);
      const left = join(tempDir(t), 'cache');
      mkdirSync(left);
      cpSync(workDir, left, { recursive: true });
      const base = join(left, image.blobId);
      const data = Buffer.from(whole);
      image.chunks.forEach(({ plainOffset, plainSize }, chunk) => {
        if (cut.durable.has(chunk)) return;
        // not written, lost, old bytes of the disk, or torn
        const maybe = cut.written.has(chunk) || cut.leaving.has(chunk);
        const kept = maybe ? Math.floor(chance() * 2) * plainSize : 0;
        const torn = cut.written.has(chunk) && chance() < 0.5 ? Math.floor(chance() * plainSize) : kept;
        data.fill(chance() < 0.5 ? 0 : 0xa5, plainOffset + torn, plainOffset + plainSize);
      });
      writeFileSync(`${base}.blob.data`, data);
      // header and bits are different pages: each from a moment of its own
      const pick = (): Buffer => cut.maps[Math.floor(chance() * cut.maps.length)] ?? Buffer.alloc(0);
      const map = Buffer.from(pick());
      pick().copy(map, HEADER, HEADER);
      // the machine has started again
      map.writeUInt8((map.readUInt8(BOOT_ID) + 1) & 0xff, BOOT_ID);
      writeFileSync(`${base}.blob.data.chunk_map`, map);
      loseMeta(base, cut.meta, chance);
      const instance = await open(image, left);
      assert.ok((await readWhole(instance, '/big')).equals(DATA), `cut ${at}`);
      const table = metaFileOf(workDir, image);
      if (table !== undefined)
        assert.ok(readFileSync(`${base}.blob.meta`).equals(table), `table at cut ${at}`);
      await instance.close();
    }
    t.diagnostic(`${all.length} points`);
  });
}
