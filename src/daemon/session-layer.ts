// A mount session around another one: what a layer has nothing to do with goes to the session inside as it is.
import type {
  AttachOptions,
  DriverInfo,
  FailoverPolicy,
  FsCounters,
  HandoverPlace,
  ImageInstance,
  InflightOp,
  MountSession,
  MountTarget,
} from './parts.ts';

export abstract class SessionLayer<I extends ImageInstance> implements MountSession<I> {
  readonly ended: Promise<void>;
  protected readonly inner: MountSession<I>;

  constructor(inner: MountSession<I>) {
    this.inner = inner;
    this.ended = inner.ended;
  }

  abstract attach(at: string, target: MountTarget<I>, options: AttachOptions): Promise<void>;

  abstract replace(
    at: string,
    target: MountTarget<I>,
    options: AttachOptions,
  ): Promise<{ retired: Promise<void> }>;

  abstract detach(at: string): Promise<void>;

  abstract unmount(): Promise<void>;

  abstract restore(place: HandoverPlace, target: MountTarget<I>, options: AttachOptions): void;

  abstract resume(): Promise<void>;

  stop(): Promise<void> {
    return this.inner.stop();
  }

  get handover(): MountSession<I>['handover'] {
    const { handover } = this.inner;
    return handover === undefined ? undefined : () => handover();
  }

  async drain(policy: FailoverPolicy): Promise<void> {
    await this.inner.drain?.(policy);
  }

  counters(at: string): FsCounters {
    return this.inner.counters(at);
  }

  files(at: string): unknown {
    return this.inner.files(at);
  }

  pattern(at: string): unknown {
    return this.inner.pattern(at);
  }

  takeLatest(at: string): unknown {
    return this.inner.takeLatest(at);
  }

  inflight(): readonly InflightOp[] {
    return this.inner.inflight();
  }

  setWireLog(on: boolean): void {
    this.inner.setWireLog(on);
  }

  get driver(): DriverInfo | undefined {
    return this.inner.driver;
  }
}
