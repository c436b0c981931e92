import assert from 'node:assert/strict';
import { closeSync, writeSync } from 'node:fs';
import { describe, it } from 'node:test';
import { createSlots, readSlots, SLOT_SIZE, writeSlot } from './state-slots.ts';

describe('readSlots', () => {
  it('gives the two newest states, the newest first', (t) => {
    const fd = createSlots();
    t.after(() => closeSync(fd));
    assert.deepEqual(readSlots(fd), []);
    for (const [at, text] of ['one', 'two', 'three'].entries()) writeSlot(fd, at + 1, Buffer.from(text));
    assert.deepEqual(
      readSlots(fd).map(({ sequence, bytes }) => [sequence, bytes.toString()]),
      [
        [3, 'three'],
        [2, 'two'],
      ],
    );
  });

  it('leaves out a place whose length cannot be', (t) => {
    const fd = createSlots();
    t.after(() => closeSync(fd));
    writeSlot(fd, 1, Buffer.from('whole'));
    writeSlot(fd, 2, Buffer.from('x'));
    const head = Buffer.alloc(16, 0xff);
    writeSync(fd, head, 0, 16, 0);
    assert.deepEqual(
      readSlots(fd).map(({ bytes }) => bytes.toString()),
      ['whole'],
    );
    assert.throws(() => writeSlot(fd, 3, { length: SLOT_SIZE } as Uint8Array), RangeError);
  });
});
