import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { goldenPath, skipUnlessGolden } from '../../../test/support/golden.ts';
import { crc64 } from './crc64.ts';
import { StateWriter } from './envelope.ts';
import { decodeState, encodeState, type UpgradeState } from './state.ts';

const skip = skipUnlessGolden('api', 'upgrade-state.bin');
const golden = (): Buffer => readFileSync(goldenPath('api', 'upgrade-state.bin') ?? '');

/** Every envelope of a state sealed again after a change of the payload. */
function resealed(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy.writeBigUInt64LE(crc64(copy.subarray(0, -8)), copy.length - 8);
  return copy;
}

const STATE: UpgradeState = {
  mounts: [
    { kind: 'rafs', source: '/b', config: '{}', mountpoint: '/a', prefetchFiles: undefined, index: 7 },
    { kind: 'passthrough', source: '/s', config: '', mountpoint: '/d', prefetchFiles: ['/ü'], index: 255 },
  ],
  vfs: {
    inOptions: 1n,
    outOptions: 0x80_0000_0002n,
    noReaddir: false,
    sealSize: false,
    idMap: [0, 0, 0],
    noOpen: true,
    noOpendir: true,
    noWriteback: false,
    killprivV2: false,
    nextInode: 4n,
    directories: [{ ino: 2, parent: 1, name: 'a' }],
    nextIndex: 1,
  },
  connectionId: 97n,
};

describe('crc64', () => {
  it('gives the check values of the format', () => {
    assert.equal(crc64(Buffer.of(1, 2, 3, 4, 5)), 0xfb0460de06383654n);
    assert.equal(crc64(Buffer.alloc(16, 0x7b)), 0x29d5357216326566n);
  });
});

describe('decodeState', () => {
  it('reads what upstream saved', { skip }, () => {
    const { mounts, vfs, connectionId } = decodeState(golden());
    assert.deepEqual(
      mounts.map(({ kind, source, mountpoint, prefetchFiles, index }) => [
        kind,
        source,
        mountpoint,
        prefetchFiles,
        index,
      ]),
      [
        ['rafs', '/golden/tiny6/bootstrap', '/six', ['/data'], 2],
        ['rafs', '/golden/tiny5/bootstrap', '/five', undefined, 1],
      ],
    );
    assert.equal(JSON.parse(mounts[1]?.config ?? '').amplify_io, 0);
    assert.deepEqual(vfs, {
      inOptions: 0x80_53ff_fffbn,
      outOptions: 0x12c5_f829n,
      noReaddir: false,
      sealSize: false,
      idMap: [0, 0, 0],
      noOpen: false,
      noOpendir: false,
      noWriteback: false,
      killprivV2: true,
      nextInode: 4n,
      directories: [
        { ino: 2, parent: 1, name: 'five' },
        { ino: 3, parent: 1, name: 'six' },
      ],
      nextIndex: 3,
    });
    assert.equal(connectionId, 42n);
  });

  it('refuses each cut and each flipped byte of a state', { skip }, () => {
    const bytes = golden();
    const broken = { code: 'ERR_NYDUS_FORMAT' };
    for (let size = 0; size < bytes.length; size++)
      assert.throws(() => decodeState(bytes.subarray(0, size)), broken, `${size} bytes`);
    for (let at = 0; at < bytes.length; at++) {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] ?? 0) ^ 0x55;
      assert.throws(() => decodeState(copy), broken, `byte ${at}`);
    }
  });

  it('refuses hostile numbers under a right checksum, and allocates nothing for them', { skip }, () => {
    const bytes = golden();
    const problem = (change: (copy: Buffer) => void): RegExpMatchArray | null => {
      const copy = Buffer.from(bytes);
      change(copy);
      try {
        decodeState(resealed(copy));
      } catch (error) {
        return /^saved \w+\.[\w ]+?(?= at byte|:)/.exec(String((error as Error).message));
      }
      return null;
    };
    assert.equal(problem((copy) => copy.writeBigUInt64LE(2n ** 63n, 10))?.[0], 'saved state.mounts');
    assert.equal(problem((copy) => copy.writeBigUInt64LE(2n ** 40n, 18))?.[0], 'saved state.mountpoint');
    assert.equal(problem((copy) => copy.writeUInt32LE(2, 30))?.[0], 'saved state.file system');
    assert.equal(problem((copy) => copy.writeUInt16LE(2, 8))?.[0], 'saved state.version');
    assert.equal(problem((copy) => (copy[26] = 0xff))?.[0], 'saved state.mountpoint');
  });

  it('refuses two mounts at one index, mapped ids, and directories that are numbered too high', () => {
    const twice = { ...STATE, mounts: STATE.mounts.map((mount) => ({ ...mount, index: 3 })) };
    assert.throws(() => decodeState(encodeState(twice)), /index: is 0 or stands twice/);
    const mapped: UpgradeState = { ...STATE, vfs: { ...STATE.vfs, idMap: [0, 1000, 5] } };
    assert.throws(() => decodeState(encodeState(mapped)), /id_map: user ids are mapped/);
    const high: UpgradeState = { ...STATE, vfs: { ...STATE.vfs, nextInode: 2n } };
    assert.throws(() => decodeState(encodeState(high)), /inode 2 in 1, the next free one is 2/);
  });

  it('refuses bytes behind the last field', () => {
    const inner = new StateWriter();
    inner.u64(0);
    assert.throws(() => decodeState(inner.seal()), /vfs/);
  });
});

describe('encodeState', () => {
  it('gives the bytes of upstream back', { skip }, () => {
    const bytes = golden();
    assert.deepEqual(encodeState(decodeState(bytes)), bytes);
  });

  it('round-trips every field', () => {
    assert.deepEqual(decodeState(encodeState(STATE)), STATE);
  });

  it('refuses a configuration that upstream could not read, unless nobody else reads it', () => {
    const mounts = STATE.mounts.map((mount) => ({ ...mount, config: ' '.repeat(16_385) }));
    assert.throws(
      () => encodeState({ ...STATE, mounts }),
      /config of \/a: has 16385 bytes, the format allows 16384/,
    );
    const roomy = encodeState({ ...STATE, mounts }, 1 << 20);
    assert.throws(() => decodeState(roomy), /config/);
    assert.equal(decodeState(roomy, 1 << 20).mounts[0]?.config.length, 16_385);
  });
});
