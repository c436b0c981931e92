// Content checked against its digest while it streams by. Source: OCI image spec 1.1 "descriptor.md", verification.
import type { Hash } from 'node:crypto';
import { FormatError, IntegrityError } from '../base/errors.ts';
import { isDigest } from './reference.ts';

/** Loaded when it is needed: a daemon that serves what is local never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** `sha256:<hex>` of bytes. */
export function sha256Of(bytes: Uint8Array): string {
  return `sha256:${crypto().createHash('sha256').update(bytes).digest('hex')}`;
}

/** Counts and digests content. */
export class Verifier {
  readonly #expected: string;
  readonly #size: number | undefined;
  readonly #what: string;
  readonly #hash: Hash;
  received = 0;

  /**
   * @param size bytes, undefined = unknown
   * @throws FormatError EINVAL  the digest is none we know
   */
  constructor(what: string, digest: string, size: number | undefined) {
    if (!isDigest(digest)) throw new FormatError({ struct: 'digest' }, `${JSON.stringify(digest)} is none`);
    this.#what = what;
    this.#expected = digest;
    this.#size = size;
    this.#hash = crypto().createHash(digest.slice(0, digest.indexOf(':')));
  }

  /** @throws IntegrityError EIO  more came than there should be */
  add(piece: Uint8Array): void {
    this.received += piece.length;
    if (this.#size !== undefined && this.received > this.#size) {
      throw new IntegrityError(`${this.#what}: more than the ${this.#size} bytes that ${this.#expected} has`);
    }
    this.#hash.update(piece);
  }

  /** @throws IntegrityError EIO  size or digest differ */
  finish(): void {
    if (this.#size !== undefined && this.received !== this.#size) {
      throw new IntegrityError(`${this.#what}: ${this.received} bytes, ${this.#expected} has ${this.#size}`);
    }
    const [algorithm] = this.#expected.split(':');
    const found = `${algorithm}:${this.#hash.digest('hex')}`;
    if (found !== this.#expected) {
      throw new IntegrityError(`${this.#what}: content is ${found}, expected ${this.#expected}`, {
        hint: 'the registry or something before it changes what it sends',
      });
    }
  }
}
