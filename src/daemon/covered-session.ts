// A FUSE session some of whose images the kernel serves: attaches by FUSE, then covers; uncovers, then detaches. Nothing of the kernel drivers is
// loaded before an image asks for one. Source: decision 0009.
import type { RafsInstance } from '../rafs/instance.ts';
import type { DriverChoice } from '../storage/config.ts';
import type { Covers, CoversOptions } from './covers.ts';
import type {
  AttachOptions,
  DriverInfo,
  FsCounters,
  HandoverPlace,
  MountSession,
  MountTarget,
} from './parts.ts';
import { SessionLayer } from './session-layer.ts';

type Target = MountTarget<RafsInstance>;

/** READ in `fop_hits` (nydusd.md 6.1). */
const READ = 4;

export interface CoveredOptions extends CoversOptions {
  /** of the command line: wins over what configurations say */
  driver: DriverChoice | undefined;
  /** of the daemon before */
  covers?: Covers | undefined;
}

export class CoveredSession extends SessionLayer<RafsInstance> {
  readonly #options: CoveredOptions;
  #covers: Covers | undefined;
  #ending: Promise<void> | undefined;
  /** what is mounted, as the pseudo directories spell it */
  readonly #places = new Set<string>();
  /** images that the daemon before has shown, until this one serves */
  readonly #restored: { at: string; target: Target; options: AttachOptions }[] = [];

  constructor(inner: MountSession<RafsInstance>, options: CoveredOptions) {
    super(inner);
    this.#options = options;
    this.#covers = options.covers;
  }

  async #cover(where: string, target: Target, options: AttachOptions): Promise<void> {
    const at = canonical(where);
    const driver = this.#options.driver ?? options.driver ?? 'fuse';
    if (target.kind !== 'rafs' || driver === 'fuse') {
      await this.#covers?.remove(at);
      return;
    }
    if (this.#covers === undefined) {
      const { Covers } = await import('./covers.ts');
      this.#covers = new Covers(this.#options);
    }
    const others = [...this.#places].filter((place) => place !== at);
    await this.#covers.put(at, target.instance, { driver, accounting: options.accounting }, others);
  }

  async attach(at: string, target: Target, options: AttachOptions): Promise<void> {
    await this.#uncoverNear(canonical(at));
    await this.inner.attach(at, target, options);
    this.#places.add(canonical(at));
    await this.#cover(at, target, options);
  }

  /** The kernel drops what is mounted in directories that it has to look up again: better before than in the middle. */
  async #uncoverNear(at: string): Promise<void> {
    const below = at === '/' ? '/' : `${at}/`;
    for (const place of this.#places)
      if (place !== at && place.startsWith(below)) await this.#covers?.remove(place);
  }

  async replace(at: string, target: Target, options: AttachOptions): Promise<{ retired: Promise<void> }> {
    const gone = this.#covers?.goneAt(canonical(at)) ?? Promise.resolve();
    const { retired } = await this.inner.replace(at, target, options);
    await this.#cover(at, target, options);
    return { retired: Promise.all([retired, gone]).then(() => {}) };
  }

  async detach(at: string): Promise<void> {
    await this.#covers?.remove(canonical(at));
    await this.inner.detach(at);
    this.#places.delete(canonical(at));
    this.#covers?.forgetReasons(canonical(at));
  }

  /** Asked for more than once on the way out. */
  async unmount(): Promise<void> {
    this.#ending ??= this.#covers?.unmountAll() ?? Promise.resolve();
    await this.#ending;
    await this.inner.unmount();
  }

  override async stop(): Promise<void> {
    this.#ending ??= this.#covers?.leave() ?? Promise.resolve();
    await this.#ending;
    await this.inner.stop();
  }

  override get handover(): MountSession<RafsInstance>['handover'] {
    const { handover } = this.inner;
    if (handover === undefined) return undefined;
    return () => {
      const inner = handover();
      const inherited = this.#covers?.inheritances() ?? [];
      return inner === undefined || inherited.length === 0 ? inner : { ...inner, kernel: inherited };
    };
  }

  restore(place: HandoverPlace, target: Target, options: AttachOptions): void {
    this.inner.restore?.(place, target, options);
    this.#places.add(canonical(place.mountpoint));
    this.#restored.push({ at: place.mountpoint, target, options });
  }

  async resume(): Promise<void> {
    // first: the way to what the kernel serves leads through directories of FUSE
    await this.inner.resume?.();
    await this.#covers?.resume();
    for (const { at, target, options } of this.#restored.splice(0)) await this.#cover(at, target, options);
    this.#covers?.settle();
  }

  override counters(at: string): FsCounters {
    const stats = this.inner.counters(at);
    const counts = this.#covers?.counts(canonical(at));
    if (counts === undefined) return stats;
    const { bytes, events, denied } = counts;
    return {
      ...stats,
      data_read: stats.data_read + bytes,
      fop_hits: stats.fop_hits.map((hits, op) => hits + (op === READ ? events - denied : 0)),
      fop_errors: stats.fop_errors.map((errors, op) => errors + (op === READ ? denied : 0)),
    };
  }

  /** Absent as long as nobody has asked for another driver than FUSE. */
  override get driver(): DriverInfo | undefined {
    const { drivers: mounts = {}, reasons: fallbacks = [] } = this.#covers ?? {};
    if (Object.keys(mounts).length === 0 && fallbacks.length === 0) return this.inner.driver;
    return { name: 'fuse', fallbacks, mounts };
  }
}

/** A mountpoint as the pseudo directories spell it. */
function canonical(mountpoint: string): string {
  return `/${mountpoint
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')}`;
}
