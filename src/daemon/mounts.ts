// What a daemon has mounted, by mountpoint, and whose counters a metrics request means. Source: nydusd.md 5.4, 5.10.
import type { ConfigV2 } from '../storage/config.ts';
import { redactConfig } from '../storage/config-parse.ts';
import type { Accounting, ImageInstance, MountTarget } from './parts.ts';

/** What is needed to mount the same again, in another process for instance. */
export interface MountRecord {
  mountpoint: string;
  /** bootstrap or directory */
  source: string;
  prefetchFiles?: readonly string[] | undefined;
}

/** Something that is mounted. */
export type Mount<I extends ImageInstance = ImageInstance> = MountRecord & {
  mountedAt: string;
  /** text of the configuration; empty for a directory */
  configText: string;
  /** taken over from another daemon */
  restored: boolean;
  /** undefined for a directory */
  config: ConfigV2 | undefined;
  target: MountTarget<I>;
};

/** What kind of counters a metrics request asks for. */
export type MetricsKind = 'fs' | 'backend' | 'blobcache';

const NO_ACCOUNTING: Accounting = { files: false, pattern: false, latest: false };

/** What a configuration wants accounted. */
export function accountingOf(config: ConfigV2 | undefined): Accounting {
  if (config === undefined) return NO_ACCOUNTING;
  return {
    files: config.rafs?.iostats_files ?? false,
    pattern: config.rafs?.access_pattern ?? false,
    latest: config.rafs?.latest_read_files ?? false,
  };
}

/** `YYYY-MM-DD HH:MM:SS.n +00:00:00`, trailing zeros of the fraction dropped, one digit kept (nydusd.md 5.4). */
export function formatMountedTime(time: Date): string {
  const iso = time.toISOString();
  const fraction = iso.slice(20, 23).replace(/0+$/, '') || '0';
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)}.${fraction} +00:00:00`;
}

/** The mounts of a daemon. */
export class Mounts<I extends ImageInstance = ImageInstance> {
  readonly #all = new Map<string, Mount<I>>();

  get size(): number {
    return this.#all.size;
  }

  get(mountpoint: string): Mount<I> | undefined {
    return this.#all.get(mountpoint);
  }

  /** In the order in which they were mounted. */
  list(): Mount<I>[] {
    return [...this.#all.values()];
  }

  set(mount: Mount<I>): void {
    this.#all.set(mount.mountpoint, mount);
  }

  delete(mountpoint: string): void {
    this.#all.delete(mountpoint);
  }

  /**
   * The mount whose counters stand under an id: its mountpoint, for caches the id of its configuration; the last one mounted where
   * several have that. Without an id the only one there is; undefined otherwise.
   */
  counted(kind: MetricsKind, id: string | undefined): Mount<I> | undefined {
    const keyed = new Map<string, Mount<I>>();
    for (const mount of this.#all.values()) {
      const key = keyOf(kind, mount);
      if (key !== undefined) keyed.set(key, mount);
    }
    if (id !== undefined) return keyed.get(id);
    return keyed.size === 1 ? [...keyed.values()][0] : undefined;
  }

  /** `backend_collection` of the API, by mountpoint. */
  collection(): Record<string, unknown> {
    const sorted = this.list().sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1));
    return Object.fromEntries(
      sorted.map(({ mountpoint, mountedAt, config, target }) => [
        mountpoint,
        {
          backend_type: target.kind === 'rafs' ? 'Rafs' : 'PassthroughFs',
          mountpoint,
          mounted_time: mountedAt,
          config: config === undefined ? null : redactConfig(config),
        },
      ]),
    );
  }
}

/** Under which key a mount's counters of a kind stand; undefined when it has none. */
function keyOf(kind: MetricsKind, { mountpoint, config, target }: Mount): string | undefined {
  if (kind === 'fs') return mountpoint;
  if (target.kind !== 'rafs') return undefined;
  if (kind === 'backend') return mountpoint;
  // without a cache nothing is counted of one
  return config?.cache?.filecache ? config.id : undefined;
}
