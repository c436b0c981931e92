// A session whose images may have a writable layer on top: attaches, then covers; uncovers, then detaches.
// Source: nydusd.md 7.2 (overlay), 10.3; decision 0004.
import { join } from 'node:path';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { AttachOptions, HandoverPlace, ImageInstance, MountSession, MountTarget } from './parts.ts';
import { SessionLayer } from './session-layer.ts';

/** How layers are put on and taken away; serve/overlay does it. */
export interface OverlayCalls {
  mountOverlay(options: { place: string; upperDir: string; workDir: string; writable: boolean }): void;
  unmountOverlay(place: string): void;
  /** it is this daemon's from now on, whoever put it there */
  claimOverlay(place: string, keptBy: string): void;
  /** true when one lies there, whoever put it there */
  isOverlay(place: string): boolean;
}

export interface OverlaySessionOptions {
  /** of the kernel mount */
  mountpoint: string;
  writable: boolean;
  logger: Logger;
  /** path of the record of a guardian that may keep the mount below */
  keptBy: () => string;
  /** loaded when the first image has a layer */
  calls: () => Promise<OverlayCalls>;
}

/** A session with layers. */
export class OverlaySession<I extends ImageInstance> extends SessionLayer<I> {
  readonly #options: OverlaySessionOptions;
  /** covered directories */
  readonly #covered = new Set<string>();
  /** layers that may lie where a daemon before has put them: looked for when this one serves */
  readonly #inherited: { at: string; overlay: NonNullable<AttachOptions['overlay']> }[] = [];

  constructor(inner: MountSession<I>, options: OverlaySessionOptions) {
    super(inner);
    this.#options = options;
  }

  #placeOf(at: string): string {
    return join(this.#options.mountpoint, at).replace(/\/$/, '');
  }

  async #cover(at: string, overlay: AttachOptions['overlay']): Promise<void> {
    if (overlay === undefined) return;
    const place = this.#placeOf(at);
    const calls = await this.#options.calls();
    calls.mountOverlay({ place, writable: this.#options.writable, ...overlay });
    calls.claimOverlay(place, this.#options.keptBy());
    this.#covered.add(place);
  }

  async #uncover(place: string): Promise<void> {
    if (!this.#covered.delete(place)) return;
    const calls = await this.#options.calls();
    try {
      calls.unmountOverlay(place);
    } catch (error) {
      this.#options.logger.warn(`the overlay at ${place} is not taken away: ${messageOf(error)}`);
    }
  }

  async attach(at: string, target: MountTarget<I>, options: AttachOptions): Promise<void> {
    await this.inner.attach(at, target, options);
    try {
      await this.#cover(at, options.overlay);
    } catch (error) {
      await this.inner.detach(at);
      throw error;
    }
  }

  async replace(
    at: string,
    target: MountTarget<I>,
    options: AttachOptions,
  ): Promise<{ retired: Promise<void> }> {
    await this.#uncover(this.#placeOf(at));
    const replaced = await this.inner.replace(at, target, options);
    await this.#cover(at, options.overlay);
    return replaced;
  }

  async detach(at: string): Promise<void> {
    await this.#uncover(this.#placeOf(at));
    await this.inner.detach(at);
  }

  async unmount(): Promise<void> {
    for (const place of [...this.#covered].reverse()) await this.#uncover(place);
    await this.inner.unmount();
  }

  /** Over FUSE the layer stays where it is, over the kernel's EROFS the next daemon takes it away and puts on its own. */
  restore(place: HandoverPlace, target: MountTarget<I>, options: AttachOptions): void {
    this.inner.restore?.(place, target, options);
    const { overlay } = options;
    if (overlay !== undefined) this.#inherited.push({ at: place.mountpoint, overlay });
  }

  async resume(): Promise<void> {
    await this.inner.resume?.();
    for (const { at, overlay } of this.#inherited.splice(0)) {
      const place = this.#placeOf(at);
      const calls = await this.#options.calls();
      if (!calls.isOverlay(place)) {
        await this.#cover(at, overlay);
        continue;
      }
      calls.claimOverlay(place, this.#options.keptBy());
      this.#covered.add(place);
    }
  }
}
