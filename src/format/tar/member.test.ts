// Members as GNU tar and our own reader see them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { requirePeer } from '../../../test/support/prerequisites.ts';
import { TarParser } from './archive.ts';
import { TarType } from './archive-header.ts';
import { encodeMember, TAR_END, tarPadding, type TarMember } from './member.ts';

function member(path: string | Buffer, more: Partial<TarMember> = {}): TarMember {
  return {
    path: Buffer.from(path),
    type: TarType.regular,
    mode: 0o644,
    uid: 0,
    gid: 0,
    userName: '',
    groupName: '',
    mtime: 1,
    size: 0,
    ...more,
  };
}

function parsed(bytes: Uint8Array): ReturnType<TarParser['next']> {
  const parser = new TarParser();
  parser.feed(bytes);
  return parser.next();
}

test('encodeMember: what fits a ustar header needs no other', () => {
  const bytes = encodeMember(member('x'.repeat(100), { uid: 0o7777777, size: 8 ** 11 - 1 }));
  assert.equal(bytes.length, 512);
  assert.equal(bytes.toString('latin1', 108, 116), '7777777\0');
  assert.equal(bytes.toString('latin1', 124, 136), '77777777777\0');
});

test('encodeMember: numbers beyond octal, times before 1970', () => {
  const bytes = encodeMember(member('f', { uid: 0xffff_ffff, gid: 2 ** 21, mtime: -86_400, size: 2 ** 40 }));
  assert.equal(bytes.toString('hex', 108, 116), '80000000ffffffff');
  assert.equal(bytes.toString('hex', 136, 148), 'fffffffffffffffffffeae80');
  const event = parsed(bytes);
  assert.ok(event?.type === 'entry');
  const { uid, gid, mtime, size } = event.entry;
  assert.deepEqual(
    { uid, gid, mtime, size },
    { uid: 0xffff_ffff, gid: 2 ** 21, mtime: -86_400, size: 2 ** 40 },
  );
});

test('encodeMember: long names and attributes go in front, the header holds what is whole', () => {
  const path = Buffer.from(`d/${'ä'.repeat(60)}`);
  const xattrs: [string, Uint8Array][] = [
    ['user.b', Buffer.from([0, 10, 255, 61])],
    ['user.a', Buffer.alloc(0)],
  ];
  const bytes = encodeMember(member(path, { xattrs }));
  assert.equal(bytes.toString('utf8', 0, 100).slice(0, 17), 'd/PaxHeaders.0/ää');
  assert.match(
    bytes.toString('latin1', 512),
    /^24 SCHILY\.xattr\.user\.a=\n28 SCHILY\.xattr\.user\.b=.*\n132 path=d/s,
  );
  assert.equal(bytes.toString('utf8', 1024, 1124), `d/${'ä'.repeat(49)}`);
  const event = parsed(bytes);
  assert.ok(event?.type === 'entry');
  assert.deepEqual(Buffer.from(event.entry.name), path);
  assert.deepEqual(event.entry.xattrs?.get('user.b'), Buffer.from([0, 10, 255, 61]));
});

test('encodeMember: lengths of records count their digits', () => {
  for (let size = 60; size < 120; size++) {
    const event = parsed(encodeMember(member('f', { xattrs: [['user.x', Buffer.alloc(size, 7)]] })));
    assert.ok(event?.type === 'entry');
    assert.equal(event.entry.xattrs?.get('user.x')?.length, size);
  }
});

test('encodeMember: GNU tar lists every kind', { skip: requirePeer('tar') }, () => {
  const data = Buffer.from('hello');
  const all = Buffer.concat([
    encodeMember(member('dir', { type: TarType.directory, mode: 0o1755 })),
    encodeMember(member('dir/f', { size: data.length, userName: 'someone', groupName: 'some' })),
    data,
    Buffer.alloc(tarPadding(data.length)),
    encodeMember(member('hard', { type: TarType.hardlink, link: Buffer.from('dir/f') })),
    encodeMember(member('soft', { type: TarType.symlink, link: Buffer.from('t'.repeat(120)) })),
    encodeMember(member('c', { type: TarType.char, major: 255, minor: 1_000_000 })),
    encodeMember(member('b', { type: TarType.block, major: 8, minor: 1 })),
    encodeMember(member('p', { type: TarType.fifo, mtime: -1, uid: 4_000_000_000 })),
    TAR_END,
  ]);
  const listed = spawnSync('tar', ['-tvf', '-'], { input: all, env: { ...process.env, TZ: 'UTC' } });
  assert.equal(String(listed.stderr), '');
  assert.deepEqual(
    String(listed.stdout)
      .trim()
      .split('\n')
      .map((line) => line.replace(/ +/g, ' ')),
    [
      'drwxr-xr-t 0/0 0 1970-01-01 00:00 dir',
      '-rw-r--r-- someone/some 5 1970-01-01 00:00 dir/f',
      'hrw-r--r-- 0/0 0 1970-01-01 00:00 hard link to dir/f',
      `lrw-r--r-- 0/0 0 1970-01-01 00:00 soft -> ${'t'.repeat(120)}`,
      'crw-r--r-- 0/0 255,1000000 1970-01-01 00:00 c',
      'brw-r--r-- 0/0 8,1 1970-01-01 00:00 b',
      'prw-r--r-- 4000000000/0 0 1969-12-31 23:59 p',
    ],
  );
});
