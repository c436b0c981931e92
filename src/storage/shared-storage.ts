// Backends and blobs that several images of one process read from. They are shared only where everything that decides what comes,
// and who may have it, is the same: the whole configuration of the backend with its credentials, that of the cache, and the blob.
// Counted: what no image uses any more is closed.
import type { Logger } from '../base/log.ts';
import { openBackend, type Backend, type BackendSetting, type BlobReader } from './backend/backend.ts';
import { LeasedBackend, type BackendLender, type LentBackend } from './backend/leased-backend.ts';
import type { BlobFiles } from './cache/blob-files.ts';
import type { BackendConfig, CacheConfig } from './config.ts';

/** JSON that is the same for equal values, whatever the order of their keys. Has credentials in it: for comparing only. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/** What a cache does with a blob; who prefetches and how much may be kept is up to each image. */
function cacheKey({ type, compressed, validate, filecache }: CacheConfig): string {
  return canonicalJson({ type, compressed, validate, filecache: { ...filecache, max_size: undefined } });
}

/** Files of a blob, to be given back. */
export interface LentFiles {
  files: BlobFiles;
  release: () => Promise<void>;
}

/** Where the files of blobs come from. */
export type LendFiles = (blob: object, open: () => BlobFiles) => LentFiles;

interface Readers {
  reader: Promise<BlobReader>;
  users: number;
}

/** One backend with its users. */
class CountedBackend implements LentBackend {
  readonly backend: Backend;
  key: string;
  users = 0;
  readonly #readers = new Map<string, Readers>();

  constructor(key: string, backend: Backend) {
    this.key = key;
    this.backend = backend;
  }

  open(blobId: string): Promise<BlobReader> {
    const known = this.#readers.get(blobId);
    const readers = known ?? { reader: this.backend.open(blobId), users: 0 };
    readers.users++;
    this.#readers.set(blobId, readers);
    if (known === undefined) {
      // what is not there is looked for again
      readers.reader.catch(() => {
        if (this.#readers.get(blobId) === readers) this.#readers.delete(blobId);
      });
    }
    return readers.reader;
  }

  async closeReader(blobId: string): Promise<void> {
    const readers = this.#readers.get(blobId);
    if (readers === undefined || --readers.users > 0) return;
    this.#readers.delete(blobId);
    (await readers.reader).close();
  }
}

export class SharedStorage implements BackendLender {
  readonly #backends = new Map<string, CountedBackend>();
  readonly #files = new Map<string, { files: BlobFiles; users: number }>();
  readonly #open: typeof openBackend;

  /** @param open for tests that count what is opened */
  constructor(open: typeof openBackend = openBackend) {
    this.#open = open;
  }

  /** Backends and blobs that are open. */
  get size(): { backends: number; blobs: number } {
    return { backends: this.#backends.size, blobs: this.#files.size };
  }

  /** The backend of a configuration, as one image sees it: with its own counters, settings and end. @throws as `openBackend` */
  backend(config: BackendConfig, logger: Logger): Backend {
    const key = canonicalJson(config);
    const open = (): Backend => this.#open(config, logger);
    return new LeasedBackend(this.borrow(key, open), open, this);
  }

  borrow(key: string, open: () => Backend): CountedBackend {
    let entry = this.#backends.get(key);
    if (entry === undefined) {
      entry = new CountedBackend(key, open());
      this.#backends.set(key, entry);
    }
    entry.users++;
    return entry;
  }

  /** Give a setting another value for one user: others keep their backend as it is. */
  change(lent: LentBackend, setting: BackendSetting, value: string, open: () => Backend): LentBackend {
    const entry = lent as CountedBackend;
    const key = `${entry.key}\n${JSON.stringify([setting, value])}`;
    if (entry.users > 1 || this.#backends.has(key)) {
      return this.borrow(key, () => {
        const backend = open();
        backend.configure?.(setting, value);
        return backend;
      });
    }
    this.#backends.delete(entry.key);
    entry.key = key;
    this.#backends.set(key, entry);
    entry.backend.configure?.(setting, value);
    return entry;
  }

  /** @returns true when nobody uses it any more: it is to be closed */
  giveBack(lent: LentBackend): boolean {
    const entry = lent as CountedBackend;
    if (--entry.users > 0) return false;
    if (this.#backends.get(entry.key) === entry) this.#backends.delete(entry.key);
    return true;
  }

  /** Files of blobs for images with these configurations. */
  filesFor(backend: BackendConfig, cache: CacheConfig): LendFiles {
    const prefix = `${canonicalJson(backend)}\n${cacheKey(cache)}\n`;
    return (blob, open) => this.#lend(prefix + canonicalJson(blob), open);
  }

  #lend(key: string, open: () => BlobFiles): LentFiles {
    const entry = this.#files.get(key) ?? { files: open(), users: 0 };
    this.#files.set(key, entry);
    entry.users++;
    let lent = true;
    const release = async (): Promise<void> => {
      if (!lent) return;
      lent = false;
      if (--entry.users > 0) return;
      this.#files.delete(key);
      await entry.files.close();
    };
    return { files: entry.files, release };
  }
}
