import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Finding, Report } from '../daemon/doctor/finding.ts';
import { doctorTable, isUtf8, wrap } from './nydusd-doctor-table.ts';

function finding(more: Partial<Finding>): Finding {
  return { id: 'x', group: 'host', name: 'x', status: 'ok', essential: false, detail: 'fine', ...more };
}

const REPORT: Report = {
  ok: false,
  driver: 'fuse',
  findings: [
    finding({ name: 'kernel', status: 'info', detail: 'Linux 6.18' }),
    finding({
      group: 'cache',
      subject: '/c',
      name: 'room',
      status: 'warn',
      detail: '1 KiB',
      fix: 'make room',
    }),
    finding({
      group: 'drivers',
      name: 'fuse',
      status: 'fail',
      essential: true,
      detail: 'no device',
      fix: 'modprobe fuse',
    }),
    finding({ group: 'drivers', name: 'fanotify', subject: '/c', detail: 'works', fix: 'not shown' }),
  ],
};

test('doctorTable: plain, in the order of the groups, aligned, with what to do', () => {
  assert.equal(
    doctorTable(REPORT, { symbols: false }),
    `This machine
  -    kernel    Linux 6.18

Drivers
  no   fuse      no device
                 -> modprobe fuse
  ok   fanotify  works

Cache /c
  warn room      1 KiB
                 -> make room

Not ready to serve with driver fuse: fuse.
`,
  );
});

test('doctorTable: marks on a terminal that shows them, lines no wider than it is', () => {
  const detail = 'one two three four five six seven eight nine ten';
  const long = {
    ...REPORT,
    ok: true,
    findings: [finding({ name: 'kernel', status: 'fail', detail, fix: 'look' })],
  };
  assert.equal(
    doctorTable(long, { symbols: true, columns: 45 }),
    `This machine
  ✗ kernel  one two three four five six
            seven eight nine ten
            → look

Everything that driver fuse needs works here.
`,
  );
  const table = doctorTable(REPORT, { symbols: true, columns: 80 });
  assert.deepEqual(
    table.split('\n').filter((line) => /^ {2}[^ ] /.test(line)),
    ['  ✗ fuse      no device', '  ✓ fanotify  works', '  ! room      1 KiB'],
  );
});

test('doctorTable: with several caches a driver says whose it is', () => {
  const two = [...REPORT.findings, finding({ group: 'cache', subject: '/d', name: 'room' })];
  const table = doctorTable({ ...REPORT, findings: two }, { symbols: false });
  assert.match(table, /^ {2}ok {3}fanotify {2}\/c: works$/m);
  assert.match(table, /^Cache \/d$/m);
});

test('isUtf8: the first variable that is set decides, as for the C library', () => {
  const cases: [Record<string, string>, boolean][] = [
    [{}, false],
    [{ LANG: 'de_DE.UTF-8' }, true],
    [{ LANG: 'C.utf8', LC_ALL: '' }, true],
    [{ LANG: 'de_DE.UTF-8', LC_ALL: 'C' }, false],
    [{ LANG: 'C', LC_CTYPE: 'en_US.UTF-8' }, true],
  ];
  for (const [env, expected] of cases) assert.equal(isUtf8(env), expected, JSON.stringify(env));
});

test('wrap: breaks between words, never inside one', () => {
  assert.deepEqual(wrap('aa bb cc', 5), ['aa bb', 'cc']);
  assert.deepEqual(wrap('a/very/long/path b', 5), ['a/very/long/path', 'b']);
  assert.deepEqual(wrap('aa bb', Infinity), ['aa bb']);
});
