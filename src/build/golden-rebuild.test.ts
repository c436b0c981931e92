// Every golden case that is one `create` is built again from its input and compared with upstream's bytes.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import {
  goldenCases,
  goldenIsComplete,
  goldenPath,
  prepareDirInput,
  prepareTarInput,
  tempDir,
} from '../../test/support/golden.ts';
import { openImage } from '../format/detect.ts';
import type { TreeNode } from '../tree/node.ts';
import { createImage } from './create.ts';
import { loadImage } from './load-image.ts';
import { createCommands, inputName, optionsOf, quietContext } from './testing/golden-command.ts';
import { blobFacts, embeddedBootstrap, normalBootstrap } from './testing/normal-form.ts';

/** Not of this part: other conversion types, encryption, cases about other commands, and multi-step cases. */
const ELSEWHERE =
  /^(targz-ref|tar-ref|tarfs|estargz|external|export|unpack|compact|optimize|chunkdict|blobcachedir-zmix|rejected|layers|parent|merge)|encrypt/;
/** Upstream's order of several xattrs is random: content is compared, not bytes. */
const RANDOM_ORDER = /^xattr-/;

interface CaseFile {
  files: Record<string, { size: number; sha256: string }>;
}

const inputs = new Map<string, string>();
let inputDir: string | undefined;

/** Where an input lies in the golden data; undefined when it is not in the part that is here. */
function storedInput(source: string): string | undefined {
  const { kind, name } = inputName(source);
  if (kind === 'gz') return goldenPath('input', 'gz', name);
  return goldenPath('input', `${basename(name, '.tar')}.tar.gz`);
}

/** Path of an input, prepared once. */
function inputPath(source: string): string {
  const { kind, name } = inputName(source);
  const key = `${kind}-${name}`;
  const known = inputs.get(key);
  if (known !== undefined) return known;
  const stored = storedInput(source);
  assert.ok(stored !== undefined, `golden input ${source} is there`);
  if (kind === 'gz') return stored;
  const tree = basename(name, '.tar');
  inputDir ??= tempDir();
  const path = join(inputDir, key);
  if (kind === 'dir') prepareDirInput(tree, path);
  else prepareTarInput(tree, path);
  inputs.set(key, path);
  return path;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A tree as text lines, xattrs sorted, stored sizes and offsets left out. */
function treeLines(bootstrap: Uint8Array): string[] {
  const lines: string[] = [];
  const visit = (node: TreeNode, path: string): void => {
    const xattrs = [...(node.xattrs ?? [])]
      .map(([name, value]) => `${name}=${value.toString('hex')}`)
      .toSorted();
    const chunks = node.chunks.map(
      (chunk) =>
        `${Buffer.from(chunk.digest).toString('hex')}@${chunk.fileOffset}:${chunk.uncompressedOffset}`,
    );
    const { mode, uid, gid, mtime, mtimeNsec, size } = node;
    lines.push(
      [path, mode, uid, gid, mtime, mtimeNsec, size, node.target?.toString('hex'), ...xattrs, ...chunks].join(
        ' ',
      ),
    );
    for (const child of node.children ?? []) visit(child, `${path}/${child.name.toString('latin1')}`);
  };
  visit(loadImage(openImage(bootstrap), 0).root, '');
  return lines;
}

/** The one blob in a directory, without the bootstrap that may lie beside it. */
function blobIn(dir: string, except: string): Buffer | undefined {
  if (!existsSync(dir)) return undefined;
  const names = readdirSync(dir).filter(
    (name) => name !== except && !name.endsWith('.external') && !name.includes('.blob.'),
  );
  assert.ok(names.length <= 1, `one blob in ${dir}: ${names.join(' ')}`);
  return names[0] === undefined ? undefined : readFileSync(join(dir, names[0]));
}

/** Bytes of every file that the case lists, as they are compared when nothing was compressed. */
function compareExactly(caseDir: string, work: string): void {
  const { files } = JSON.parse(readFileSync(join(caseDir, 'case.json'), 'utf8')) as CaseFile;
  let compared = 0;
  for (const [name, golden] of Object.entries(files)) {
    // upstream leaves an `.external` bootstrap without content; reports are other commands' output
    if (/\.json$|\.txt$|\.gz$|\.external$/.test(name)) continue;
    const ours = readFileSync(join(work, name));
    assert.equal(ours.length, golden.size, `size of ${name}`);
    assert.equal(sha256(ours), golden.sha256, `bytes of ${name}`);
    compared++;
  }
  assert.ok(compared > 0, 'something was compared');
}

function compareNormalForms(
  caseDir: string,
  work: string,
  options: { inline: boolean; xattrs: boolean; beside: string },
): void {
  const ours = blobIn(join(work, 'blobs'), options.beside);
  const golden = blobIn(join(caseDir, 'blobs'), options.beside);
  let ourBoot: Uint8Array | undefined;
  let goldenBoot: Uint8Array | undefined;
  if (options.inline) {
    ourBoot = ours === undefined ? undefined : embeddedBootstrap(ours);
    goldenBoot = golden === undefined ? undefined : embeddedBootstrap(golden);
  } else {
    ourBoot = readFileSync(join(work, 'bootstrap'));
    goldenBoot = readFileSync(join(caseDir, 'bootstrap'));
  }
  assert.ok(ourBoot !== undefined && goldenBoot !== undefined, 'both have a bootstrap');
  if (options.xattrs) assert.deepEqual(treeLines(ourBoot), treeLines(goldenBoot));
  else
    assert.ok(
      normalBootstrap(ourBoot).equals(normalBootstrap(goldenBoot)),
      'bootstraps have equal normal forms',
    );
  assert.equal(ours === undefined, golden === undefined, 'both or none have a blob');
  if (ours !== undefined && golden !== undefined) {
    assert.deepEqual(blobFacts(ours, openImage(ourBoot)), blobFacts(golden, openImage(goldenBoot)));
  }
}

for (const name of goldenCases()) {
  const caseDir = goldenPath('cases', name);
  if (ELSEWHERE.test(name) || caseDir === undefined || !existsSync(join(caseDir, 'command.txt'))) continue;
  const commands = createCommands(caseDir);
  const command = commands[0];
  if (commands.length !== 1 || command === undefined) continue;
  const source = command.words.at(-1) ?? '';
  // test/golden has images whose inputs were too large to be chosen: they are there to be read
  if (!goldenIsComplete() && storedInput(source) === undefined) continue;
  test(`createImage: ${name} has the bytes of upstream`, async (t) => {
    const work = tempDir(t);
    for (const dir of ['blobs', 'cache']) mkdirSync(join(work, dir));
    const options = optionsOf(command.words, command.stdin, { work, input: () => inputPath(source) });
    const result = await createImage(options, quietContext());
    const golden = JSON.parse(readFileSync(join(caseDir, 'result.json'), 'utf8')) as {
      trace: { registered_events: Record<string, unknown> };
      blobs: string[];
    };
    const { euid: _euid, egid: _egid, ...events } = golden.trace.registered_events;
    const { euid: _ourEuid, egid: _ourEgid, ...ourEvents } = result.events;
    assert.deepEqual(ourEvents, events);
    assert.equal(result.blobs.length, golden.blobs.length);
    const exact =
      options.compressor === 'none' && !RANDOM_ORDER.test(name) && !(options.inlineMeta && options.blobToc);
    if (exact) {
      assert.deepEqual(result.blobs, golden.blobs);
      compareExactly(caseDir, work);
    } else if (options.bootstrap === undefined && !options.inlineMeta) {
      // the bootstrap lies in the blob directory under its own digest
      const boot = readFileSync(result.bootstrap);
      assert.equal(basename(result.bootstrap), sha256(boot));
      assert.equal(readFileSync(join(work, 'blobs', result.blobs[0] ?? '')).length, result.blobSize);
    } else if (options.blob !== undefined) {
      const ours = readFileSync(options.blob);
      const theirs = readFileSync(join(caseDir, basename(options.blob)));
      const ourBoot = readFileSync(join(work, 'bootstrap'));
      const theirBoot = readFileSync(join(caseDir, 'bootstrap'));
      assert.ok(normalBootstrap(ourBoot).equals(normalBootstrap(theirBoot)));
      assert.deepEqual(blobFacts(ours, openImage(ourBoot)), blobFacts(theirs, openImage(theirBoot)));
    } else {
      compareNormalForms(caseDir, work, {
        inline: options.inlineMeta,
        xattrs: RANDOM_ORDER.test(name),
        beside: '',
      });
    }
  });
}

test(
  'createImage: golden cases are there to compare with',
  { skip: goldenCases().length === 0 ? 'no golden data' : false },
  () => {
    assert.ok(goldenCases().some((name) => !ELSEWHERE.test(name)));
  },
);
