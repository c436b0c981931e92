// Requests to the API socket of a daemon. Source: nydusd.md 5.1, 5.3.
import type * as Http from 'node:http';
import { BackendError, messageOf, UsageError } from '../../base/errors.ts';

/** A value of a JSON document. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Answer {
  status: number;
  /** null when there is none */
  body: Json;
}

export type Method = 'GET' | 'PUT' | 'POST' | 'DELETE';

/** Largest answer that is read: the counters of every file of a large image. */
const MAX_ANSWER = 256 << 20;
/** How long the daemon may be silent, milliseconds. A mount of a large image takes less than a second. */
const SILENCE_MS = 60_000;

/** One member of an object, null for whatever has no such member. */
export function member(value: Json, ...path: string[]): Json {
  let at = value;
  for (const key of path) {
    at =
      at !== null && typeof at === 'object' && !Array.isArray(at) && Object.hasOwn(at, key)
        ? (at[key] ?? null)
        : null;
  }
  return at;
}

/** A number of an object, 0 when it is none. */
export function numberAt(value: Json, ...path: string[]): number {
  const found = member(value, ...path);
  return typeof found === 'number' ? found : 0;
}

/** A list of numbers of an object, filled up with zeros. */
export function numbersAt(value: Json, key: string, length: number): number[] {
  const found = member(value, key);
  const list = Array.isArray(found) ? found : [];
  return Array.from({ length }, (_, at) => (typeof list[at] === 'number' ? (list[at] as number) : 0));
}

function parseBody(text: string): Json {
  if (text === '') return null;
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    throw new BackendError(`the daemon's answer is not JSON: ${messageOf(error)}`, { cause: error });
  }
}

async function readAll(response: Http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_ANSWER)
      throw new BackendError(`the daemon's answer is longer than the limit of ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The API behind one socket. */
export class DaemonApi {
  readonly #socket: string;
  readonly #signal: AbortSignal | undefined;

  constructor(socket: string, signal?: AbortSignal) {
    this.#socket = socket;
    this.#signal = signal;
  }

  /**
   * Send one request.
   *
   * @param path with its query, escaped
   * @throws UsageError nobody listens on the socket; BackendError the daemon hung up, was silent, or talks nonsense
   */
  async request(method: Method, path: string, body?: Json): Promise<Answer> {
    const http = process.getBuiltinModule('node:http');
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await new Promise<Http.IncomingMessage>((resolve, reject) => {
      const request = http.request({
        socketPath: this.#socket,
        method,
        path,
        headers: {
          'user-agent': 'nydusctl',
          ...(text === undefined ? {} : { 'content-length': Buffer.byteLength(text) }),
        },
        agent: false,
        timeout: SILENCE_MS,
        ...(this.#signal === undefined ? {} : { signal: this.#signal }),
      });
      request.on('response', resolve);
      request.on('timeout', () =>
        request.destroy(new BackendError(`the daemon did not answer within ${SILENCE_MS / 1000} s`)),
      );
      request.on('error', (error) => reject(this.#connectError(error)));
      request.end(text);
    });
    return { status: response.statusCode ?? 0, body: parseBody(await readAll(response)) };
  }

  #connectError(error: Error): Error {
    if (this.#signal?.aborted === true || error instanceof BackendError) return error;
    // the first line is what upstream's client prints
    return new UsageError('client error (Connect)', {
      cause: error,
      hint: `is nydusd running, and is ${this.#socket} what its --apisock says?`,
    });
  }
}
