// What every store of blobs offers: the size of a blob and ranged reads. Names are blob ids.
// Source: blob-and-cache.md 21.
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { BackendConfig } from '../config.ts';
import { HttpProxyBackend, readHttpProxyConfig } from './http-proxy.ts';
import { LocaldiskBackend, readLocaldiskConfig } from './localdisk.ts';
import { LocalfsBackend } from './localfs.ts';
import type { Link } from './link.ts';
import type { BackendMeter } from './meter.ts';
import { OssBackend, readOssConfig, readS3Config, S3Backend } from './object-store.ts';
import { RegistryBackend } from './registry.ts';
import { readRegistryConfig } from './registry-config.ts';

/** Who waits for a read. */
export interface ReadHow {
  /** true: nobody waits, it is read ahead; fewer retries, lower priority */
  prefetch?: boolean;
  /** memory that the bytes go to, `length` bytes or more; what is returned is part of it */
  into?: Uint8Array;
  /** told as bytes arrive in `into`: how many there are from its start */
  progress?: (done: number) => void;
  /** counters of who asked, beside those of the backend */
  counted?: BackendMeter;
}

/** Settings that change at run time (nydusd.md 5.8). */
export type BackendSetting = 'registry_auth' | 'proxy_url' | 'dragonfly_scheduler_endpoint';

/** One blob of a backend. */
export interface BlobReader {
  readonly blobId: string;
  /**
   * A file descriptor of the whole blob when it is a local file, else -1. Threads of this process may pread from it
   * instead of calling `read`; they tell `note` about it.
   */
  readonly fd: number;
  /** the network between, for blobs behind one */
  readonly link?: Link | undefined;
  /** Bytes of the blob. */
  size(): Promise<number>;
  /**
   * Read a range.
   *
   * @returns the bytes; fewer than `length` only where the blob ends
   * @throws BackendError EIO  the store failed; the reason of `signal` when that was aborted
   */
  read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array>;
  /** Account for a read that was made through `fd`. @param got bytes read, negative for a failure */
  note(offset: number, got: number, millis: number): void;
  close(): void;
}

export interface Backend {
  /** `backend_type` of the metrics */
  readonly type: string;
  readonly meter: BackendMeter;
  /** @throws BackendError EIO  there is no such blob */
  open(blobId: string): Promise<BlobReader>;
  /** Change a setting for the requests to come; backends without it ignore the call. */
  configure?(setting: BackendSetting, value: string): void;
  /** true while an outage is known: work that nobody waits for should wait */
  readonly isDown?: boolean;
  /** Fail reads that wait for an outage to end; before `close`. */
  giveUp?(): void;
  close(): Promise<void>;
}

type Section = Record<string, unknown>;

const OPENERS: Record<string, (section: Section, logger: Logger) => Backend> = {
  localdisk: (section, logger) => new LocaldiskBackend(readLocaldiskConfig(section), logger),
  oss: (section, logger) => new OssBackend(readOssConfig(section), logger),
  s3: (section, logger) => new S3Backend(readS3Config(section), logger),
  registry: (section, logger) => new RegistryBackend(readRegistryConfig(section), logger),
  'http-proxy': (section, logger) => new HttpProxyBackend(readHttpProxyConfig(section), logger),
};

/**
 * The backend a configuration asks for.
 *
 * @throws UsageError EINVAL  a type that there is not, or whose section is missing
 * @throws BackendError EIO   a disk that cannot be used
 */
export function openBackend(config: BackendConfig, logger: Logger): Backend {
  const { type } = config;
  if (type === 'localfs' && config.localfs !== null) return new LocalfsBackend(config.localfs, logger);
  const section = config[type as 'oss'] ?? null;
  const opener = OPENERS[type];
  if (opener !== undefined && section !== null) return opener(section, logger);
  throw new UsageError(`no backend of type ${type || '""'} with its settings`, {
    hint: 'localfs, localdisk, registry, oss, s3 and http-proxy are served',
  });
}
