// Things that this process knows of a place, whichever backends use it: made by the first user, gone with the last.

export class SharedStates<T extends object> {
  readonly #entries = new Map<string, { state: T; users: number }>();

  /** The state of a place; give it back with `release`. @param make for the first user */
  acquire(key: string, make: () => T): T {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { state: make(), users: 0 };
      this.#entries.set(key, entry);
    }
    entry.users++;
    return entry.state;
  }

  /** @returns true when nobody uses it any more: it is to be closed */
  release(key: string, state: T): boolean {
    const entry = this.#entries.get(key);
    if (entry?.state !== state || --entry.users > 0) return false;
    this.#entries.delete(key);
    return true;
  }
}
