// A tar archive as a tree; file data goes to a chunk sink while the archive is read, once, front to back.
// Source: rafs-metadata.md 5, nydus-image-and-nydusify.md 2.2, golden tarforms.
import { createReadStream, statSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { FormatError, messageOf, NydusError, UsageError } from '../base/errors.ts';
import { TarParser, type TarEntry } from '../format/tar/archive.ts';
import { beginInflate } from '../native/inflate.ts';
import type { ChunkSink } from './chunk-sink.ts';
import type { BuildContext } from './options.ts';
import { inflated } from './pool-inflate.ts';
import type { WorkerPool } from './pool.ts';
import { TarTree } from './source-tar-tree.ts';
import type { TreeNode } from '../tree/node.ts';

export interface TarOptions {
  version: 5 | 6;
  chunkSize: number;
  /** layer number for hard-link identity: 0, or 1 over a parent */
  layer: number;
  /** hard links as container runtimes apply them */
  runtimeLinks?: boolean | undefined;
}

export interface TarResult {
  root: TreeNode;
  /** entries of the tree, the root included */
  entries: number;
  /** bytes of the input, as stored */
  inputBytes: number;
}

/** Bytes of one read: large enough that the price of a read does not show, small against the 400 MB a build may take. */
const READ_SIZE = 1024 * 1024;
/** Bytes of one piece of a decoder: of 64 KiB, 256 KiB and 1 MiB the one that took the least time in one run, on a busy machine. */
const DECODED_SIZE = 256 * 1024;
const GZIP_MAGIC = Buffer.of(0x1f, 0x8b);
const ZSTD_MAGIC = Buffer.of(0x28, 0xb5, 0x2f, 0xfd);
const MAGIC_SIZE = 4;

type Chunks = AsyncIterator<Uint8Array>;

/** The first bytes of the input, at least MAGIC_SIZE of them unless it is shorter. */
async function readHead(input: Chunks): Promise<Buffer> {
  let head = Buffer.alloc(0);
  while (head.length < MAGIC_SIZE) {
    const next = await input.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  return head;
}

async function* joined(head: Uint8Array, rest: Chunks): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

/**
 * Decompressed bytes of an input that is gzip or zstd, by its first bytes; else the bytes themselves.
 *
 * @param pool decodes gzip; then a piece is valid until the next one is asked for
 */
export async function* decodedTar(
  input: Chunks,
  signal: AbortSignal,
  pool?: WorkerPool,
): AsyncGenerator<Uint8Array> {
  const head = await readHead(input);
  const whole = joined(head, input);
  const gzip = head.subarray(0, GZIP_MAGIC.length).equals(GZIP_MAGIC);
  const stream = gzip && pool !== undefined ? beginInflate() : undefined;
  if (stream !== undefined && pool !== undefined) return yield* inflated(stream, whole, pool);
  let decoder: ReturnType<typeof createGunzip> | ReturnType<typeof createZstdDecompress>;
  if (gzip) decoder = createGunzip({ chunkSize: DECODED_SIZE });
  else if (head.subarray(0, ZSTD_MAGIC.length).equals(ZSTD_MAGIC))
    decoder = createZstdDecompress({ chunkSize: DECODED_SIZE });
  else return yield* whole;
  // Feeds the decoder beside the loop that drains it; its failure reaches that loop through destroy(). Nobody waits for
  // it: it may sleep on a FIFO whose bytes never come.
  void (async () => {
    for await (const chunk of whole) {
      if (decoder.destroyed) return;
      if (!decoder.write(chunk)) await drained(decoder, signal);
    }
    decoder.end();
  })().catch((error: unknown) => decoder.destroy(error instanceof Error ? error : new Error(String(error))));
  try {
    for await (const chunk of decoder as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    if (error instanceof NydusError || signal.aborted) throw error;
    throw new FormatError({ struct: 'compressed tar' }, messageOf(error), { cause: error });
  } finally {
    decoder.destroy();
  }
}

/** Wait until a decoder takes more bytes, or is closed. */
function drained(decoder: NodeJS.EventEmitter & { destroyed: boolean }, signal: AbortSignal): Promise<void> {
  if (decoder.destroyed || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      decoder.off('drain', done);
      decoder.off('close', done);
      resolve();
    };
    decoder.on('drain', done);
    decoder.on('close', done);
  });
}

/**
 * Bytes of a tar input, decompressed when its first bytes say gzip or zstd. Progress counts stored bytes.
 *
 * @param source regular file, FIFO or character device such as /dev/stdin
 * @throws UsageError exit 1  another kind of file, or unreadable
 */
async function* readArchive(
  source: string,
  input: AsyncIterable<Uint8Array> | undefined,
  count: (bytes: number) => void,
  signal: AbortSignal,
  pool: WorkerPool | undefined,
): AsyncGenerator<Uint8Array> {
  const file: Readable | undefined =
    input === undefined ? createReadStream(source, { highWaterMark: READ_SIZE, signal }) : undefined;
  const chunks = input ?? (file as AsyncIterable<Uint8Array>);
  const counted = (async function* () {
    for await (const chunk of chunks) {
      count(chunk.length);
      yield chunk;
    }
  })();
  try {
    yield* decodedTar(counted, signal, pool);
  } finally {
    file?.destroy();
  }
}

/** Refuse what no tar can be read from, in upstream's words (nydus-image 2.2). */
function checkSource(source: string): number {
  let stat;
  try {
    stat = statSync(source);
  } catch (error) {
    throw new UsageError(`failed to access path "${source}": ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
  if (stat.isFile() || stat.isFIFO() || stat.isCharacterDevice()) return stat.isFile() ? stat.size : 0;
  throw new UsageError(`specified path must be a regular/fifo/char_device file: "${source}"`, {
    exitCode: 1,
  });
}

/** Smallest time between two progress calls. */
const PROGRESS_MS = 50;

/**
 * Read a tar archive, plain, gzip or zstd, and store its file data through the sink in archive order.
 *
 * @param input bytes of the archive; undefined = the file `source` is read
 * @param pool decodes gzip in its workers
 * @throws FormatError  the archive is none, or breaks a limit
 * @throws UsageError exit 1  it holds what an image cannot
 */
export async function readTarTree(
  source: string,
  options: TarOptions,
  sink: ChunkSink,
  context: BuildContext,
  input?: AsyncIterable<Uint8Array>,
  pool?: WorkerPool,
): Promise<TarResult> {
  const totalBytes = input === undefined ? checkSource(source) : 0;
  const tree = new TarTree(options, context.logger);
  const parser = new TarParser();
  let inputBytes = 0;
  let reported = 0;
  const count = (size: number): void => void (inputBytes += size);
  for await (const bytes of readArchive(source, input, count, context.signal, pool)) {
    context.signal.throwIfAborted();
    parser.feed(bytes);
    for (let event = parser.next(); event !== undefined; event = parser.next()) {
      let wait: Promise<void> | undefined;
      if (event.type === 'data') wait = sink.write(event.bytes);
      else if (event.type === 'end') wait = sink.endFile();
      else takeEntry(event.entry, tree, parser, sink);
      if (wait !== undefined) await wait;
    }
    const now = performance.now();
    if (now - reported >= PROGRESS_MS) {
      reported = now;
      context.progress({ phase: 'data', files: tree.entries, totalFiles: 0, bytes: inputBytes, totalBytes });
    }
  }
  parser.finish();
  return { root: tree.finish(), entries: tree.entries, inputBytes };
}

function takeEntry(entry: TarEntry, tree: TarTree, parser: TarParser, sink: ChunkSink): void {
  const node = tree.add(entry);
  if (node === undefined) parser.skipData();
  else if (entry.size > 0) sink.beginFile(node);
}
