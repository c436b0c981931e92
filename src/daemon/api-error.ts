// Errors as the HTTP API spells them: `code` is always UNDEFINED, `message` is the debug rendering of upstream's nested
// error values, which clients match on. Source: nydusd.md 5.2.

/** Rust's debug form of a string. */
export function debugString(text: string): string {
  const escaped = text.replace(/[\\"\n\r\t\0]/g, (c) =>
    c === '\n' ? '\\n' : c === '\r' ? '\\r' : c === '\t' ? '\\t' : c === '\0' ? '\\0' : `\\${c}`,
  );
  // other control characters as \u{..}
  // oxlint-disable-next-line no-control-regex
  return `"${escaped.replace(/[\x01-\x1f\x7f]/g, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`)}"`;
}

/** A failure inside the daemon, before a handler wraps it. `rendering` is what stands between the brackets. */
export class DaemonError extends Error {
  readonly rendering: string;
  readonly status: number;

  constructor(rendering: string, status: number, options?: { cause?: unknown; message?: string }) {
    super(options?.message ?? rendering, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'DaemonError';
    this.rendering = rendering;
    this.status = status;
  }

  /** A service error with a text of its own. */
  static other(text: string, options: { status?: number; cause?: unknown } = {}): DaemonError {
    return new DaemonError(`Other(${debugString(text)})`, options.status ?? 500, {
      cause: options.cause,
      message: text,
    });
  }

  static unexpectedEvent(event: string): DaemonError {
    return new DaemonError(`UnexpectedEvent(${debugString(event)})`, 400);
  }

  static unsupported(): DaemonError {
    return new DaemonError('Unsupported', 501);
  }

  static notReady(): DaemonError {
    return new DaemonError('NotReady', 503);
  }

  static upgradeManager(text: string): DaemonError {
    return new DaemonError(`UpgradeManager(${debugString(text)})`, 500, { message: text });
  }
}

/** A finished answer. */
export interface ApiResponse {
  status: number;
  /** JSON text; absent: no body and no body headers */
  body?: string;
  /** default application/json */
  contentType?: string;
}

/** Names of the handlers, as they wrap errors. */
export type Wrapper =
  | 'Configure'
  | 'DaemonInfo'
  | 'Events'
  | 'Mount'
  | 'Upgrade'
  | 'BackendMetrics'
  | 'BlobcacheMetrics'
  | 'FsBackendInfo'
  | 'FsFilesMetrics'
  | 'GlobalMetrics'
  | 'InflightMetrics'
  | 'Pattern'
  | 'CreateBlobObject'
  | 'DeleteBlobObject'
  | 'DeleteBlobFile'
  | 'GetBlobObjects';

/** What stands around a DaemonError. */
export type Shell = 'DaemonAbnormal' | 'MountFilesystem' | 'MetricsDaemon';

/** An error a client gets. */
export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'ApiError';
    this.status = status;
  }

  /** Known path, but not so. */
  static badRequest(): ApiError {
    return new ApiError(400, 'BadRequest');
  }

  static noRoute(): ApiError {
    return new ApiError(404, 'NoRoute');
  }

  static missingQuery(key: string): ApiError {
    return new ApiError(400, `QueryString(${debugString(`'${key}' should be specified in query string`)})`);
  }

  /** The body does not decode; place as the decoder counts. */
  static parseBody(problem: string, line: number, column: number): ApiError {
    return new ApiError(400, `ParseBody(Error(${debugString(problem)}, line: ${line}, column: ${column}))`);
  }

  static payloadType(wrapper: Wrapper): ApiError {
    return new ApiError(500, `${wrapper}(ResponsePayloadType)`);
  }

  /** No object of that kind is registered under the id. */
  static noCounter(wrapper: Wrapper): ApiError {
    return new ApiError(404, `${wrapper}(Metrics(Stats(NoCounter)))`);
  }

  /** Wrap anything a handler threw. */
  static wrap(wrapper: Wrapper, shell: Shell, error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    const inner =
      error instanceof DaemonError
        ? error
        : DaemonError.other(error instanceof Error ? error.message : String(error), { cause: error });
    if (shell !== 'MetricsDaemon') {
      return new ApiError(inner.status, `${wrapper}(${shell}(${inner.rendering}))`, error);
    }
    return new ApiError(500, `${wrapper}(Metrics(Daemon(${inner.rendering})))`, error);
  }
}

/** Answer of an error. */
export function errorResponse(error: ApiError): ApiResponse {
  return { status: error.status, body: JSON.stringify({ code: 'UNDEFINED', message: error.message }) };
}
