import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlobReader, ReadHow } from '../backend/backend.ts';
import { StreamedRange } from './streamed-range.ts';

interface Source {
  reader: BlobReader;
  how: () => ReadHow;
  finish: (bytes: number) => void;
  fail: (error: Error) => void;
}

/** A reader whose answer arrives when the test says so: byte i is i. */
function source(): Source {
  let how: ReadHow = {};
  let settle: { resolve: (bytes: Uint8Array) => void; reject: (error: Error) => void } | undefined;
  const reader: BlobReader = {
    blobId: 'x',
    fd: -1,
    size: () => Promise.resolve(100),
    read: (_offset, _length, _signal, given) => {
      how = given ?? {};
      return new Promise((resolve, reject) => (settle = { resolve, reject }));
    },
    note: () => {},
    close: () => {},
  };
  return {
    reader,
    how: () => how,
    finish: (bytes) => settle?.resolve(how.into?.subarray(0, bytes) ?? new Uint8Array()),
    fail: (error) => settle?.reject(error),
  };
}

function arrive({ how }: Source, done: number): void {
  const { into, progress } = how();
  for (let i = 0; i < done; i++) if (into !== undefined) into[i] = i;
  progress?.(done);
}

test('StreamedRange: a part is there as soon as its own bytes are', async () => {
  const from = source();
  let over = false;
  const range = new StreamedRange(from.reader, 0, 100, false, () => (over = true));
  const first = range.part(0, 40);
  const rest = range.part(40, 100);
  arrive(from, 50);
  assert.deepEqual(
    [...(await first)],
    Array.from({ length: 40 }, (_, i) => i),
  );
  assert.equal(over, false);
  arrive(from, 100);
  from.finish(100);
  assert.equal((await rest)[0], 40);
  assert.equal((await range.part(99, 100))[0], 99);
  assert.equal(over, true);
  assert.ok((await first).buffer instanceof SharedArrayBuffer);
});

test('StreamedRange: a failure reaches only the parts that have not arrived', async () => {
  const from = source();
  const range = new StreamedRange(from.reader, 0, 100, true, () => {});
  assert.equal(from.how().prefetch, true);
  const first = range.part(0, 40);
  const rest = assert.rejects(range.part(40, 100), /broken/);
  arrive(from, 50);
  from.fail(new Error('broken'));
  await rest;
  assert.equal((await first).length, 40);
  assert.equal((await range.part(10, 50)).length, 40);
  await assert.rejects(range.part(10, 51), /broken/);
});

test('StreamedRange: the end of the blob cuts a part', async () => {
  const from = source();
  const range = new StreamedRange(from.reader, 0, 100, false, () => {});
  const part = range.part(60, 100);
  arrive(from, 70);
  from.finish(70);
  assert.equal((await part).length, 10);
  assert.equal((await range.part(80, 90)).length, 0);
});

test('StreamedRange: a reader that brings its own memory is copied', async () => {
  const { reader } = source();
  reader.read = () => Promise.resolve(Uint8Array.of(1, 2, 3));
  const range = new StreamedRange(reader, 0, 3, false, () => {});
  assert.deepEqual([...(await range.part(1, 3))], [2, 3]);
});
