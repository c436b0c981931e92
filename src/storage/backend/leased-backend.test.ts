import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { BackendError } from '../../base/errors.ts';
import type { BackendConfig } from '../config.ts';
import { SharedStorage } from '../shared-storage.ts';
import type { Backend } from './backend.ts';
import { BackendMeter } from './meter.ts';

const CONFIG: BackendConfig = {
  type: 'registry',
  localfs: null,
  localdisk: null,
  oss: null,
  s3: null,
  registry: { host: 'a' },
  'http-proxy': null,
};

/** A store of one blob that is there for those who have the right password, or for nobody. */
class Store {
  passwords = ['first'];
  /** open readers, by password */
  readonly readers: string[] = [];

  readonly open = (): Backend => {
    let password = 'first';
    return {
      type: 'registry',
      meter: new BackendMeter(),
      configure: (_setting, value) => void (password = value),
      close: async () => {},
      open: async (blobId) => {
        const mine = password;
        if (!this.passwords.includes(mine)) throw new BackendError(`${mine} does not open ${blobId}`);
        this.readers.push(mine);
        return {
          blobId,
          fd: -1,
          size: async () => 5,
          read: async () => Buffer.from(mine),
          note: () => {},
          close: () => void this.readers.splice(this.readers.indexOf(mine), 1),
        };
      },
    };
  };
}

const later = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('LeasedBackend.configure: when the new setting does not open a blob, the old reader is given back, and each read tries again', async () => {
  const store = new Store();
  const storage = new SharedStorage(() => store.open());
  // two images: the setting of one makes a backend of its own
  const [one, two] = [storage.backend(CONFIG, silentLogger), storage.backend(CONFIG, silentLogger)];
  const [readerOne, readerTwo] = [await one.open('blob'), await two.open('blob')];
  assert.deepEqual(store.readers, ['first'], 'one reader for both');
  one.configure?.('registry_auth', 'second');
  await later();
  await assert.rejects(readerOne.read(0, 5), /second does not open blob/);
  await assert.rejects(readerOne.size(), /second does not open blob/);
  assert.equal(String(await readerTwo.read(0, 5)), 'first');
  await two.close();
  assert.deepEqual(store.readers, [], 'nobody holds what the first password has opened');
  store.passwords = ['second'];
  assert.equal(String(await readerOne.read(0, 6)), 'second');
  assert.equal(await readerOne.size(), 5);
  assert.deepEqual(store.readers, ['second']);
  await one.close();
  assert.deepEqual(store.readers, []);
  assert.deepEqual(storage.size, { backends: 0, blobs: 0 });
});

test('LeasedBackend.configure: twice in a row, the last one counts and every reader is given back', async () => {
  const store = new Store();
  store.passwords = ['first', 'second', 'third'];
  const storage = new SharedStorage(() => store.open());
  const [one, two] = [storage.backend(CONFIG, silentLogger), storage.backend(CONFIG, silentLogger)];
  const readers = [await one.open('blob'), await two.open('blob')];
  one.configure?.('registry_auth', 'second');
  const three = storage.backend(CONFIG, silentLogger);
  one.configure?.('registry_auth', 'third');
  assert.equal(String(await readers[0]?.read(0, 5)), 'third');
  for (const backend of [one, two, three]) await backend.close();
  assert.deepEqual(store.readers, []);
});
