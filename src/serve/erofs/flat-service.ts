// Images that the kernel serves from flat files of ours (driver fileio), beyond the life of this process: a guardian holds the connection, so that
// readers wait for the next daemon. Without it they get EIO, never zeros: it need not be frozen.
import { closeSync } from 'node:fs';
import {
  endGuardian,
  startRecorded,
  type GuardianRecord,
  type ProcessIdentity,
} from '../guardian/guardian.ts';
import type { ErofsInstance } from './erofs-mount.ts';
import { FlatFeed } from './flat-feed.ts';
import { awaitRelease, takeLeft, type Inheritance } from './left.ts';
import { ServiceBase, type ErofsServiceOptions, type Served } from './service-base.ts';

export class FlatService extends ServiceBase<FlatFeed> {
  private constructor(options: ErofsServiceOptions, feed: FlatFeed, before?: Inheritance) {
    super('fileio', options, feed, before);
  }

  /**
   * Look what a daemon before left under this record, and go on with it.
   *
   * @throws Error, SystemError  FUSE cannot be had
   * @throws UsageError EINVAL  the other daemon lives
   */
  static open(options: ErofsServiceOptions): FlatService {
    const left = takeLeft(options.record, 'fileio', options.logger);
    if (left === undefined) return new FlatService(options, FlatFeed.open(options.logger));
    try {
      return FlatService.#adopt(options, left);
    } catch (error) {
      for (const fd of left.fds) closeSync(fd);
      throw error;
    }
  }

  static #adopt(options: ErofsServiceOptions, left: Inheritance): FlatService {
    const ids = new Map(left.record.blobs.map(({ path, id }) => [path, id]));
    return new FlatService(options, FlatFeed.adopt(options.logger, left.fds, ids), left);
  }

  /** As ErofsService.resume. */
  static async resume(options: ErofsServiceOptions, inherited: Inheritance): Promise<FlatService> {
    await awaitRelease(inherited);
    return FlatService.#adopt(options, inherited);
  }

  protected override guard(
    fds: readonly number[],
    record: GuardianRecord,
    onDeath: (identity: ProcessIdentity) => void,
  ): Promise<unknown> {
    return startRecorded(fds, record, [], onDeath);
  }

  protected override async prepare(_instance: ErofsInstance): Promise<void> {
    this.feed.begin();
    await this.feed.ready;
  }

  protected override goOn(): void {
    this.feed.begin();
  }

  /** Files that stay open give errors: nobody serves them any more. */
  protected override async finish(
    still: readonly Served[],
    guardians: readonly ProcessIdentity[],
  ): Promise<void> {
    this.forget();
    for (const { mount } of still) mount.leave();
    await this.feed.close();
    for (const guardian of guardians) endGuardian(guardian);
  }
}
