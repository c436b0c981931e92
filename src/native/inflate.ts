// Streams of gzip, decoded a step at a time and synchronously, by the zlib inside the Node executable (or libz.so.1 where Node
// links it). A stream is a z_stream in shared memory: any thread may do the next step, one at a time. The streams of node:zlib
// pay a thread hand-over for each piece that goes in or out. Source: zlib.h 1.3; RFC 1952.
import { libcFunction, loadKoffi } from './libc.ts';

/** Size and offsets of z_stream where pointers and `unsigned long` have 8 bytes. Source: zlib.h. */
const STREAM_SIZE = 112;
const NEXT_IN = 0;
const AVAIL_IN = 8;
const NEXT_OUT = 24;
const AVAIL_OUT = 32;
const MESSAGE = 48;
/** 15 bits of window, and 16: gzip headers alone. Source: zlib.h, inflateInit2. */
const GZIP_WINDOW = 15 + 16;
const NO_FLUSH = 0;
/** inflateInit2 compares the first character of the version its caller was made for. */
const VERSION = '1.3';
const Z_OK = 0;
const Z_STREAM_END = 1;
/** no progress was possible: more input or more room is needed */
const Z_BUF_ERROR = -5;
/** Longest message that is read; zlib's own are shorter. */
const MAX_MESSAGE = 128;

/** A gzip stream on its way; structured clones share it. */
export type InflateStream = SharedArrayBuffer;

/** What a step did. */
export interface InflateStep {
  /** bytes taken from the input */
  read: number;
  /** bytes put into the output */
  written: number;
  /** the last member so far is complete, and nothing of another one was seen; or nothing more counts, zero bytes came */
  ended: 'no' | 'member' | 'stream';
  /** what is wrong with the stream, in words of zlib; the stream is of no further use */
  problem: string | undefined;
}

interface Inflater {
  init: (stream: Uint8Array, bits: number, version: string, size: number) => number;
  inflate: (stream: Uint8Array, flush: number) => number;
  reset: (stream: Uint8Array) => number;
  end: (stream: Uint8Array) => number;
}

let known: Inflater | null | undefined;

function lookUp(): Inflater | null {
  for (const name of [null, 'libz.so.1']) {
    try {
      const library = loadKoffi().load(name);
      return {
        init: library.func(
          'int inflateInit2_(void *stream, int bits, const char *version, int size)',
        ) as Inflater['init'],
        inflate: library.func('int inflate(void *stream, int flush)') as Inflater['inflate'],
        reset: library.func('int inflateReset(void *stream)') as Inflater['reset'],
        end: library.func('int inflateEnd(void *stream)') as Inflater['end'],
      };
    } catch {
      // not there: the next name, or the portable way
    }
  }
  return null;
}

function inflater(): Inflater {
  known ??= lookUp();
  if (known === null) throw new Error('no zlib');
  return known;
}

let addressOf: ((target: Uint8Array, source: Uint8Array, size: number) => number) | undefined;

/** Where bytes are in memory: what a copy of none of them returns. They stay there while their buffer lives. */
function address(bytes: Uint8Array): bigint {
  addressOf ??= libcFunction('uintptr_t memmove(void *target, void *source, size_t size)');
  return BigInt(addressOf(bytes, bytes, 0));
}

function messageAt(pointer: bigint): string {
  if (pointer === 0n) return 'invalid data';
  const at = Number(pointer);
  const length = Number(
    libcFunction<(at: number, most: number) => number | bigint>(
      'size_t strnlen(uintptr_t text, size_t most)',
    )(at, MAX_MESSAGE),
  );
  return Buffer.from(new Uint8Array(loadKoffi().view(at, length)).slice()).toString('latin1');
}

/** A new stream, to be ended with `endInflate`; undefined where no library has zlib. */
export function beginInflate(): InflateStream | undefined {
  known ??= lookUp();
  if (known === null) return undefined;
  const stream = new SharedArrayBuffer(STREAM_SIZE);
  return known.init(new Uint8Array(stream), GZIP_WINDOW, VERSION, STREAM_SIZE) === Z_OK ? stream : undefined;
}

/**
 * Decode until the input is used up or the output is full. Members may follow one another; zero bytes behind one end the
 * stream, whatever comes after them (as gzip(1) and node:zlib take it).
 *
 * @param between the step before ended a member, and this input comes after it
 */
export function inflateStep(
  stream: InflateStream,
  input: Uint8Array,
  output: Uint8Array,
  between: boolean,
): InflateStep {
  const { inflate, reset } = inflater();
  const bytes = new Uint8Array(stream);
  const view = new DataView(stream);
  view.setBigUint64(NEXT_IN, address(input), true);
  view.setUint32(AVAIL_IN, input.length, true);
  view.setBigUint64(NEXT_OUT, address(output), true);
  view.setUint32(AVAIL_OUT, output.length, true);
  const done = (ended: InflateStep['ended'], problem?: string): InflateStep => ({
    read: input.length - view.getUint32(AVAIL_IN, true),
    written: output.length - view.getUint32(AVAIL_OUT, true),
    ended,
    problem,
  });
  for (let atEnd = between; ;) {
    if (atEnd) {
      const left = view.getUint32(AVAIL_IN, true);
      if (left === 0) return done('member');
      if (input[input.length - left] === 0) {
        view.setUint32(AVAIL_IN, 0, true);
        return done('stream');
      }
      reset(bytes);
    }
    const status = inflate(bytes, NO_FLUSH);
    if (status === Z_STREAM_END) atEnd = true;
    else if (status === Z_OK || status === Z_BUF_ERROR) return done('no');
    else return done('no', messageAt(view.getBigUint64(MESSAGE, true)));
  }
}

/** Give back what a stream holds. No step may be under way. */
export function endInflate(stream: InflateStream): void {
  inflater().end(new Uint8Array(stream));
}
