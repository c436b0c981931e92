// What every store of blobs offers: the size of a blob and ranged reads. Names are blob ids.
// Source: blob-and-cache.md 21.
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { BackendConfig } from '../config.ts';
import { LocalfsBackend } from './localfs.ts';
import type { BackendMeter } from './meter.ts';
import { RegistryBackend } from './registry.ts';
import { readRegistryConfig } from './registry-config.ts';

/** Who waits for a read. */
export interface ReadHow {
  /** true: nobody waits, it is read ahead; fewer retries, lower priority */
  prefetch?: boolean;
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
  close(): Promise<void>;
}

/**
 * The backend a configuration asks for.
 *
 * @throws UsageError EINVAL  a type that is not served
 */
export function openBackend(config: BackendConfig, logger: Logger): Backend {
  if (config.type === 'localfs' && config.localfs !== null) return new LocalfsBackend(config.localfs, logger);
  if (config.type === 'registry' && config.registry !== null) {
    return new RegistryBackend(readRegistryConfig(config.registry), logger);
  }
  throw new UsageError(`backend type ${config.type || '""'} is not supported yet`, {
    hint: 'localfs and registry are supported',
  });
}
