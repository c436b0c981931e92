// What a build is asked to do. The command line fills these after its own checks; library users fill them directly.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';
import type { Logger } from '../base/log.ts';
import type { ByteTarget } from './blob-output.ts';
import type { WorkerPool } from './pool.ts';

export type SourceType = 'dir-rafs' | 'tar-rafs' | 'targz-rafs';
export type WhiteoutSpec = 'oci' | 'overlayfs' | 'none';
export type PrefetchPolicy = 'none' | 'fs' | 'blob';

/** What every build receives from its caller; no globals. */
export interface BuildContext {
  logger: Logger;
  signal: AbortSignal;
  /** called as work proceeds; never more often than about 20 times a second */
  progress: (event: BuildProgress) => void;
}

export interface BuildProgress {
  phase: 'scan' | 'data' | 'metadata' | 'done';
  /** files and source bytes done so far; totals are 0 while unknown */
  files: number;
  totalFiles: number;
  bytes: number;
  totalBytes: number;
}

export interface CreateOptions {
  source: string;
  type: SourceType;
  version: 5 | 6;
  compressor: CompressorName;
  digester: DigesterName;
  chunkSize: number;
  batchSize: number;
  alignedChunk: boolean;
  whiteoutSpec: WhiteoutSpec;
  /**
   * Hard links of a tar as container runtimes apply them: also to files of layers below, which the merge resolves, and to
   * what is no regular file. Otherwise both are refused, as upstream does.
   */
  runtimeLinks?: boolean;
  prefetchPolicy: PrefetchPolicy;
  /** absolute paths, already filtered as nydus-image 2.6 says */
  prefetchPatterns: string[];
  repeatable: boolean;
  blobToc: boolean;
  inlineMeta: boolean;
  blobId: string | undefined;
  blobOffset: number;
  /** exactly one data target: file (may be a FIFO), directory, or runtime cache directory */
  blob: string | undefined;
  blobDir: string | undefined;
  blobCacheDir: string | undefined;
  /** metadata target unless inlined; undefined = named by its sha256 in blobDir */
  bootstrap: string | undefined;
  parentBootstrap: string | undefined;
  chunkDict: string | undefined;
  /** workers; 0 = one per core */
  threads: number;
}

/** What a caller gives a build in place of paths, and of what the build would make for itself. */
export interface BuildParts {
  /** bytes of the archive, compressed or not; `source` then only names it */
  input?: AsyncIterable<Uint8Array> | undefined;
  /** where the blob goes, whatever `blob`, `blobDir` and `blobCacheDir` say */
  output?: ByteTarget | undefined;
  /** workers shared with other builds, made by `newBuildPool` of the same options; the caller closes them */
  pool?: WorkerPool | undefined;
}

export interface MergeOptions {
  /** bootstraps, lowest first; one that is still to come is waited for when its turn comes */
  sources: readonly (string | Promise<string>)[];
  bootstrap: string | undefined;
  blobDir: string | undefined;
  parentBootstrap: string | undefined;
  chunkDict: string | undefined;
  prefetchPolicy: PrefetchPolicy;
  prefetchPatterns: string[];
  blobDigests: string[] | undefined;
  originalBlobIds: string[] | undefined;
  blobSizes: number[] | undefined;
  blobTocDigests: string[] | undefined;
  blobTocSizes: number[] | undefined;
  /** `--config` given: ids already fixed in the bootstraps are trusted */
  trustIds: boolean;
}

export interface BuildResult {
  /** path of the metadata file written; empty when inlined */
  bootstrap: string;
  /** blob table of the result, in order */
  blobs: string[];
  version: 5 | 6;
  compressor: CompressorName;
  /** size of the data blob that was written, 0 when none */
  blobSize: number;
  /** SHA-256 of the blob with all its bytes, hex: what registries name it by; the blob's id leaves the chunk digests out */
  wholeDigest?: string | undefined;
  /** the metadata, when it is inlined */
  inlineBootstrap?: Buffer | undefined;
  /** chunks that another image has (dictionary or parent), and their plain bytes */
  foreign?: { chunks: number; bytes: number };
  /** result file keys (nydus-image 1.5): seconds by point, counters by event */
  consumedTime: Record<string, number>;
  events: Record<string, number | string>;
}
