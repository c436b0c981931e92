// Size and byte ranges of one object over HTTP. Answers are judged by what they say about themselves: status, Content-Range,
// length; a server that ignores `Range` is an error, not wrong bytes. Source: blob-and-cache.md 21.1, 21.2; RFC 9110 section 14.
import { BackendError } from '../../base/errors.ts';
import { answerError } from '../../registry/answer-error.ts';
import type { HttpAnswer } from '../../registry/http.ts';
import { parseContentRange, parseUnsatisfied } from '../../registry/ranges.ts';
import { redactUrl } from '../../registry/redact.ts';

/** An answer, and the URL that gave it. */
export interface Asked {
  answer: HttpAnswer;
  url: URL;
}

/** Ask for the object. The status is the caller's. */
export type Ask = (method: 'GET' | 'HEAD', headers: Record<string, string>) => Promise<Asked>;

/**
 * Where a range goes. It survives attempts: what has arrived is not asked for again. Several answers may fill it side by side, each from
 * its own place on: a byte is written once, by the one that brings it first.
 */
export interface RangeTarget {
  /** first byte in the object */
  start: number;
  bytes: Uint8Array;
  /** bytes that have arrived, from its start on */
  done: number;
  /** told after each piece */
  progress?: ((done: number) => void) | undefined;
}

/** One of the requests that fill a target. */
export interface RangeStream {
  /** told when the headers of an answer are there */
  answered?: () => void;
  /** true: what still comes is not wanted, nothing is written any more */
  isOver?: () => boolean;
}

/** A body that is not what its headers announced: nothing of that answer counts. */
export class UnannouncedBody extends BackendError {
  constructor(url: URL, problem: string, length: number) {
    super(`GET ${redactUrl(url)}: the body has ${problem} than the ${length} bytes it announced`, {
      retryable: true,
    });
  }
}

const isSuccess = (status: number): boolean => status >= 200 && status <= 299;

/** Bytes of the object. @throws RegistryError, BackendError EIO */
export async function sizeByHead(ask: Ask): Promise<number> {
  const { answer, url } = await ask('HEAD', {});
  await answer.discard();
  if (isSuccess(answer.status) && answer.contentLength !== undefined) return answer.contentLength;
  if (answer.status === 404) throw await answerError(answer, 'HEAD', url);
  // signed targets may take GET only, and some answers lack the length: ask for the first byte
  const first = await ask('GET', { range: 'bytes=0-0' });
  const { total } = parseContentRange(first.answer.header('content-range')) ?? {};
  if (first.answer.status === 206 && total !== undefined) {
    await first.answer.discard();
    return total;
  }
  if (first.answer.status >= 400) throw await answerError(first.answer, 'GET', first.url);
  await first.answer.discard();
  throw new BackendError(`HEAD ${redactUrl(url)}: status ${answer.status} without a length`);
}

/**
 * Fill a target; `done` stays short only where the object ends.
 *
 * @throws RegistryError EIO  no answer, or one that is no success; BackendError EIO an answer that cannot be right
 */
export async function readRange(ask: Ask, target: RangeTarget, stream: RangeStream = {}): Promise<void> {
  // a server may cut a range short as long as it says so
  for (let at = target.done; at < target.bytes.length;) {
    const { end, total } = await readPart(ask, target, at, stream);
    if (end === at || (total !== undefined && target.start + end >= total)) return;
    at = end;
  }
}

interface Part {
  /** where the answer ended, in the target */
  end: number;
  /** bytes of the whole object where the server says */
  total: number | undefined;
}

/** One answer. @param at where it starts in the target */
async function readPart(ask: Ask, target: RangeTarget, at: number, stream: RangeStream): Promise<Part> {
  const start = target.start + at;
  const end = target.start + target.bytes.length;
  const { answer, url } = await ask('GET', { range: `bytes=${start}-${end - 1}` });
  stream.answered?.();
  const refuse = async (problem: string): Promise<BackendError> => {
    await answer.discard();
    return new BackendError(`GET ${redactUrl(url)}: ${problem}`, { retryable: true });
  };
  if (answer.status === 416) {
    const total = parseUnsatisfied(answer.header('content-range'));
    if (total === undefined || start < total) throw await answerError(answer, 'GET', url);
    await answer.discard();
    return { end: at, total };
  }
  if (answer.status >= 400) throw await answerError(answer, 'GET', url);
  if (answer.status === 200) {
    const whole = answer.contentLength;
    if (start === 0 && whole !== undefined && whole <= end)
      return { end: await fill(answer, at, whole, url, target, stream), total: whole };
    throw await refuse(
      `status 200 with ${whole ?? 'unknown'} bytes, bytes ${start} to ${end} were asked for`,
    );
  }
  const got = parseContentRange(answer.header('content-range'));
  if (answer.status !== 206 || got === undefined || got.start !== start || got.end > end) {
    const shown = JSON.stringify(answer.header('content-range').slice(0, 80));
    throw await refuse(
      `status ${answer.status} with Content-Range ${shown}, bytes ${start} to ${end} were asked for`,
    );
  }
  return { end: await fill(answer, at, got.end - got.start, url, target, stream), total: got.total };
}

/** Body of exactly `length` bytes. @returns where it ended in the target */
async function fill(
  answer: HttpAnswer,
  from: number,
  length: number,
  url: URL,
  target: RangeTarget,
  stream: RangeStream,
): Promise<number> {
  let at = from;
  for await (const piece of answer.body()) {
    if (stream.isOver?.() === true) return at;
    if (at - from + piece.length > length) throw new UnannouncedBody(url, 'more', length);
    const end = at + piece.length;
    if (end > target.done) {
      target.bytes.set(piece.subarray(target.done - at), target.done);
      target.done = end;
      target.progress?.(end);
    }
    at = end;
  }
  if (at - from < length && stream.isOver?.() !== true)
    throw new UnannouncedBody(url, `less (${at - from})`, length);
  return at;
}
