// One step of a gzip stream as a task of the pool: buffers go there and come back, nothing is copied.
import { inflateStep, type InflateStep, type InflateStream } from '../native/inflate.ts';

export interface InflateJob {
  stream: InflateStream;
  input: ArrayBuffer;
  /** part of the input that is still to be decoded */
  from: number;
  to: number;
  output: ArrayBuffer;
  /** the step before ended a member */
  between: boolean;
}

export interface InflateDone extends InflateStep {
  input: ArrayBuffer;
  output: ArrayBuffer;
}

export function inflateJob({ stream, input, from, to, output, between }: InflateJob): InflateDone {
  const step = inflateStep(stream, new Uint8Array(input, from, to - from), new Uint8Array(output), between);
  return { ...step, input, output };
}
