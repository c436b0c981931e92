// Golden layers, merges, parents, dictionaries and tar forms, rebuilt from their inputs and compared byte for byte.
// Where a codec of another version compresses differently, what follows from the compressed bytes is left out.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createHash } from 'node:crypto';
import { test, type TestContext } from 'node:test';
import {
  firstReason,
  goldenCases,
  goldenPath,
  prepareDirInput,
  prepareTarInput,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../../test/support/golden.ts';
import { messageOf, UsageError } from '../base/errors.ts';
import { viewOf } from '../base/bytes.ts';
import { decompress } from '../codec/compress.ts';
import { digestOf } from '../codec/digest.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { openImage } from '../format/detect.ts';
import { BlobFeature, ChunkFlag } from '../format/flags.ts';
import type { RafsImage } from '../format/image.ts';
import { extendedBlob5, superblock5 } from '../format/rafs5/layout.ts';
import {
  blobRecord6,
  DEVICE_SLOTS_OFFSET,
  deviceSlot6,
  EXTENDED_SUPER_OFFSET,
  extendedSuper6,
} from '../format/rafs6/layout.ts';
import { walkNumbering } from '../tree/children.ts';
import { createImage } from './create.ts';
import { loadImage } from './load-image.ts';
import { openMergeSource } from './merge-source.ts';
import { mergeImages } from './merge.ts';
import type { CreateOptions, MergeOptions, PrefetchPolicy } from './options.ts';
import { parsePrefetchList } from './prefetch-patterns.ts';
import { createCommands, inputName, optionsOf, quietContext } from './testing/golden-command.ts';

const OUTPUT_DIRS = ['blobs', 'lb', 'lb1', 'lb2', 'lb3', 'lb4'];

function caseDir(name: string): string {
  return goldenPath('cases', name) ?? '';
}

function selected(pattern: RegExp): string[] {
  return goldenCases().filter((name) => pattern.test(name) && !name.includes('encrypt'));
}

/** Makes the inputs that commands name, each once. */
function inputMaker(dir: string): (source: string) => string {
  return (source) => {
    const { kind, name } = inputName(source);
    const path = join(dir, `${kind}-${name}`);
    if (existsSync(path)) return path;
    if (kind === 'tar') prepareTarInput(name.replace(/\.tar$/, ''), path);
    else prepareDirInput(name, path);
    return path;
  };
}

function workDir(t: TestContext): string {
  const work = tempDir(t);
  for (const name of OUTPUT_DIRS) mkdirSync(join(work, name));
  return work;
}

/** What follows from compressed bytes in a v6 blob record; the rest must be equal. */
const CODEC_FIELDS6 = [
  'blobId',
  'compressedSize',
  'ciOffset',
  'ciCompressedSize',
  'ciCompressor',
  'tocDigest',
] as const;

/** Byte ranges of one bootstrap that follow from the compressed bytes of the given blobs. */
function codecRanges(bytes: Buffer, blobs: ReadonlySet<number>): [number, number][] {
  const view = viewOf(bytes);
  const ranges: [number, number][] = [];
  const add = (
    layout: { layout: readonly { name: string; offset: number; size: number }[] },
    base: number,
    names: readonly string[],
  ): void => {
    for (const field of layout.layout)
      if (names.includes(field.name)) ranges.push([base + field.offset, base + field.offset + field.size]);
  };
  const chunk = (at: number): void => {
    if (blobs.has(chunkRecord.field.blobIndex(view, at)))
      add(chunkRecord, at, ['flags', 'compressedSize', 'compressedOffset']);
  };
  const image = openImage(bytes);
  if (image.super.version === 5) {
    const head = superblock5.read(view, 0);
    ranges.push([head.blobTableOffset, head.blobTableOffset + head.blobTableSize]);
    for (const index of blobs)
      add(extendedBlob5, head.extendedBlobTableOffset + index * extendedBlob5.size, ['compressedSize']);
    for (const at of chunkRecords5(image)) chunk(at);
    return ranges;
  }
  const head = extendedSuper6.read(view, EXTENDED_SUPER_OFFSET);
  for (const index of blobs) {
    add(blobRecord6, head.blobTableOffset + index * blobRecord6.size, CODEC_FIELDS6);
    add(deviceSlot6, DEVICE_SLOTS_OFFSET + index * deviceSlot6.size, ['tag']);
  }
  for (
    let at = head.chunkTableOffset;
    at < head.chunkTableOffset + head.chunkTableSize;
    at += chunkRecord.size
  )
    chunk(at);
  return ranges;
}

function chunkRecords5(image: RafsImage): number[] {
  const found: number[] = [];
  walkNumbering(loadImage(image, 0).root, (node) => {
    // a digest is a view of its record
    for (const { digest } of node.chunks) found.push(digest.byteOffset - image.bytes.byteOffset);
  });
  return found;
}

/** Blobs whose rows differ: compressed by another codec version. */
function differingBlobs(ours: RafsImage, golden: RafsImage): Set<number> {
  const differing = new Set<number>();
  for (const blob of golden.blobs) {
    const mine = ours.blobs[blob.index];
    if (
      mine?.id !== blob.id ||
      mine.compressedSize !== blob.compressedSize ||
      mine.ciOffset !== blob.ciOffset
    )
      differing.add(blob.index);
  }
  return differing;
}

/** Equal byte for byte, except what the codec decides in blobs that another codec version compressed. */
function assertSameBootstrap(ours: Buffer, golden: Buffer, what: string): void {
  const differing = differingBlobs(openImage(ours), openImage(golden));
  const masked = [ours, golden].map((bytes) => {
    const copy = Buffer.from(bytes);
    for (const [start, end] of codecRanges(bytes, differing)) copy.fill(0, start, end);
    return copy;
  }) as [Buffer, Buffer];
  assert.equal(masked[0].length, masked[1].length, `${what}: length`);
  const at = masked[0].findIndex((byte, i) => byte !== masked[1][i]);
  assert.equal(at, -1, `${what}: first difference at byte 0x${at.toString(16)}`);
}

/** Every chunk that lies in a blob we have decodes to bytes of its digest. Returns how many were looked at. */
function verifyChunks(bootstrap: Buffer, blobOf: (id: string, index: number) => Buffer | undefined): number {
  const image = openImage(bootstrap);
  let verified = 0;
  walkNumbering(loadImage(image, 0).root, (node) => {
    for (const chunk of node.chunks) {
      const row = image.blobs[chunk.blobIndex];
      const blob = row === undefined ? undefined : blobOf(row.id, row.index);
      if (row === undefined || blob === undefined || (row.features & BlobFeature.batch) !== 0) continue;
      const stored = blob.subarray(chunk.compressedOffset, chunk.compressedOffset + chunk.compressedSize);
      const codec = (chunk.flags & ChunkFlag.compressed) === 0 ? 'none' : row.compressor;
      const plain = decompress(codec, stored, chunk.uncompressedSize);
      assert.deepEqual(
        digestOf(row.digester, plain),
        Buffer.from(chunk.digest),
        `chunk ${chunk.index} of blob ${row.index}`,
      );
      verified++;
    }
  });
  return verified;
}

function findOutput(work: string, id: string): string | undefined {
  return OUTPUT_DIRS.map((dir) => join(work, dir, id)).find((path) => existsSync(path));
}

/** `# renamed blobs/A to blobs/B`: where the golden file of a blob id is now. */
function goldenBlob(name: string, id: string): string | undefined {
  const text = readFileSync(join(caseDir(name), 'command.txt'), 'utf8');
  const renamed =
    new RegExp(`# renamed blobs/${id} to (blobs/[0-9a-f]{64})`).exec(text)?.[1] ?? `blobs/${id}`;
  const path = join(caseDir(name), renamed);
  return existsSync(path) ? path : undefined;
}

/** Name of the JSON result of a create command, beside the case. */
function goldenResult(name: string, words: readonly string[]): { blobs: string[] } {
  const file = words[words.indexOf('--output-json') + 1] ?? '';
  return JSON.parse(readFileSync(join(caseDir(name), file), 'utf8')) as { blobs: string[] };
}

/** Parents and dictionaries are the golden ones, so that a difference does not spread. */
function bringBases(name: string, options: CreateOptions): void {
  for (const path of [options.parentBootstrap, options.chunkDict]) {
    if (path !== undefined) copyFileSync(join(caseDir(name), basename(path)), path);
  }
}

async function compareCreate(
  name: string,
  words: readonly string[],
  options: CreateOptions,
  work: string,
): Promise<number> {
  bringBases(name, options);
  const result = await createImage(options, quietContext());
  const golden = goldenResult(name, words);
  assert.equal(result.blobs.length, golden.blobs.length, 'rows of the blob table');
  const ownId = result.blobs.find((id) => findOutput(work, id) !== undefined);
  const blob = ownId === undefined ? undefined : readFileSync(findOutput(work, ownId) as string);
  const blobOf = (id: string): Buffer | undefined =>
    id === ownId || id.startsWith('xxxx') ? blob : undefined;
  if (!options.inlineMeta) {
    const ours = readFileSync(options.bootstrap as string);
    assertSameBootstrap(
      ours,
      readFileSync(join(caseDir(name), basename(options.bootstrap as string))),
      basename(options.bootstrap as string),
    );
    return verifyChunks(ours, blobOf);
  }
  const ourBlob = findOutput(work, ownId as string) as string;
  const own = golden.blobs.map((id) => goldenBlob(name, id)).findLast((path) => path !== undefined) as string;
  const ours = Buffer.from((await openMergeSource(ourBlob)).image.bytes);
  assertSameBootstrap(ours, Buffer.from((await openMergeSource(own)).image.bytes), basename(ourBlob));
  return verifyChunks(ours, blobOf);
}

for (const name of selected(/^(layers-|parent-v.-up|single-|chunkdict-v)/)) {
  const directories = createCommands(caseDir(name)).some(({ words }) => !words.includes('tar-rafs'));
  test(
    `createImage: layers of golden ${name} are the same`,
    { skip: directories ? requireRoot() : false },
    async (t) => {
      const work = workDir(t);
      const input = inputMaker(tempDir(t));
      let verified = 0;
      for (const { words, stdin } of createCommands(caseDir(name))) {
        verified += await compareCreate(name, words, optionsOf(words, stdin, { work, input }), work);
      }
      if (!name.endsWith('-batch')) assert.ok(verified > 0, 'some chunks were verified');
    },
  );
}

interface MergeCommand {
  options: MergeOptions;
  /** name of the output in the case */
  output: string;
}

/** The merge commands of a case, reading golden sources and writing into `work`. */
function mergeCommands(name: string, work: string): MergeCommand[] {
  const dir = caseDir(name);
  const lines = readFileSync(join(dir, 'command.txt'), 'utf8').split('\n');
  const locate = (path: string): string => {
    const place = [join(work, path), join(dir, path), join(dir, 'extracted', path)].find((candidate) =>
      existsSync(candidate),
    );
    return place ?? path;
  };
  for (const line of lines) {
    const copied = /^# copied (\S+) to (\S+)$/.exec(line);
    if (copied !== null)
      writeFileSync(join(work, copied[2] as string), readFileSync(join(dir, copied[1] as string)));
  }
  return lines.flatMap((line, i) => {
    if (!line.startsWith('$ nydus-image merge ')) return [];
    const values = new Map<string, string>();
    const sources: string[] = [];
    const words = line.split(' ').slice(3);
    for (let at = 0; at < words.length; at++) {
      const word = words[at] as string;
      if (word.startsWith('--')) values.set(word.slice(2), words[++at] as string);
      else sources.push(locate(word));
    }
    const list = (key: string): string[] | undefined => values.get(key)?.split(',');
    const stdin = /^# stdin: (.*)$/.exec(lines[i + 1] ?? '')?.[1];
    const parent = values.get('parent-bootstrap');
    const dictionary = values.get('chunk-dict');
    const output = values.get('bootstrap');
    const options: MergeOptions = {
      sources,
      bootstrap: output === undefined ? undefined : join(work, output),
      blobDir: undefined,
      parentBootstrap: parent === undefined ? undefined : locate(parent),
      chunkDict: dictionary?.replace(
        /^(bootstrap=)(.*)$/,
        (_, type: string, path: string) => type + locate(path),
      ),
      prefetchPolicy: (values.get('prefetch-policy') ?? 'none') as PrefetchPolicy,
      prefetchPatterns: parsePrefetchList(stdin === undefined ? '' : (JSON.parse(stdin) as string), () => {}),
      blobDigests: list('blob-digests'),
      originalBlobIds: list('original-blob-ids'),
      blobSizes: list('blob-sizes')?.map(Number),
      blobTocDigests: list('blob-toc-digests'),
      blobTocSizes: list('blob-toc-sizes')?.map(Number),
      trustIds: false,
    };
    return [{ options, output: output ?? '' }];
  });
}

// Merges only copy what the layers say, so the encrypted one is in reach too.
for (const name of goldenCases().filter((name) => /^(layers-|chunkdict-v.*-merge)/.test(name))) {
  test(`mergeImages: golden ${name} is equal byte for byte`, async (t) => {
    const work = workDir(t);
    const commands = mergeCommands(name, work);
    assert.ok(commands.length > 0);
    for (const { options, output } of commands) {
      const result = await mergeImages(options, quietContext());
      const golden = readFileSync(join(caseDir(name), output));
      assert.ok(readFileSync(result.bootstrap).equals(golden), `${output} differs`);
      const json = output === 'bootstrap' ? 'merge.json' : output.replace(/\.boot$/, '.json');
      const told = JSON.parse(readFileSync(join(caseDir(name), json), 'utf8')) as Record<string, unknown>;
      assert.deepEqual(
        { blobs: result.blobs, version: String(result.version), compressor: result.compressor },
        { blobs: told['blobs'], version: told['fs_version'], compressor: told['compressor'] },
      );
    }
  });
}

for (const version of [5, 6] as const) {
  const name = `layers-v${version}-merge-inline`;
  test(
    `mergeImages: layers built here merge to golden ${name}`,
    { skip: skipUnlessGolden('cases', name) },
    async (t) => {
      const work = workDir(t);
      const input = inputMaker(tempDir(t));
      const sources: string[] = [];
      for (const { words, stdin } of createCommands(caseDir(name))) {
        const result = await createImage(optionsOf(words, stdin, { work, input }), quietContext());
        sources.push(findOutput(work, result.blobs[0] as string) as string);
      }
      const [command] = mergeCommands(name, work);
      const result = await mergeImages({ ...(command as MergeCommand).options, sources }, quietContext());
      const bytes = readFileSync(result.bootstrap);
      assertSameBootstrap(bytes, readFileSync(join(caseDir(name), 'bootstrap')), 'bootstrap');
      const verified = verifyChunks(bytes, (id) => {
        const path = findOutput(work, id);
        return path === undefined ? undefined : readFileSync(path);
      });
      assert.ok(verified > 0);
    },
  );

  test(
    `createImage: a tar over a parent points into the right blobs (v${version}, wrong upstream)`,
    { skip: skipUnlessGolden('input') },
    async (t) => {
      const work = workDir(t);
      const input = inputMaker(tempDir(t));
      const [base, upper] = createCommands(caseDir(`parent-v${version}-tar-layer2`)).map(({ words, stdin }) =>
        optionsOf(words, stdin, { work, input }),
      ) as [CreateOptions, CreateOptions];
      await createImage(base, quietContext());
      const result = await createImage(upper, quietContext());
      const blobs = new Map(
        readdirSync(join(work, 'blobs')).map((id) => [id, readFileSync(join(work, 'blobs', id))]),
      );
      assert.deepEqual(result.blobs.length, 2);
      const used = new Set<string>();
      verifyChunks(readFileSync(result.bootstrap), (id) => {
        used.add(id);
        return blobs.get(id);
      });
      assert.deepEqual(used, new Set(result.blobs));
    },
  );
}

/** Messages of an error and its causes. */
function chain(error: unknown): string {
  const messages: string[] = [];
  for (let at: unknown = error; at !== undefined; at = at instanceof Error ? at.cause : undefined)
    messages.push(messageOf(at));
  return messages.join('\n');
}

/** What upstream printed after `Error: `, `message:` or below `Caused by:`. */
function upstreamTexts(stderr: readonly string[]): string[] {
  return stderr
    .filter((line) => !/^(Error: build failed|Caused by:|)$/.test(line.trim()))
    .map((line) =>
      line
        .replace(/^.*message:/, '')
        .replace(/^Error: /, '')
        .trim(),
    );
}

test(
  'mergeImages: mistakes give upstream texts and exit statuses',
  { skip: skipUnlessGolden('cases', 'merge-errors') },
  async (t) => {
    const name = 'merge-errors';
    const work = workDir(t);
    const input = inputMaker(tempDir(t));
    const lines = readFileSync(join(caseDir(name), 'command.txt'), 'utf8').split('\n');
    for (const { words, stdin } of createCommands(caseDir(name)).slice(0, 6)) {
      await createImage(optionsOf(words, stdin, { work, input }), quietContext());
    }
    const commands = mergeCommands(name, work);
    const starts = lines.flatMap((line, i) => (line.startsWith('$ nydus-image merge ') ? [i] : []));
    // what the command line itself refuses: a list of no numbers, and no source at all
    const parsed = [/--blob-sizes x$/, /--bootstrap out$/];
    let compared = 0;
    for (const [k, start] of starts.entries()) {
      const line = lines[start] as string;
      if (parsed.some((pattern) => pattern.test(line))) continue;
      const status = Number(/^# exit status (-?\d+)$/.exec(lines[start + 1] ?? '')?.[1] ?? 0);
      const stderr: string[] = [];
      for (let i = start + 2; lines[i]?.startsWith('# stderr: ') === true; i++)
        stderr.push((lines[i] as string).slice('# stderr: '.length));
      const { options } = commands[k] as MergeCommand;
      const given = options.sources as readonly string[];
      options.sources = given.map((path) => (path.startsWith('$WORK') ? input(path) : path));
      compared++;
      if (status === 0) {
        await mergeImages(options, quietContext());
        continue;
      }
      await assert.rejects(mergeImages(options, quietContext()), (error) => {
        for (const text of upstreamTexts(stderr))
          assert.ok(chain(error).includes(text), `${line}: "${text}" in "${chain(error)}"`);
        assert.equal(error instanceof UsageError ? error.exitCode : 1, status, line);
        return true;
      });
    }
    assert.equal(compared, starts.length - parsed.length);
  },
);

/** Tar forms on which we differ on purpose. `accept`: upstream refuses; `other`: upstream's own result cannot be read. */
const TAR_DIFFERENCES: Record<string, { version?: 5 | 6; how: 'accept' | 'refuse' | 'other'; why: string }> =
  {
    'dir-then-file': {
      version: 5,
      how: 'accept',
      why: 'upstream v5 writes a record of inode 0 and fails on it',
    },
    'fifo-nul-device-fields': { how: 'accept', why: 'GNU tar writes fifos this way' },
    'gnutar-gnu': { how: 'accept', why: 'the default format of GNU tar' },
    'gnutar-oldgnu': { how: 'accept', why: 'the same' },
    'pax-global': { how: 'accept', why: 'git archive writes one' },
    'pax-newline-in-path': { how: 'accept', why: 'lengths, not newlines, end pax records' },
    'pax-newline-in-xattr': { how: 'accept', why: 'the same' },
    'typeflag-7-contiguous': { how: 'accept', why: 'POSIX: to be treated as a regular file' },
    'hardlink-chain': {
      version: 5,
      how: 'other',
      why: 'upstream copies xattrs to a link without the flag (rafs-metadata 3.8)',
    },
    'pax-xattr-on-hardlink': { version: 5, how: 'other', why: 'upstream sets the flag without a table' },
    'symlink-5000': {
      version: 6,
      how: 'refuse',
      why: 'no v6 reader takes a target longer than 4096 bytes (rafs-metadata 5.8)',
    },
  };

interface TarResult {
  exit: number;
  bootstrap_sha256: string;
  blobs: string[];
}

const resultsFile = goldenPath('tarforms', 'results.jsonl');
const forms =
  resultsFile === undefined
    ? []
    : readFileSync(resultsFile, 'utf8')
        .split('\n')
        .filter((line) => line !== '');
for (const line of forms) {
  const form = JSON.parse(line) as { name: string } & Record<string, TarResult>;
  for (const version of [6, 5] as const) {
    const golden = form[`tar-rafs-v${version}`] as TarResult;
    const listed = TAR_DIFFERENCES[form.name];
    const difference = listed !== undefined && (listed.version ?? version) === version ? listed : undefined;
    const expected = difference?.how ?? (golden.exit === 0 ? 'same' : 'refuse');
    test(
      `createImage: tar form ${form.name} v${version}: ${expected}`,
      { skip: firstReason(skipUnlessGolden('tarforms')) },
      async (t) => {
        const work = workDir(t);
        const words =
          `--type tar-rafs --fs-version ${version} --chunk-size 0x10000 --bootstrap out.boot --blob-dir blobs x`.split(
            ' ',
          );
        const options = optionsOf(words, undefined, {
          work,
          input: () => goldenPath('tarforms', `${form.name}.tar`) ?? '',
        });
        if (expected === 'refuse') {
          await assert.rejects(createImage(options, quietContext()), { code: /^ERR_NYDUS_(FORMAT|USAGE)$/ });
          assert.deepEqual(
            [readdirSync(join(work, 'blobs')), existsSync(join(work, 'out.boot'))],
            [[], false],
          );
          return;
        }
        const result = await createImage(options, quietContext());
        const bytes = readFileSync(result.bootstrap);
        if (expected === 'same')
          assert.equal(createHash('sha256').update(bytes).digest('hex'), golden.bootstrap_sha256);
        else assert.ok(loadImage(openImage(bytes), 0).root.children !== undefined);
        if (golden.exit === 0) assert.deepEqual(result.blobs, golden.blobs);
      },
    );
  }
}
