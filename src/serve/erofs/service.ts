// Images whose cache files the kernel reads (driver fanotify), beyond the life of this process: the group, the journal and the data files are
// held by guardians that are frozen where that can be. Source: DESIGN 2.1; decision 0007.
import { closeSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { forgetDataFile } from '../../storage/cache/known-files.ts';
import {
  endGuardian,
  startGuardians,
  type GuardianRecord,
  type ProcessIdentity,
} from '../guardian/guardian.ts';
import { checkMountable, type ErofsInstance } from './erofs-mount.ts';
import { Feed } from './feed.ts';
import { awaitRelease, dataFilesOf, knowFiles, takeLeft, type Inheritance } from './left.ts';
import { endLeftovers } from './leftovers.ts';
import { probePreContent } from './probe.ts';
import { ServiceBase, type ErofsServiceOptions, type Served } from './service-base.ts';

export type { ErofsServiceOptions } from './service-base.ts';

/** A start has other things to do first, ms. */
const SWEEP_MS = 1000;

export class ErofsService extends ServiceBase<Feed> {
  /** data files that came from the process before, by path, until the images have opened them */
  readonly #files: Map<string, number>;
  readonly #probed = new Set<number>();
  #onComplete: () => void = () => {};

  private constructor(options: ErofsServiceOptions, feed: Feed, before?: Inheritance) {
    super('fanotify', options, feed, before);
    this.#files = before === undefined ? new Map() : dataFilesOf(before);
    feed.onComplete = () => this.#onComplete();
  }

  /**
   * Look what a daemon before left under this record, and go on with it: open images afterwards, not before, since they must
   * use its open data files.
   *
   * @throws SystemError  the kernel has no pre-content events, or we may not have them
   * @throws UsageError EINVAL  the other daemon lives
   */
  static open(options: ErofsServiceOptions): ErofsService {
    const left = takeLeft(options.record, 'fanotify', options.logger);
    setTimeout(() => endLeftovers(options.logger), SWEEP_MS).unref();
    if (left === undefined) return new ErofsService(options, Feed.open(options.logger));
    try {
      const service = ErofsService.#adopt(options, left);
      knowFiles(left);
      return service;
    } catch (error) {
      for (const fd of left.fds) closeSync(fd);
      throw error;
    }
  }

  static #adopt(options: ErofsServiceOptions, left: Inheritance): ErofsService {
    const [group = -1, journal = -1] = left.fds;
    const ids = new Map(left.record.blobs.map(({ path, id }) => [path, id]));
    return new ErofsService(options, Feed.adopt(options.logger, group, journal, ids), left);
  }

  /**
   * Go on with what was inherited, once the daemon before has ended.
   *
   * @throws UsageError EINVAL  it does not end
   */
  static async resume(options: ErofsServiceOptions, inherited: Inheritance): Promise<ErofsService> {
    await awaitRelease(inherited);
    return ErofsService.#adopt(options, inherited);
  }

  /** Called when nothing that is mounted needs this process any more. */
  set onComplete(call: () => void) {
    this.#onComplete = call;
  }

  protected override guard(
    fds: readonly number[],
    record: GuardianRecord,
    onDeath: (identity: ProcessIdentity) => void,
  ): Promise<unknown> {
    return startGuardians(fds, record, onDeath);
  }

  /** Once per file system: see that the kernel really asks, before anything depends on it. */
  protected override async prepare(instance: ErofsInstance): Promise<void> {
    for (const { cache } of checkMountable(instance)) {
      const dir = dirname(cache.data?.path ?? '/');
      const { dev } = statSync(dir);
      if (cache.map.readyCount === cache.map.count || this.#probed.has(dev)) continue;
      await probePreContent(dir);
      this.#probed.add(dev);
    }
  }

  protected override goOn(): void {
    for (const [path, fd] of this.#files) {
      if (!this.feed.held.some((blob) => blob.path === path)) forgetDataFile(path);
      closeSync(fd);
    }
    this.#files.clear();
    this.feed.serveLeft();
  }

  /** Files that stay open keep a guardian: their readers wait, rather than see zeros. */
  protected override async finish(
    still: readonly Served[],
    guardians: readonly ProcessIdentity[],
  ): Promise<void> {
    if (still.length === 0 || this.feed.complete) {
      this.forget();
      await this.feed.close();
      for (const guardian of guardians) endGuardian(guardian);
      return;
    }
    const where = still.map(({ recorded }) => recorded.mountpoint).join(', ');
    this.logger.warn(
      `files under ${where} are still open and their blobs are not complete: who reads them waits until it is killed; ` +
        `process ${guardians.map(({ pid }) => pid).join(', ')} keeps them from seeing zeros; it ends with the next nydusd that has this socket, or any once the files are closed`,
    );
    // the record stays: the next daemon goes on with these readers, or any daemon ends the guardian once they are gone
    for (const { mount } of still) mount.leave();
    await this.feed.leave();
  }
}
