// A shared backend as one image sees it: counters of its own, settings of its own, and an end that others do not notice.
import { BackendError } from '../../base/errors.ts';
import type { Backend, BackendSetting, BlobReader, ReadHow } from './backend.ts';
import type { Link } from './link.ts';
import { BackendMeter } from './meter.ts';

/** A backend that others may use too. */
export interface LentBackend {
  readonly backend: Backend;
  open(blobId: string): Promise<BlobReader>;
  closeReader(blobId: string): Promise<void>;
}

/** Who lends backends. */
export interface BackendLender {
  /** the backend to use once a setting has another value; may be the same */
  change(lent: LentBackend, setting: BackendSetting, value: string, open: () => Backend): LentBackend;
  /** true: nobody else has it */
  giveBack(lent: LentBackend): boolean;
}

export class LeasedBackend implements Backend {
  readonly type: string;
  readonly meter = new BackendMeter();
  readonly #open: () => Backend;
  readonly #lender: BackendLender;
  readonly #readers = new Set<LeasedReader>();
  readonly #closing = new AbortController();
  #lent: LentBackend;
  #closed: Promise<void> | undefined;

  /** @param open makes another backend of the same configuration */
  constructor(lent: LentBackend, open: () => Backend, lender: BackendLender) {
    this.#lent = lent;
    this.#open = open;
    this.#lender = lender;
    this.type = lent.backend.type;
    if (lent.backend.meter.outage !== undefined) {
      const none = { down: false, outages: 0, outage_millis_total: 0, waiting: 0 };
      this.meter.outage = () => this.#lent.backend.meter.outage?.() ?? none;
      this.meter.hedge = () => this.#lent.backend.meter.hedge?.() ?? { requests: 0, wins: 0 };
    }
  }

  get isDown(): boolean {
    return this.#lent.backend.isDown === true;
  }

  async open(blobId: string): Promise<BlobReader> {
    const reader = new LeasedReader(
      this.#lent,
      await this.#lent.open(blobId),
      this.meter,
      this.#closing.signal,
    );
    this.#readers.add(reader);
    return reader;
  }

  configure(setting: BackendSetting, value: string): void {
    const before = this.#lent;
    if (before.backend.configure === undefined) return;
    this.#lent = this.#lender.change(before, setting, value, this.#open);
    if (this.#lent === before) return;
    const moves = [...this.#readers].map((reader) => reader.move(this.#lent));
    // what is under way ends where it began
    void Promise.allSettled(moves).then(() => this.#giveBack(before));
  }

  async #giveBack(lent: LentBackend): Promise<void> {
    if (this.#lender.giveBack(lent)) await lent.backend.close();
  }

  /** Reads over a network end; those of others go on. */
  giveUp(): void {
    if (this.#lent.backend.giveUp !== undefined)
      this.#closing.abort(new BackendError('the backend is closed'));
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.giveUp();
    const readers = [...this.#readers];
    await Promise.allSettled(readers.map((reader) => reader.leave()));
    await this.#giveBack(this.#lent);
  }
}

class LeasedReader implements BlobReader {
  readonly blobId: string;
  readonly #meter: BackendMeter;
  readonly #closing: AbortSignal;
  /** the one to read from */
  #wanted: LentBackend;
  /** the one that has the blob open for us */
  #held: LentBackend | undefined;
  #reader: BlobReader;
  /** undefined: the blob could not be opened, whoever reads tries again */
  #next: Promise<BlobReader> | undefined;
  /** openings, one after another */
  #turn: Promise<void> = Promise.resolve();

  constructor(lent: LentBackend, reader: BlobReader, meter: BackendMeter, closing: AbortSignal) {
    this.blobId = reader.blobId;
    this.#wanted = lent;
    this.#held = lent;
    this.#reader = reader;
    this.#next = Promise.resolve(reader);
    this.#meter = meter;
    this.#closing = closing;
  }

  get fd(): number {
    return this.#reader.fd;
  }

  get link(): Link | undefined {
    return this.#reader.link;
  }

  /** Read from another backend from now on. @throws BackendError  it has no such blob; the next read asks it again */
  async move(lent: LentBackend): Promise<void> {
    this.#wanted = lent;
    this.#next = undefined;
    await this.#open();
  }

  #open(): Promise<BlobReader> {
    if (this.#next !== undefined) return this.#next;
    const opening = this.#turn.then(() => this.#exchange());
    this.#next = opening;
    this.#turn = opening.then(
      () => {},
      () => {
        if (this.#next === opening) this.#next = undefined;
      },
    );
    return opening;
  }

  /** Open the blob where it is wanted, and give back where it was, whether that succeeds or not. */
  async #exchange(): Promise<BlobReader> {
    const [before, lent] = [this.#held, this.#wanted];
    if (before === lent) return this.#reader;
    try {
      this.#reader = await lent.open(this.blobId);
      this.#held = lent;
    } catch (error) {
      this.#held = undefined;
      throw error;
    } finally {
      await before?.closeReader(this.blobId);
    }
    return this.#reader;
  }

  async size(): Promise<number> {
    return (await this.#open()).size();
  }

  async read(offset: number, length: number, signal?: AbortSignal, how?: ReadHow): Promise<Uint8Array> {
    this.#closing.throwIfAborted();
    const either = signal === undefined ? this.#closing : AbortSignal.any([signal, this.#closing]);
    return (await this.#open()).read(offset, length, either, { ...how, counted: this.#meter });
  }

  note(offset: number, got: number, millis: number): void {
    this.#reader.note(offset, got, millis);
    this.#meter.record(got, millis);
  }

  /** The backend closes what nobody uses any more. */
  async leave(): Promise<void> {
    await this.#turn;
    const held = this.#held;
    this.#held = undefined;
    await held?.closeReader(this.blobId);
  }

  close(): void {}
}
