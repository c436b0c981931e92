// `create`: a directory or tar becomes a data blob and a bootstrap. Source: nydus-image-and-nydusify.md 2,
// blob-and-cache.md 3.7 (order of writing).
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { UsageError } from '../base/errors.ts';
import { PLACEHOLDER_BLOB_ID } from '../rafs/blob-id.ts';
import type { TreeBlob, TreeNode } from '../tree/node.ts';
import {
  BlobStream,
  directoryTarget,
  fileTarget,
  isStreamPath,
  writeWholeFile,
  type ByteTarget,
} from './blob-output.ts';
import { SectionWriter } from './blob-sections.ts';
import { BlobTable, newBlobRow } from './blob-table.ts';
import { writeBootstrap } from './bootstrap.ts';
import { openInputs, type ParentImage } from './build-inputs.ts';
import { BuildTrace } from './build-trace.ts';
import { CacheOutput } from './cache-output.ts';
import { addTreeChunks, ChunkIndex, type ChunkDictionary } from './chunk-dict.ts';
import { ChunkPlacer, type StoreCounters } from './chunk-placer.ts';
import { ChunkStore } from './chunk-store.ts';
import { CiBuilder } from './ci-builder.ts';
import { readAll, storeFiles, storeWhileReading, type DataRun } from './directory-data.ts';
import { numberTree, type NumberedTree } from './numbering.ts';
import type { BuildContext, BuildParts, BuildResult, CreateOptions } from './options.ts';
import { overlay } from './overlay.ts';
import { WorkerPool } from './pool.ts';
import { ProgressMeter } from './progress-meter.ts';
import { storageOrder } from './prefetch-table.ts';
import { openScan } from './source-dir.ts';
import { readTarTree } from './source-tar.ts';

/** Workers for builds with these options. */
export function newBuildPool(
  options: Pick<CreateOptions, 'chunkSize' | 'compressor' | 'digester' | 'batchSize' | 'threads'>,
): WorkerPool {
  const { chunkSize, compressor, digester, batchSize, threads } = options;
  return new WorkerPool({ chunkSize, compressor, digester, batchLimit: batchSize / 2 }, threads);
}

/** One build: everything that must be closed or removed when it fails. */
class Build {
  readonly #options: CreateOptions;
  readonly #context: BuildContext;
  readonly #parts: BuildParts;
  readonly #trace = new BuildTrace();
  readonly #meter: ProgressMeter;
  readonly #pool: WorkerPool;
  readonly #row: TreeBlob;
  #target: ByteTarget | undefined;
  #cache: CacheOutput | undefined;
  /** what makes or renames files: an abort waits until it is done, to know what there is to remove */
  #fileStep: Promise<unknown> | undefined;
  #parent: ParentImage | undefined;
  #dictionary: ChunkDictionary | undefined;

  constructor(options: CreateOptions, context: BuildContext, parts: BuildParts) {
    this.#options = options;
    this.#context = context;
    this.#parts = parts;
    this.#meter = new ProgressMeter(context.progress);
    this.#row = newBlobRow(options);
    this.#pool = parts.pool ?? newBuildPool(options);
  }

  async run(): Promise<BuildResult> {
    const { signal } = this.#context;
    const shared = this.#parts.pool !== undefined;
    const stop = (): void => {
      if (!shared) this.#pool.abort(signal.reason);
    };
    signal.addEventListener('abort', stop);
    let aborted: (() => void) | undefined;
    try {
      signal.throwIfAborted();
      // a FIFO without a reader blocks in the kernel: the race lets an abort through
      const abort = new Promise<never>((_, reject) => {
        aborted = () => reject(signal.reason as Error);
        signal.addEventListener('abort', aborted);
      });
      return await Promise.race([this.#trace.measure('total_build', () => this.#build()), abort]);
    } catch (error) {
      await this.#fileStep?.catch(() => {});
      await this.#target?.discard();
      await this.#cache?.discard();
      throw error;
    } finally {
      signal.removeEventListener('abort', stop);
      if (aborted !== undefined) signal.removeEventListener('abort', aborted);
      if (!shared) await this.#pool.close();
      this.#parent?.opened.close();
    }
  }

  async #build(): Promise<BuildResult> {
    const options = this.#options;
    const { parent, dictionary } = await openInputs(options, this.#trace);
    this.#parent = parent;
    this.#dictionary = dictionary;
    await this.#asFileStep(options.blob, this.#openOutputs());
    const stream = new BlobStream(this.#target);
    const table = new BlobTable(this.#parent?.blobs ?? [], this.#dictionary, this.#row);
    const ci = options.version === 5 ? undefined : new CiBuilder(options.batchSize > 0);
    const placer = this.#newPlacer(stream, table, ci);
    const store = new ChunkStore(options.chunkSize, this.#pool, placer);
    const numbered = await this.#storeTree(store, table);
    const root = numbered.nodes[0] as TreeNode;

    await this.#trace.measure('dump_blob', () => this.#finishData(placer, stream, table, ci));
    this.#meter.phase('metadata');
    const sections = this.#sections as SectionWriter;
    const patterns = options.prefetchPolicy === 'fs' ? options.prefetchPatterns : [];
    const bootstrap = (): Buffer =>
      writeBootstrap(
        root,
        table.rows,
        {
          version: options.version,
          chunkSize: options.chunkSize,
          compressor: options.compressor,
          digester: options.digester,
          explicitUidGid: !options.repeatable,
          encrypted: table.rows.some((row) => row.cipher !== 0),
          prefetchPatterns: patterns,
        },
        numbered,
      );
    const hasBlob = options.inlineMeta || table.hasOwn;
    if (options.inlineMeta) {
      this.#row.id = PLACEHOLDER_BLOB_ID;
      this.#row.compressedSize = stream.position;
      await this.#trace.measure('dump_bootstrap', async () => {
        this.#inlined = bootstrap();
        await sections.addBootstrap(this.#inlined);
      });
    }
    if (options.blobToc && hasBlob) {
      const toc = await sections.addToc();
      this.#row.tocDigest = toc.digest;
      this.#row.tocSize = toc.size;
    }
    const id = options.blobId ?? stream.digest().toString('hex');
    let path = '';
    this.#context.signal.throwIfAborted();
    if (options.inlineMeta) {
      await this.#asFileStep(options.blob, this.#publish(hasBlob ? id : undefined));
    } else {
      this.#row.id = id;
      this.#row.compressedSize = stream.position;
      const bytes = await this.#trace.measure('dump_bootstrap', bootstrap);
      this.#context.signal.throwIfAborted();
      path = await this.#asFileStep(options.bootstrap, this.#publishBoth(hasBlob ? id : undefined, bytes));
    }
    this.#row.id = id;
    this.#meter.phase('done');
    const result = this.#result(placer.counters, table, path, hasBlob ? stream.position : 0);
    return { ...result, wholeDigest: stream.wholeDigest().toString('hex') };
  }

  #sections: SectionWriter | undefined;
  #inlined: Buffer | undefined;

  /** A step that an abort waits for; one that writes to a FIFO may wait for its reader forever, and leaves no file. */
  #asFileStep<T>(path: string | undefined, step: Promise<T>): Promise<T> {
    this.#fileStep = path !== undefined && isStreamPath(path) ? undefined : step;
    return step;
  }

  async #openOutputs(): Promise<void> {
    const { blobCacheDir } = this.#options;
    this.#target = await this.#openTarget();
    if (blobCacheDir !== undefined) this.#cache = await CacheOutput.open(blobCacheDir);
  }

  async #openTarget(): Promise<ByteTarget | undefined> {
    const { blob, blobDir, blobCacheDir } = this.#options;
    if (this.#parts.output !== undefined) return this.#parts.output;
    if (blob !== undefined) return fileTarget(blob);
    if (blobCacheDir !== undefined) return undefined;
    if (blobDir !== undefined) return directoryTarget(blobDir);
    throw new UsageError(
      'both --blob and --blob-dir are missing, please specify one to store the generated data blob file',
      {
        exitCode: 1,
      },
    );
  }

  #newPlacer(stream: BlobStream, table: BlobTable, ci: CiBuilder | undefined): ChunkPlacer {
    const options = this.#options;
    const parentIndex = new ChunkIndex();
    if (this.#parent !== undefined && this.#parent.opened.image.super.digester === options.digester) {
      addTreeChunks(this.#parent.root, parentIndex);
    }
    const cache = this.#cache;
    const aligned = options.version === 6 || options.alignedChunk;
    return new ChunkPlacer(
      {
        chunkSize: options.chunkSize,
        compressor: options.compressor,
        batchSize: options.batchSize,
        aligned,
        blobOffset: options.blobOffset,
      },
      {
        stream,
        table,
        ci,
        foreignChunk:
          this.#dictionary === undefined && parentIndex.size === 0
            ? undefined
            : (digest, size) => table.dictionaryChunk(digest, size) ?? parentIndex.lookup(digest, size),
        mirror: cache === undefined ? undefined : (data, offset) => cache.putChunk(data, offset, aligned),
        progress: (files, bytes) => this.#meter.add(files, bytes),
      },
    );
  }

  /** Read the source and store its data. */
  async #storeTree(store: ChunkStore, table: BlobTable): Promise<NumberedTree> {
    const options = this.#options;
    const layer = this.#parent === undefined ? 0 : 1;
    if (options.type !== 'dir-rafs') {
      const upper = await this.#trace.measure('build_tree', async () => {
        this.#meter.sourceReports = true;
        const read = await readTarTree(
          options.source,
          {
            version: options.version,
            chunkSize: options.chunkSize,
            layer,
            runtimeLinks: options.runtimeLinks,
          },
          store,
          this.#context,
          this.#parts.input,
          this.#pool,
        );
        await store.finish();
        return read.root;
      });
      return this.#trace.measure('build_bootstrap', () => numberTree(this.#overParent(upper)));
    }
    const patterns = options.prefetchPolicy === 'none' ? [] : options.prefetchPatterns;
    const { signal } = this.#context;
    const run: DataRun = { store, pool: this.#pool, meter: this.#meter, signal };
    // over a parent, or with files that go to the front, the order of storing is known only when all is read
    const atOnce = this.#parent === undefined && patterns.length === 0;
    const scan = await this.#trace.measure('build_tree', () =>
      this.#trace.measure('load_from_directory', async () => {
        const opened = openScan(
          options.source,
          {
            version: options.version,
            whiteoutSpec: options.whiteoutSpec,
            layered: this.#parent !== undefined,
            layer,
          },
          this.#context,
        );
        if (atOnce) await storeWhileReading(opened, run);
        else readAll(opened, run);
        return opened;
      }),
    );
    this.#trace.events['load_from_directory'] = scan.entries - 1;
    if (atOnce) {
      await this.#trace.measure('dump_blob', () => store.finish());
      return this.#trace.measure('build_bootstrap', () => numberTree(scan.root));
    }
    const numbered = await this.#trace.measure('build_bootstrap', () =>
      numberTree(this.#overParent(scan.root)),
    );
    await this.#trace.measure('dump_blob', () => this.#storeNumbered(run, numbered, table, patterns));
    return numbered;
  }

  #overParent(upper: TreeNode): TreeNode {
    return this.#parent === undefined ? upper : overlay(this.#parent.root, upper, this.#options.whiteoutSpec);
  }

  async #storeNumbered(
    run: DataRun,
    numbered: NumberedTree,
    table: BlobTable,
    patterns: readonly string[],
  ): Promise<void> {
    const root = numbered.nodes[0] as TreeNode;
    const { files, prefetched } = storageOrder(root, numbered.nodes, numbered.parents, patterns);
    await storeFiles(files, run);
    await run.store.finish();
    if (this.#options.prefetchPolicy === 'blob')
      this.#row.readaheadSize = this.#prefetchSize(files.slice(0, prefetched), table);
  }

  /** Stored bytes of the chunks that the files at the front brought into the new blob. */
  #prefetchSize(files: readonly TreeNode[], table: BlobTable): number {
    if (!table.hasOwn) return 0;
    const ownIndex = table.ownIndex();
    let end = this.#options.blobOffset;
    for (const file of files) {
      for (const chunk of file.chunks) {
        if (chunk.blobIndex === ownIndex) end = Math.max(end, chunk.compressedOffset + chunk.compressedSize);
      }
    }
    return end - this.#options.blobOffset;
  }

  /** What follows the chunk data, up to the digests (blob-and-cache 3.7, steps 3 to 8). */
  async #finishData(
    placer: ChunkPlacer,
    stream: BlobStream,
    table: BlobTable,
    ci: CiBuilder | undefined,
  ): Promise<void> {
    const options = this.#options;
    const sections = new SectionWriter(stream, { ...options, batch: options.batchSize > 0 });
    this.#sections = sections;
    if (!table.hasOwn) return;
    const row = this.#row;
    row.chunkCount = placer.chunkCount;
    row.uncompressedSize = placer.uncompressedEnd;
    await sections.endData(placer.storedBytes, placer.uncompressedEnd);
    if (ci === undefined) return;
    await sections.addCompressionInfo(ci, row);
    if (this.#cache !== undefined) {
      await this.#cache.putMeta(
        ci.data(),
        ci.header(row.features, row.ciCompressor, row.ciOffset, row.ciCompressedSize),
      );
    }
    if (options.blobToc) await sections.addDigests(placer.digestArray());
  }

  async #publish(id: string | undefined): Promise<void> {
    await this.#target?.publish(id);
    this.#target = undefined;
    await this.#cache?.publish(id);
    this.#cache = undefined;
  }

  /** The blob first: a bootstrap that is there has its data. */
  async #publishBoth(id: string | undefined, bootstrap: Buffer): Promise<string> {
    await this.#publish(id);
    return this.#writeBootstrapFile(bootstrap);
  }

  async #writeBootstrapFile(bytes: Buffer): Promise<string> {
    const { bootstrap, blobDir } = this.#options;
    let path = bootstrap;
    if (path === undefined) {
      if (blobDir === undefined) {
        throw new UsageError(
          'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
          { exitCode: 1 },
        );
      }
      path = join(blobDir, createHash('sha256').update(bytes).digest('hex'));
    }
    await writeWholeFile(path, bytes);
    return path;
  }

  #result(counters: StoreCounters, table: BlobTable, bootstrap: string, blobSize: number): BuildResult {
    const { uncompressedBytes, dedupBytes, dedupChunks, foreignBytes, foreignChunks } = counters;
    this.#trace.count('blob_uncompressed_size', uncompressedBytes);
    this.#trace.count('dedup_uncompressed_size', dedupBytes);
    this.#trace.count('dedup_chunks', dedupChunks);
    const blobs = table.rows.map((row) => row.id);
    if (this.#options.inlineMeta && !table.hasOwn) blobs.push(this.#row.id);
    return {
      bootstrap,
      blobs,
      version: this.#options.version,
      compressor: this.#options.compressor,
      blobSize,
      inlineBootstrap: this.#inlined,
      foreign: { chunks: foreignChunks, bytes: foreignBytes },
      consumedTime: this.#trace.consumedTime,
      events: this.#trace.events,
    };
  }
}

/**
 * Build an image.
 *
 * @param parts streams and workers of the caller, in place of paths and of workers for this build alone
 * @throws UsageError   the source, a target or an option cannot be used
 * @throws FormatError  the tar, the parent image or the dictionary breaks its format
 * @throws the reason of `context.signal` when it was aborted; nothing that looks finished is left
 */
export function createImage(
  options: CreateOptions,
  context: BuildContext,
  parts: BuildParts = {},
): Promise<BuildResult> {
  return new Build(options, context, parts).run();
}
