// What a daemon says about itself: states, images, counters, as the API spells them. Source: nydusd.md 5.4, 5.7, 5.10, 6.
import { versionInfo } from '../base/version.ts';
import { DaemonError } from './api-error.ts';
import { accountingOf, type Mounts } from './mounts.ts';
import type { ImageInstance, MountSession } from './parts.ts';
import type { StateMachine } from './state-machine.ts';
import { superMeta } from './super-meta.ts';

export interface ReportsOptions<I extends ImageInstance> {
  id: string | null;
  supervisor: string | null;
  machine: StateMachine;
  mounts: Mounts<I>;
  /** undefined while nothing is served */
  session: () => MountSession<I> | undefined;
}

export class Reports<I extends ImageInstance = ImageInstance> {
  readonly #options: ReportsOptions<I>;

  constructor(options: ReportsOptions<I>) {
    this.#options = options;
  }

  get #session(): MountSession<I> | undefined {
    return this.#options.session();
  }

  /** `GET /daemon`; version 2 of the API shows no mounts. */
  info(withMounts: boolean): Record<string, unknown> {
    const { id, supervisor, machine, mounts } = this.#options;
    const driver = this.#session?.driver;
    return {
      version: versionInfo(),
      id,
      supervisor,
      state: machine.visible,
      backend_collection: withMounts ? mounts.collection() : null,
      ...(driver === undefined ? {} : { driver }),
    };
  }

  /** `GET /daemon/backend`. */
  superMeta(mountpoint: string): Record<string, unknown> {
    const target = this.#options.mounts.get(mountpoint)?.target;
    if (target === undefined) throw DaemonError.other("object or filesystem doesn't exist");
    if (target.kind !== 'rafs') throw DaemonError.other('filesystem type mismatch, expect RAFS');
    return superMeta(target.instance.image);
  }

  /** `GET /metrics`; undefined when nothing is counted under the id. */
  fsMetrics(id: string | undefined): Record<string, unknown> | undefined {
    const mount = this.#options.mounts.counted('fs', id);
    const session = this.#session;
    if (mount === undefined || session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    const c = session.counters(mount.mountpoint);
    return {
      files_account_enabled: accounting.files,
      access_pattern_enabled: accounting.pattern,
      record_latest_read_files_enabled: accounting.latest,
      measure_latency: true,
      id: mount.mountpoint,
      nr_opens: c.nr_opens,
      data_read: c.data_read,
      block_count_read: c.block_count_read,
      fop_hits: c.fop_hits,
      fop_errors: c.fop_errors,
      fop_cumulative_latency_total: c.fop_cumulative_latency_total,
      read_latency_dist: c.read_latency_dist,
    };
  }

  /** `GET /metrics/files`: per inode, or the ranges read since the last call. */
  filesMetrics(id: string | undefined, latest: boolean): unknown {
    const mount = this.#options.mounts.counted('fs', id);
    const session = this.#session;
    if (mount === undefined || session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    if (latest) return accounting.latest ? session.takeLatest(mount.mountpoint) : [];
    return accounting.files ? session.files(mount.mountpoint) : {};
  }

  /** `GET /metrics/pattern`. */
  patternMetrics(id: string | undefined): unknown {
    const mount = this.#options.mounts.counted('fs', id);
    const session = this.#session;
    if (mount === undefined || session === undefined) return undefined;
    return accountingOf(mount.config).pattern ? session.pattern(mount.mountpoint) : [];
  }

  /** `GET /metrics/backend` and `/metrics/blobcache`. */
  storageMetrics(kind: 'backend' | 'blobcache', id: string | undefined): unknown {
    const target = this.#options.mounts.counted(kind, id)?.target;
    return target?.kind === 'rafs' ? target.instance.metrics()[kind] : undefined;
  }

  /** `GET /metrics/inflight`. */
  inflight(): readonly unknown[] {
    return this.#session?.inflight() ?? [];
  }
}
