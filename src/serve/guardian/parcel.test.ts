import assert from 'node:assert/strict';
import { closeSync, fstatSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { tempDir } from '../../../test/support/golden.ts';
import { createMemfd } from '../../native/memfd.ts';
import { socketPair } from '../../native/fd-passing.ts';
import { isParcel, openParcel, packParcel } from './parcel.ts';

const openCount = (): number => readdirSync('/proc/self/fd').length;

describe('packParcel and openParcel', () => {
  it('keep 40 files and a text, in order, however often one looks and after their maker has closed them', (t) => {
    const dir = tempDir(t);
    const before = openCount();
    const made = Array.from({ length: 40 }, (_, i) => {
      writeFileSync(join(dir, `${i}`), `${i}`);
      return openSync(join(dir, `${i}`), 'r');
    });
    const inodes = made.map((fd) => fstatSync(fd).ino);
    const parcel = packParcel('text ü', made);
    for (const fd of made) closeSync(fd);
    assert.equal(isParcel(parcel), true);
    for (let i = 0; i < 3; i++) {
      const { text, fds } = openParcel(parcel);
      assert.equal(text, 'text ü');
      assert.deepEqual(
        fds.map((fd) => fstatSync(fd).ino),
        inodes,
      );
      for (const fd of fds) closeSync(fd);
    }
    closeSync(parcel);
    assert.equal(openCount(), before);
  });

  it('hold as much as a guardian', () => {
    const note = createMemfd('one');
    const parcel = packParcel(
      'x'.repeat(1_000_000),
      Array.from({ length: 1024 }, () => note),
    );
    const { text, fds } = openParcel(parcel);
    assert.deepEqual([text.length, fds.length], [1_000_000, 1024]);
    for (const fd of [...fds, parcel, note]) closeSync(fd);
  });

  it('say what is wrong with something else', (t) => {
    const [a, b] = socketPair();
    t.after(() => closeSync(b));
    assert.throws(() => openParcel(b), { code: 'ERR_NYDUS_USAGE', message: /is still being written/ });
    closeSync(a);
    assert.throws(() => openParcel(b), { code: 'ERR_NYDUS_USAGE', message: /is empty/ });
    const file = createMemfd('none');
    assert.equal(isParcel(file), false);
    closeSync(file);
  });
});
