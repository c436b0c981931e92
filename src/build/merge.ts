// Layer bootstraps -> the bootstrap of the whole image. Source: rafs-metadata.md 6.4, nydus-image-and-nydusify.md 3.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { UsageError } from '../base/errors.ts';
import { MAX_BLOB_COMPRESSED, MAX_LAYERS, MAX_TOC_SIZE } from '../base/limits.ts';
import { BlobFeature, SuperFlag } from '../format/flags.ts';
import type { RafsImage } from '../format/image.ts';
import { walkNumbering } from '../tree/children.ts';
import type { TreeBlob, TreeNode } from '../tree/node.ts';
import { writeWholeFile } from './blob-output.ts';
import { writeBootstrap } from './bootstrap.ts';
import { openDictionary, parseChunkDictArgument } from './chunk-dict.ts';
import { checkCompatible } from './compatibility.ts';
import { blobIdOfFile, digestBytes, importBlob } from './import-blob.ts';
import { loadBlobs, loadImage } from './load-image.ts';
import { resolveLowerLinks } from './lower-links.ts';
import { openMergeSource, type MergeSource } from './merge-source.ts';
import type { BuildContext, BuildResult, MergeOptions } from './options.ts';
import { overlay } from './overlay.ts';

/** What the lists say about the own blob of one source; undefined = not given. */
interface Corrections {
  digest: string | undefined;
  originalId: string | undefined;
  size: number | undefined;
  tocDigest: Buffer | undefined;
  tocSize: number | undefined;
}

/** The working state: one blob table for all layers, by id. */
interface Working {
  blobs: TreeBlob[];
  byId: Map<string, number>;
  tree: TreeNode | undefined;
}

function fail(message: string): never {
  throw new UsageError(message, { exitCode: 1 });
}

function checkLists(options: MergeOptions): void {
  const count = options.sources.length;
  const lists: [string, readonly unknown[] | undefined][] = [
    ['blob digest', options.blobDigests],
    ['original blob id', options.originalBlobIds],
    ['blob size', options.blobSizes],
    ['toc digest', options.blobTocDigests],
    ['toc size', options.blobTocSizes],
  ];
  for (const [name, list] of lists) {
    if (list !== undefined && list.length !== count) {
      fail(`number of ${name} entries ${list.length} doesn't match number of sources ${count}`);
    }
  }
  if (count > MAX_LAYERS) fail(`too many layers ${count} to merge`);
  if (options.bootstrap === undefined && options.blobDir === undefined) {
    fail(
      'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
    );
  }
}

/** 64 hex digits of a list, in upstream's words when they are none. */
function hexDigest(text: string): Buffer {
  const digest = digestBytes(text);
  if (digest !== undefined) return digest;
  if (text.length !== 64)
    fail(`Invalid string length: digest "${text}" has ${text.length} digits, 64 are needed`);
  return fail(`Invalid character in digest "${text}"`);
}

function checkNumber(name: string, value: number | undefined, limit: number): void {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value <= limit)) return;
  fail(`invalid number in ${name} option: ${value}, limit ${limit}`);
}

function correctionsOf(options: MergeOptions, position: number): Corrections {
  const digest = options.blobDigests?.[position];
  const tocDigest = options.blobTocDigests?.[position];
  if (digest !== undefined) hexDigest(digest);
  checkNumber('--blob-sizes', options.blobSizes?.[position], MAX_BLOB_COMPRESSED);
  checkNumber('--blob-toc-sizes', options.blobTocSizes?.[position], MAX_TOC_SIZE);
  return {
    digest,
    originalId: options.originalBlobIds?.[position],
    size: options.blobSizes?.[position],
    tocDigest: tocDigest === undefined ? undefined : hexDigest(tocDigest),
    tocSize: options.blobTocSizes?.[position],
  };
}

/** The own blob of a source, with its id and sizes as they are known outside of the bootstrap (nydus-image 3.2). */
function correctOwnBlob(blob: TreeBlob, path: string, corrections: Corrections, trustIds: boolean): TreeBlob {
  const row = { ...blob };
  const separate = (row.features & BlobFeature.separate) !== 0;
  if (!trustIds) row.id = corrections.originalId ?? blobIdOfFile(path);
  if (corrections.digest !== undefined) {
    if (separate) row.metaDigest = hexDigest(corrections.digest);
    else row.id = corrections.digest;
  }
  if (corrections.size !== undefined) {
    if (separate) {
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(corrections.size));
      row.metaSize = size;
    } else {
      row.compressedSize = corrections.size;
    }
  }
  if (corrections.tocDigest !== undefined) row.tocDigest = corrections.tocDigest;
  if (corrections.tocSize !== undefined) row.tocSize = corrections.tocSize;
  return row;
}

function hex(value: number): string {
  return value.toString(16);
}

/** Row of a blob in the working table; appended when its id is new. */
function workingIndex(working: Working, blob: TreeBlob, path: string): number {
  const known = working.byId.get(blob.id);
  if (known !== undefined) return known;
  const expected = working.blobs[0]?.chunkSize;
  if (expected !== undefined && expected !== blob.chunkSize) {
    fail(
      `can not merge bootstraps with inconsistent chunk size, current bootstrap "${path}" with chunk size ${hex(blob.chunkSize)}, expected ${hex(expected)}`,
    );
  }
  working.byId.set(blob.id, working.blobs.length);
  working.blobs.push(blob);
  return working.blobs.length - 1;
}

function renumber(root: TreeNode, map: readonly number[]): void {
  walkNumbering(root, (node) => {
    for (const chunk of node.chunks) chunk.blobIndex = map[chunk.blobIndex] as number;
  });
}

interface Place {
  /** position among the sources */
  position: number;
  /** layer number for hard-link identity; the parent has 0 */
  layer: number;
}

function addLayer(
  working: Working,
  source: MergeSource,
  place: Place,
  dictionary: ReadonlySet<string>,
  options: MergeOptions,
): void {
  const { image, path } = source;
  const trustIds = options.trustIds || (image.super.flags & SuperFlag.tarfsMode) !== 0;
  const { root, blobs } = loadImage(image, place.layer);
  let own = 0;
  const map = blobs.map((stored) => {
    const blob = importBlob(stored, path);
    if (dictionary.has(blob.id)) return workingIndex(working, blob, path);
    own++;
    if (own > 1) fail('invalid per layer bootstrap, having multiple associated data blobs');
    return workingIndex(
      working,
      correctOwnBlob(blob, path, correctionsOf(options, place.position), trustIds),
      path,
    );
  });
  renumber(root, map);
  resolveLowerLinks(root, working.tree);
  working.tree = working.tree === undefined ? root : overlay(working.tree, root, 'oci');
}

/** Blobs in the order in which a walk of the final tree meets them; those it does not meet are dropped (rafs-metadata 6.4). */
export function pruneBlobs(root: TreeNode, blobs: readonly TreeBlob[]): TreeBlob[] {
  const kept: TreeBlob[] = [];
  const map = new Int32Array(blobs.length).fill(-1);
  walkNumbering(root, (node) => {
    for (const chunk of node.chunks) {
      let index = map[chunk.blobIndex] as number;
      if (index < 0) {
        index = kept.length;
        map[chunk.blobIndex] = index;
        kept.push(blobs[chunk.blobIndex] as TreeBlob);
      }
      chunk.blobIndex = index;
    }
  });
  return kept;
}

function checkTarfs(image: RafsImage, options: MergeOptions): void {
  if ((image.super.flags & SuperFlag.tarfsMode) === 0) return;
  if (options.parentBootstrap !== undefined)
    fail('merging RAFS in TARFS mode conflicts with `--parent-bootstrap`');
  if (options.chunkDict !== undefined) fail('merging RAFS in TARFS mode conflicts with `--chunk-dict`');
  fail('merging RAFS in TARFS mode is not supported yet');
}

async function loadParent(
  working: Working,
  options: MergeOptions,
  reference: RafsImage | undefined,
): Promise<RafsImage | undefined> {
  if (options.parentBootstrap === undefined) return reference;
  const parent = await openMergeSource(options.parentBootstrap);
  const { root, blobs } = loadImage(parent.image, 0);
  const map = blobs.map((blob) => workingIndex(working, importBlob(blob, parent.path), parent.path));
  renumber(root, map);
  working.tree = root;
  if (reference !== undefined) checkCompatible(reference, parent.image);
  return reference ?? parent.image;
}

/**
 * Merge layer bootstraps, lowest first, and write the result.
 *
 * @throws UsageError exit 2  the images do not fit together; exit 1 for every other mistake, in upstream's words
 * @throws FormatError  a source is no bootstrap
 */
export async function mergeImages(options: MergeOptions, context: BuildContext): Promise<BuildResult> {
  const started = performance.now();
  checkLists(options);
  const working: Working = { blobs: [], byId: new Map(), tree: undefined };
  const dictionaryPath =
    options.chunkDict === undefined ? undefined : parseChunkDictArgument(options.chunkDict);
  const dictionaryImage = dictionaryPath === undefined ? undefined : openDictionary(dictionaryPath);
  const dictionary = new Set<string>();
  if (dictionaryImage !== undefined && dictionaryPath !== undefined) {
    for (const blob of loadBlobs(dictionaryImage)) dictionary.add(importBlob(blob, dictionaryPath).id);
  }
  let reference = await loadParent(working, options, dictionaryImage);
  let first: RafsImage | undefined;
  let last: RafsImage | undefined;
  let encrypted = working.blobs.some((blob) => blob.cipher !== 0);
  for (const [position, given] of options.sources.entries()) {
    const path = await given;
    context.signal.throwIfAborted();
    const source = await openMergeSource(path);
    checkTarfs(source.image, options);
    reference ??= source.image;
    checkCompatible(reference, source.image);
    addLayer(working, source, { position, layer: position + 1 }, dictionary, options);
    first ??= source.image;
    last = source.image;
    if ((source.image.super.flags & SuperFlag.encryptionAes128Xts) !== 0) encrypted = true;
    context.progress({
      phase: 'scan',
      files: position + 1,
      totalFiles: options.sources.length,
      bytes: 0,
      totalBytes: 0,
    });
  }
  if (first === undefined || last === undefined || working.tree === undefined) fail('no source to merge');
  const loaded = performance.now();
  const blobs = pruneBlobs(working.tree, working.blobs);
  const bytes = writeBootstrap(working.tree, blobs, {
    version: last.super.version,
    chunkSize: last.super.chunkSize,
    compressor: last.super.compressor,
    digester: last.super.digester,
    explicitUidGid: last.super.explicitUidGid,
    alwaysHasXattr: last.super.version === 6,
    encrypted,
    prefetchPatterns: options.prefetchPolicy === 'fs' ? options.prefetchPatterns : [],
  });
  const bootstrap =
    options.bootstrap ?? join(options.blobDir ?? '', createHash('sha256').update(bytes).digest('hex'));
  await writeWholeFile(bootstrap, bytes);
  context.progress({
    phase: 'done',
    files: options.sources.length,
    totalFiles: options.sources.length,
    bytes: 0,
    totalBytes: 0,
  });
  return {
    bootstrap,
    blobs: blobs.map((blob) => blob.id),
    version: first.super.version,
    compressor: first.super.compressor,
    blobSize: 0,
    consumedTime: {
      load_tree_from_bootstrap: (loaded - started) / 1000,
      dump_bootstrap: (performance.now() - loaded) / 1000,
    },
    events: {},
  };
}
