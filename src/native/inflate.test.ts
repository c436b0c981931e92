import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { beginInflate, endInflate, inflateStep, type InflateStep } from './inflate.ts';

function decode(
  bytes: Uint8Array,
  inputSize: number,
  outputSize: number,
): { plain: Buffer; last: InflateStep } {
  const stream = beginInflate();
  assert.ok(stream !== undefined);
  const parts: Buffer[] = [];
  let last: InflateStep = { read: 0, written: 0, ended: 'no', problem: undefined };
  for (let at = 0; ; at += last.read) {
    const output = new Uint8Array(outputSize);
    last = inflateStep(stream, bytes.subarray(at, at + inputSize), output, last.ended === 'member');
    parts.push(Buffer.from(output.subarray(0, last.written)));
    if (last.problem !== undefined || last.ended === 'stream' || (last.read === 0 && last.written === 0))
      break;
  }
  endInflate(stream);
  return { plain: Buffer.concat(parts), last };
}

const plain = Buffer.from(
  Array.from({ length: 20_000 }, (_, i) => String.fromCharCode(97 + ((i * i) % 23))).join(''),
);
const packed = gzipSync(plain);

test('inflateStep: whatever the sizes of input and output, the bytes are those that were packed', () => {
  for (const [input, output] of [
    [packed.length, 30_000],
    [packed.length, 20_000],
    [7, 1000],
    [1, 1],
    [1000, 7],
  ] as const) {
    const decoded = decode(packed, input, output);
    assert.ok(decoded.plain.equals(plain), `${input} and ${output}`);
    assert.deepEqual(decoded.last, { read: 0, written: 0, ended: 'member', problem: undefined });
  }
});

test('inflateStep: members follow one another, and zero bytes end the stream', () => {
  const two = Buffer.concat([packed, gzipSync(Buffer.from('second'))]);
  for (const size of [1, 50, 100_000]) {
    assert.equal(decode(two, size, 4096).plain.toString(), `${plain.toString()}second`);
    const padded = decode(Buffer.concat([two, Buffer.alloc(40), Buffer.from('dropped')]), size, 4096);
    assert.equal(padded.plain.length, plain.length + 6);
    assert.equal(padded.last.ended, 'stream');
  }
});

test('inflateStep: damage is told in words of zlib', () => {
  const flipped = Buffer.from(packed);
  flipped[flipped.length - 6] = (flipped[flipped.length - 6] ?? 0) ^ 1;
  assert.equal(decode(flipped, 100, 4096).last.problem, 'incorrect data check');
  assert.equal(decode(Buffer.from('no gzip at all'), 100, 4096).last.problem, 'incorrect header check');
  const behind = decode(Buffer.concat([packed, Buffer.from('garbage')]), 100, 4096);
  assert.equal(behind.last.problem, 'incorrect header check');
  assert.equal(decode(packed.subarray(0, packed.length - 9), 100, 4096).last.ended, 'no');
});
