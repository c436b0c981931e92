import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { backendSuite, SUITE_BLOB, SUITE_BLOB_ID } from '../../../test/conformance/backend-suite.ts';
import {
  firstReason,
  requireLoopDevice,
  requirePeer,
  requireRoot,
} from '../../../test/support/prerequisites.ts';
import { tempDir, type AfterHook } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { LocaldiskBackend, readLocaldiskConfig } from './localdisk.ts';

const SIZE = 8 * 1024 * 1024;
const LINUX_DATA = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';
const BASIC_DATA = 'EBD0A0A2-B9E5-4433-87C0-68B6B72699C7';
const GUID = 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa';
const noSfdisk = requirePeer('sfdisk');

/** A disk image with partitions made by sfdisk, each holding bytes. */
function disk(
  t: AfterHook,
  rows: { start: number; sectors: number; type: string; name: string; guid: string }[],
): string {
  const path = join(tempDir(t), 'disk');
  writeFileSync(path, '');
  truncateSync(path, SIZE);
  const script = rows.map(
    ({ start, sectors, type, name, guid }) =>
      `start=${start}, size=${sectors}, type=${type}, uuid=${guid}, name="${name}"`,
  );
  const input = ['label: gpt', ...script].join('\n');
  const made = spawnSync('sfdisk', ['-q', path], { input });
  assert.equal(made.status, 0, String(made.stderr));
  return path;
}

function fill(path: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

function open(path: string, more: object = {}): LocaldiskBackend {
  return new LocaldiskBackend(readLocaldiskConfig({ device_path: path, ...more }), silentLogger);
}

// a blob of 300,000 bytes needs a partition that ends with it: the suite reads over the end
backendSuite('localdisk with offsets', (t) => {
  const path = join(tempDir(t), 'disk');
  writeFileSync(path, Buffer.concat([Buffer.alloc(1000), SUITE_BLOB, Buffer.alloc(5000, 1)]));
  return open(path, {
    disable_gpt: true,
    blobs: [{ id: SUITE_BLOB_ID, offset: 1000, length: SUITE_BLOB.length }],
  });
});

const name = 'a'.repeat(32);
const row = { start: 2048, sectors: 600, type: LINUX_DATA, name, guid: GUID };

test(
  'LocaldiskBackend: a partition holds the blob that its name and GUID spell',
  { skip: noSfdisk },
  async (t) => {
    const path = disk(t, [row]);
    fill(path, 2048 * 512, SUITE_BLOB);
    const backend = open(path);
    const reader = await backend.open(SUITE_BLOB_ID);
    // the length of a blob is that of its partition
    assert.equal(await reader.size(), 600 * 512);
    assert.ok(Buffer.from(await reader.read(0, 300_000)).equals(SUITE_BLOB));
    assert.equal((await reader.read(600 * 512, 10)).length, 0);
    await assert.rejects(backend.open('b'.repeat(64)), {
      code: 'ERR_NYDUS_BACKEND',
      message: `can not find such blob: ${'b'.repeat(64)}, no partition of ${path} has it`,
    });
    await backend.close();
  },
);

test('LocaldiskBackend: a basic data partition is found by half of the id', { skip: noSfdisk }, async (t) => {
  const id = `${'c'.repeat(32)}${'d'.repeat(32)}`;
  const path = disk(t, [{ ...row, type: BASIC_DATA, name: 'c'.repeat(32) }]);
  fill(path, 2048 * 512, Buffer.from('hello'));
  const backend = open(path);
  assert.equal(Buffer.from(await (await backend.open(id)).read(0, 5)).toString(), 'hello');
  await backend.close();
});

test(
  'LocaldiskBackend: the table at the end of the disk serves when the first one is damaged',
  { skip: noSfdisk },
  async (t) => {
    const path = disk(t, [row]);
    fill(path, 512 + 60, Buffer.from([0xff]));
    const backend = open(path);
    assert.equal(await (await backend.open(SUITE_BLOB_ID)).size(), 600 * 512);
    await backend.close();
    fill(path, SIZE - 512, Buffer.alloc(512));
    assert.throws(() => open(path), {
      code: 'ERR_NYDUS_BACKEND',
      message: `cannot use the partitions of ${path}: gptHeader at byte 512: the checksum of the header is wrong; at the end of the disk: no "EFI PART" signature`,
    });
  },
);

test(
  'LocaldiskBackend: no device, no partitions, two of one name, no name, past the end',
  { skip: noSfdisk },
  (t) => {
    const refused = (make: () => unknown, message: RegExp): void =>
      assert.throws(make, { code: 'ERR_NYDUS_BACKEND', message });
    refused(() => open('/no/such/device'), /^cannot open \/no\/such\/device: ENOENT/);
    const empty = join(tempDir(t), 'empty');
    writeFileSync(empty, Buffer.alloc(4096));
    refused(() => open(empty), /no "EFI PART" signature/);
    const two = { ...row, start: 4096, type: BASIC_DATA, guid: GUID.replaceAll('a', 'b') };
    refused(() => open(disk(t, [{ ...row, type: BASIC_DATA }, two])), /has two blobs a{32}$/);
    refused(() => open(disk(t, [{ ...row, name: '' }])), /^partition a{32} of .* has no name$/);
    const list = { disable_gpt: true, blobs: [{ id: 'x', offset: 4000, length: 100 }] };
    refused(() => open(empty, list), /^blob x is at 4000 to 4100 of .*, which has 4096 bytes$/);
  },
);

test(
  'LocaldiskBackend: partitions of a block device',
  { skip: firstReason(noSfdisk, requireRoot(), requirePeer('losetup'), requireLoopDevice()) },
  async (t) => {
    const path = disk(t, [row]);
    fill(path, 2048 * 512, SUITE_BLOB);
    const made = spawnSync('losetup', ['-f', '--show', '-r', path], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    const device = made.stdout.trim();
    t.after(() => void spawnSync('losetup', ['-d', device]));
    const backend = open(device);
    const reader = await backend.open(SUITE_BLOB_ID);
    assert.ok(Buffer.from(await reader.read(0, 300_000)).equals(SUITE_BLOB));
    await backend.close();
  },
);
