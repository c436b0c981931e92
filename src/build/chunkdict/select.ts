// Which chunks are worth a place in a dictionary: those that the next version of an image, or another image, will likely
// have. Not upstream's choice, which is not contractual. Source: blob-and-cache.md 16.8.
import type { TreeChunk } from '../../tree/node.ts';
import { digestKey } from '../chunk-dict.ts';
import type { DictionarySource } from './rows.ts';

/** Weight of the newest version against all before it. */
const SMOOTHING = 0.5;
/** What a chunk of several versions must score. */
const THRESHOLD = 0.5;
/** A blob that gives less than this many stored bytes is not worth a request of its own. */
const MIN_BLOB_BYTES = 4096;

/** A chunk, and the source whose blob has it. */
export interface SelectedChunk {
  source: DictionarySource;
  chunk: TreeChunk;
}

export interface ChunkSelection {
  /** by blob id, stored offset, plain offset, digest */
  chunks: SelectedChunk[];
  /** images that share no chunk with anything */
  alone: string[];
}

const byVersion = new Intl.Collator('en', { numeric: true });

function keyOf(chunk: TreeChunk): string {
  return `${chunk.uncompressedSize} ${digestKey(chunk.digest)}`;
}

/** Keys that the versions of one image keep having, oldest version first. */
function lasting(versions: readonly ReadonlySet<string>[]): Set<string> {
  const scores = new Map<string, number>();
  versions.forEach((keys, i) => {
    const weight = i === 0 ? 1 : SMOOTHING;
    for (const [key, score] of scores) scores.set(key, score * (1 - weight));
    for (const key of keys) scores.set(key, (scores.get(key) ?? 0) + weight);
  });
  if (versions.length < 2) return new Set();
  return new Set([...scores].filter(([, score]) => score > THRESHOLD).map(([key]) => key));
}

/** Choose chunks. A chunk that several blobs have is taken from the oldest version of the first image. */
export function selectChunks(sources: readonly DictionarySource[]): ChunkSelection {
  const images = new Map<string, DictionarySource[]>();
  for (const source of sources)
    images.set(source.reference, [...(images.get(source.reference) ?? []), source]);
  const keysOf = new Map(sources.map((source) => [source, new Set(source.chunks.map(keyOf))]));
  const wanted = new Set<string>();
  const imagesWith = new Map<string, number>();
  for (const versions of images.values()) {
    versions.sort((a, b) => byVersion.compare(a.version, b.version));
    const sets = versions.map((source) => keysOf.get(source) ?? new Set<string>());
    for (const key of lasting(sets)) wanted.add(key);
    for (const key of new Set(sets.flatMap((set) => [...set])))
      imagesWith.set(key, (imagesWith.get(key) ?? 0) + 1);
  }
  for (const [key, count] of imagesWith) if (count > 1) wanted.add(key);
  const alone = [...images]
    .filter(
      ([, versions]) => !versions.some((s) => [...(keysOf.get(s) ?? [])].some((key) => wanted.has(key))),
    )
    .map(([reference]) => reference);
  const chosen = new Map<string, SelectedChunk>();
  for (const source of [...images.values()].flat())
    for (const chunk of source.chunks) {
      const key = keyOf(chunk);
      if (wanted.has(key) && !chosen.has(key)) chosen.set(key, { source, chunk });
    }
  return { chunks: inOrder([...chosen.values()]), alone };
}

function blobOf({ source, chunk }: SelectedChunk): string {
  return source.blobs[chunk.blobIndex]?.id ?? '';
}

function inOrder(chunks: SelectedChunk[]): SelectedChunk[] {
  const bytes = new Map<string, number>();
  for (const selected of chunks) {
    const id = blobOf(selected);
    bytes.set(id, (bytes.get(id) ?? 0) + selected.chunk.compressedSize);
  }
  return chunks
    .filter((selected) => (bytes.get(blobOf(selected)) ?? 0) >= MIN_BLOB_BYTES)
    .sort(
      (a, b) =>
        Buffer.compare(Buffer.from(blobOf(a)), Buffer.from(blobOf(b))) ||
        a.chunk.compressedOffset - b.chunk.compressedOffset ||
        a.chunk.uncompressedOffset - b.chunk.uncompressedOffset ||
        Buffer.compare(a.chunk.digest, b.chunk.digest),
    );
}
