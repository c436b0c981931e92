// Golden images: every bootstrap reads as the manifest says, checks clean, and every byte of it is accounted for; damaged ones
// are refused where upstream refuses them. Source: golden/README.md sections 2, 3, 8.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { NydusError } from '../base/errors.ts';
import { openCi } from '../format/blobmeta/reader.ts';
import { CI_HEADER_SIZE, ciHeader } from '../format/blobmeta/layout.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { decompress } from '../codec/compress.ts';
import { viewOf } from '../base/bytes.ts';
import { openImage } from '../format/detect.ts';
import { BlobFeature, majorOf, minorOf } from '../format/flags.ts';
import { newAttr, newChunkRef, type RafsImage } from '../format/image.ts';
import { FileType6 } from '../format/rafs6/layout.ts';
import {
  goldenCases,
  goldenPath,
  percentEncode,
  readManifest,
  skipUnlessGolden,
  type ManifestEntry,
} from '../../test/support/golden.ts';
import { checkImage } from './check.ts';
import { blobSections } from './dump-blob.ts';
import { dumpBootstrap } from './dump.ts';
import { ciRange, loadDigestArray, loadInlineBootstrap } from './open-inline.ts';
import { resolvePath } from './path.ts';
import { walkTree } from './walk.ts';

/** Kinds that later issues bring; the tarfs tree has two symlinks that upstream mangles. */
const EXEMPT =
  /^(targz-ref-|tar-ref-|tarfs-|estargz|external-|export-|unpack-|compact-|optimize-|chunkdict-generate-)|-encrypt|^blobcachedir-zmix-targz-ref/;

const TYPE_NAMES: Record<string, number> = {
  file: FileType6.regular,
  dir: FileType6.directory,
  char: FileType6.char,
  block: FileType6.block,
  fifo: FileType6.fifo,
  socket: FileType6.socket,
  symlink: FileType6.symlink,
};

const cases = goldenCases().filter((name) => !EXEMPT.test(name));

/** Blobs of a case that are stored, by file name. */
function blobsOf(name: string): Map<string, Buffer> {
  const dir = goldenPath('cases', name, 'blobs');
  const files = dir === undefined ? [] : readdirSync(dir);
  return new Map(files.map((file) => [file, readFileSync(join(dir ?? '', file))]));
}

/** The image of a case: its bootstrap, or the one inside its blob. */
async function imageOf(name: string): Promise<RafsImage | undefined> {
  const path = goldenPath('cases', name, 'bootstrap');
  if (path !== undefined) return openImage(readFileSync(path));
  const description = JSON.parse(readFileSync(goldenPath('cases', name, 'case.json') ?? '', 'utf8')) as {
    blob_file?: string;
  };
  const blob = blobsOf(name).get(description.blob_file ?? '');
  if (blob === undefined) return undefined;
  return openImage((await loadInlineBootstrap(readerOf(blob), blob.length)).bytes);
}

function readerOf(bytes: Uint8Array): (start: number, end: number) => Promise<Uint8Array> {
  return (start, end) => Promise.resolve(bytes.subarray(start, end));
}

/** What an image shows of an entry, in the words of the manifest. */
function seen(
  image: RafsImage,
  entry: { ino: number; path: Buffer; fileType: number; depth: number },
  expected: ManifestEntry,
): object {
  const attr = newAttr();
  image.attr(entry.ino, attr);
  const device = entry.fileType === FileType6.char || entry.fileType === FileType6.block;
  const mounted = expected.mtime === 'mount';
  return {
    path: percentEncode(entry.path),
    type: entry.fileType,
    // FUSE mounts force the permissions of the root
    mode: entry.depth === 0 ? expected.mode : attr.mode,
    ino: attr.ino,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    size: attr.size,
    mtime: mounted && attr.mtime === 0 ? 'mount' : attr.mtime,
    mtimeNsec: mounted ? 0 : attr.mtimeNsec,
    rdev: device ? [majorOf(attr.rdev), minorOf(attr.rdev)] : undefined,
    target: entry.fileType === FileType6.symlink ? percentEncode(image.readlink(entry.ino)) : undefined,
    xattrs: [...image.xattrs(entry.ino)]
      .map(({ name, value }) => `${percentEncode(name)}=${Buffer.from(value).toString('hex')}`)
      .sort(),
  };
}

function wanted(entry: ManifestEntry): object {
  const device = entry.type === 'char' || entry.type === 'block';
  return {
    path: percentEncode(entry.path),
    type: TYPE_NAMES[entry.type],
    mode: entry.mode,
    ino: Number(entry.ino),
    nlink: entry.nlink,
    uid: entry.uid,
    gid: entry.gid,
    size: entry.size,
    mtime: entry.mtime,
    mtimeNsec: entry.mtime === 'mount' ? 0 : entry.mtimeNsec,
    rdev: device ? entry.rdev : undefined,
    target: entry.target === undefined ? undefined : percentEncode(entry.target),
    xattrs: [...entry.xattrs]
      .map(([name, value]) => `${percentEncode(Buffer.from(name, 'latin1'))}=${value.toString('hex')}`)
      .sort(),
  };
}

test('golden: every image shows the tree of its manifest', { skip: skipUnlessGolden('cases') }, async (t) => {
  let compared = 0;
  for (const name of cases) {
    const description = JSON.parse(readFileSync(goldenPath('cases', name, 'case.json') ?? '', 'utf8')) as {
      manifest?: string;
    };
    const manifest = description.manifest;
    if (manifest === undefined || goldenPath(manifest) === undefined) continue;
    const image = await imageOf(name);
    if (image === undefined) continue;
    compared++;
    await t.test(name, () => {
      const expected = readManifest(goldenPath(manifest) ?? '');
      const entries = [...walkTree(image)];
      assert.equal(entries.length, expected.length);
      const ref = newChunkRef();
      entries.forEach((entry, i) => {
        const row = expected[i];
        assert.ok(row !== undefined);
        assert.deepEqual(seen(image, entry, row), wanted(row));
        assert.equal(resolvePath(image, entry.path), entry.ino);
        if (entry.depth > 0) assert.equal(image.lookup(entry.parent, entry.name), entry.ino);
        if (entry.fileType === FileType6.directory) assert.equal(image.parentOf(entry.ino), entry.parent);
        if (entry.fileType !== FileType6.regular) return;
        let bytes = 0;
        for (let position = 0; position < image.chunkCount(entry.ino); position++) {
          image.chunk(entry.ino, position, ref);
          assert.equal(ref.fileOffset, bytes);
          bytes += ref.uncompressedSize;
        }
        assert.equal(bytes, row.size);
      });
    });
  }
  assert.ok(compared > 20, `${compared} images compared`);
});

test(
  'golden: every bootstrap checks clean, and a dump accounts for every byte',
  { skip: skipUnlessGolden('cases') },
  async () => {
    for (const name of cases) {
      const image = await imageOf(name);
      if (image === undefined) continue;
      const report = checkImage(image);
      assert.deepEqual(report.problems, [], name);
      const strange = [...dumpBootstrap(image)].filter((line) => /nothing points to|overlaps/.test(line));
      assert.deepEqual(strange, [], name);
    }
  },
);

test(
  'golden: compression information agrees with the chunk table, sections fill the blob',
  { skip: skipUnlessGolden('cases') },
  async () => {
    let tables = 0;
    for (const name of cases) {
      const image = await imageOf(name);
      if (image?.super.version !== 6) continue;
      const blobs = blobsOf(name);
      for (const blob of image.blobs) {
        const bytes = blobs.get(blob.id);
        const range = ciRange(blob);
        const special = BlobFeature.encrypted | BlobFeature.zran | BlobFeature.tarfs;
        if (bytes === undefined || range === undefined || (blob.features & special) !== 0) continue;
        tables++;
        let position = 0;
        for (const section of await blobSections(readerOf(bytes), bytes.length)) {
          assert.equal(section.start, position, name);
          position = section.end;
        }
        assert.equal(position, bytes.length, name);
        const section = bytes.subarray(range.start, range.end);
        const split = section.length - CI_HEADER_SIZE;
        const header = ciHeader.read(viewOf(section), split);
        const ci = openCi(
          decompress(blob.ciCompressor, section.subarray(0, split), blob.ciUncompressedSize),
          header,
          blob,
        );
        const digests = await loadDigestArray(readerOf(bytes), bytes.length, blob);
        assert.equal(ci.count, blob.chunkCount);
        for (let i = 0; i < ci.count; i++) {
          ci.check(i);
          assert.equal(ci.findUncompressed(ci.uncompressedOffset(i)), i);
          assert.equal(
            ci.compressedOffset(ci.findCompressed(ci.compressedOffset(i))),
            ci.compressedOffset(i),
          );
          const offset = image.chunkRecordOffset(blob.index, i);
          if (offset === 0) continue;
          const record = chunkRecord.read(viewOf(image.bytes), offset);
          assert.equal(ci.uncompressedOffset(i), record.uncompressedOffset);
          assert.equal(ci.uncompressedSize(i), record.uncompressedSize);
          if (digests !== undefined)
            assert.deepEqual(Buffer.from(digests.subarray(32 * i, 32 * i + 32)), Buffer.from(record.digest));
          if (ci.isBatch(i)) continue;
          assert.equal(ci.compressedOffset(i), record.compressedOffset);
          assert.equal(ci.compressedSize(i), record.compressedSize);
        }
      }
    }
    assert.ok(tables > 5, `${tables} tables compared`);
  },
);

interface Mutation {
  image: string;
  mutation: string;
  patched_file: string;
  patch: { set?: [number, string][]; length?: number; append?: string };
  check_exit: number | string;
}

function mutate(original: Buffer, patch: Mutation['patch']): Buffer {
  let bytes = Buffer.from(original);
  if (patch.length !== undefined) bytes = bytes.subarray(0, patch.length);
  if (patch.append !== undefined) bytes = Buffer.concat([bytes, Buffer.from(patch.append, 'hex')]);
  for (const [offset, hex] of patch.set ?? []) Buffer.from(hex, 'hex').copy(bytes, offset);
  return bytes;
}

test(
  'golden: damaged bootstraps are refused where upstream refuses them',
  { skip: skipUnlessGolden('negative', 'results.jsonl') },
  () => {
    const lines = readFileSync(goldenPath('negative', 'results.jsonl') ?? '', 'utf8')
      .trim()
      .split('\n');
    let tried = 0;
    for (const { image, mutation, patched_file, patch, check_exit } of lines.map(
      (line) => JSON.parse(line) as Mutation,
    )) {
      const path = goldenPath('negative', image, 'bootstrap');
      if (patched_file !== 'bootstrap' || path === undefined || !existsSync(path)) continue;
      tried++;
      let refused: string | undefined;
      try {
        const [problem] = checkImage(openImage(mutate(readFileSync(path), patch))).problems;
        refused = problem === undefined ? undefined : `${problem.place}: ${problem.problem}`;
      } catch (error) {
        assert.ok(error instanceof NydusError, `${image}, ${mutation}: ${String(error)}`);
        refused = error.message;
      }
      if (check_exit !== 0) assert.notEqual(refused, undefined, `${image}: ${mutation}`);
      if (mutation === 'unchanged') assert.equal(refused, undefined, image);
    }
    assert.ok(tried > 20, `${tried} damaged bootstraps`);
  },
);
