// The five error classes of the project. Codes are API, messages are not (STYLE 2.3).

/** Codes scripts may match on. */
export type NydusCode =
  'ERR_NYDUS_FORMAT' | 'ERR_NYDUS_INTEGRITY' | 'ERR_NYDUS_BACKEND' | 'ERR_NYDUS_REGISTRY' | 'ERR_NYDUS_USAGE';

export interface NydusErrorOptions {
  /** what the user can do next; one sentence */
  hint?: string;
  cause?: unknown;
}

/** Base of all our errors: a stable code, the errno a reader sees, a message and a next step. */
export class NydusError extends Error {
  readonly code: NydusCode;
  /** name of the errno that a file system user gets, such as `EIO` */
  readonly errno: string;
  readonly hint: string | undefined;

  constructor(code: NydusCode, errno: string, message: string, options: NydusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.errno = errno;
    this.hint = options.hint;
  }
}

/** Where bytes break their format. */
export interface FormatPlace {
  struct: string;
  field?: string;
  /** byte offset in the file or buffer that was read */
  offset?: number;
}

/** Bytes break their format; never retried. */
export class FormatError extends NydusError {
  readonly place: FormatPlace;

  /**
   * @param options.errno   what a file system user gets, `EINVAL` unless given
   * @param options.summary words that scripts know from upstream; they start the message
   */
  constructor(
    place: FormatPlace,
    problem: string,
    options: NydusErrorOptions & { errno?: string; summary?: string } = {},
  ) {
    const summary = options.summary === undefined ? '' : `${options.summary}: `;
    const field = place.field === undefined ? '' : `.${place.field}`;
    const at = place.offset === undefined ? '' : ` at byte ${place.offset}`;
    super(
      'ERR_NYDUS_FORMAT',
      options.errno ?? 'EINVAL',
      `${summary}${place.struct}${field}${at}: ${problem}`,
      options,
    );
    this.place = place;
  }
}

/** A digest or CRC differs: drop from the cache, fetch once more. */
export class IntegrityError extends NydusError {
  constructor(message: string, options: NydusErrorOptions = {}) {
    super('ERR_NYDUS_INTEGRITY', 'EIO', message, options);
  }
}

/** Storage failed. */
export class BackendError extends NydusError {
  readonly retryable: boolean;

  constructor(message: string, options: NydusErrorOptions & { retryable?: boolean } = {}) {
    super('ERR_NYDUS_BACKEND', 'EIO', message, options);
    this.retryable = options.retryable ?? false;
  }
}

/** What one answer of a registry says. */
export interface RegistryAnswer {
  method: string;
  /** without user info; signatures and tokens of its query are blanked */
  url: string;
  /** 0 when there was no answer */
  status: number;
  /** code list of the answer, such as `MANIFEST_UNKNOWN` */
  codes: readonly string[];
}

/** A registry refused, failed or answered what cannot be right. Never holds credentials. */
export class RegistryError extends NydusError {
  readonly answer: RegistryAnswer;
  /** true when the same request may succeed later */
  readonly retryable: boolean;
  /** the peer speaks HTTP where HTTPS was tried, or refuses connections there */
  readonly speaksHttp: boolean;
  /** what `Retry-After` asked for */
  readonly retryAfterMs: number | undefined;

  constructor(
    answer: RegistryAnswer,
    problem: string,
    options: NydusErrorOptions & {
      retryable?: boolean;
      speaksHttp?: boolean;
      retryAfterMs?: number | undefined;
    } = {},
  ) {
    super('ERR_NYDUS_REGISTRY', 'EIO', `${answer.method} ${answer.url}: ${problem}`, options);
    this.answer = answer;
    this.retryable = options.retryable ?? false;
    this.speaksHttp = options.speaksHttp ?? false;
    this.retryAfterMs = options.retryAfterMs;
  }

  get status(): number {
    return this.answer.status;
  }
}

/** The request cannot be served as asked. */
export class UsageError extends NydusError {
  /** process exit status; 2 unless the spec lists another one for this mistake */
  readonly exitCode: number;

  constructor(message: string, options: NydusErrorOptions & { exitCode?: number } = {}) {
    super('ERR_NYDUS_USAGE', 'EINVAL', message, options);
    this.exitCode = options.exitCode ?? 2;
  }
}

/** Message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
