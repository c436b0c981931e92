import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import {
  KEPT_LOG_FILES,
  createLogSink,
  fileTarget,
  formatLogTime,
  logFilePath,
  openLog,
  rotatedName,
  type LogTarget,
} from './log-sink.ts';

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'log-'));
});
after(() => rmSync(dir, { recursive: true }));

function memory(): { target: LogTarget; lines: string[] } {
  const lines: string[] = [];
  return { lines, target: { write: (line) => void lines.push(line), close: async () => {} } };
}

const LINE = /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d\] /;

describe('formatLogTime', () => {
  it('formatLogTime: local time, microseconds, zone', () => {
    const time = new Date(2026, 0, 2, 3, 4, 5, 6);
    assert.match(formatLogTime(time, 789), /^2026-01-02 03:04:05\.006789 [+-]\d\d:\d\d$/);
    const zoned = (minutes: number): Date =>
      Object.assign(new Date(2026, 10, 12, 13, 14, 15), { getTimezoneOffset: () => minutes });
    assert.match(formatLogTime(zoned(-330)), / \+05:30$/);
    assert.match(formatLogTime(zoned(570)), / -09:30$/);
    assert.match(formatLogTime(zoned(0)), / \+00:00$/);
  });
});

describe('createLogSink', () => {
  it('createLogSink: names level and caller, but no caller for INFO', () => {
    const { target, lines } = memory();
    const log = createLogSink({ level: 'trace', target });
    log.error('one');
    log.warn('two');
    log.info('three');
    log.debug('four');
    log.trace('five');
    const here = basename(import.meta.filename).replaceAll('.', '\\.');
    for (const [index, pattern] of [
      `ERROR \\[${here}:\\d+\\] one`,
      `WARN \\[${here}:\\d+\\] two`,
      'INFO three',
      `DEBUG \\[${here}:\\d+\\] four`,
      `TRACE \\[${here}:\\d+\\] five`,
    ].entries()) {
      assert.match(lines[index] ?? '', LINE);
      assert.match((lines[index] ?? '').replace(LINE, ''), new RegExp(`^${pattern}\\n$`));
    }
  });

  it('createLogSink: the level holds back and can change', () => {
    const { target, lines } = memory();
    const log = createLogSink({ level: 'warn', target });
    log.info('held back');
    log.level = 'info';
    log.info('shown');
    log.level = 'off';
    log.error('held back');
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /INFO shown\n$/);
  });

  it('createLogSink: colours the level on request', () => {
    const { target, lines } = memory();
    createLogSink({ level: 'info', target, color: true }).info('x');
    assert.ok(lines[0]?.endsWith('] \x1b[32mINFO\x1b[0m x\n'), JSON.stringify(lines[0]));
  });
});

describe('fileTarget', () => {
  it('logFilePath: a path without extension gets .log', () => {
    assert.equal(logFilePath('/var/log/nydusd'), '/var/log/nydusd.log');
    assert.equal(logFilePath('/var/log.d/nydusd'), '/var/log.d/nydusd.log');
    assert.equal(logFilePath('nydusd.txt'), 'nydusd.txt');
  });

  it('openLog: appends to a file', async () => {
    const file = join(dir, 'plain');
    writeFileSync(`${file}.log`, 'before\n');
    const log = await openLog({ level: 'info', file });
    log.info('after');
    await log.close();
    log.info('closed');
    const [first, second, rest] = readFileSync(`${file}.log`, 'utf8').split('\n');
    assert.equal(first, 'before');
    assert.match(second ?? '', /INFO after$/);
    assert.equal(rest, '');
  });

  it('fileTarget: an unusable path is an error with the next step', () => {
    assert.throws(() => fileTarget(join(dir, 'none', 'x.log')), {
      code: 'ERR_NYDUS_USAGE',
      exitCode: 1,
      hint: 'name a file in an existing directory you may write to with --log-file',
    });
  });
});

describe('rotatingTarget', () => {
  it('rotatedName: time and number, compressed', () => {
    const time = new Date(Date.UTC(2026, 0, 2, 3, 4, 5));
    assert.equal(rotatedName('/l/a.log', null), '/l/a.log');
    assert.equal(rotatedName('/l/a.log', time), '/l/a.log.2026-01-02T03-04-05.gz');
    assert.equal(rotatedName('/l/a.log', time, 3), '/l/a.log.2026-01-02T03-04-05.3.gz');
  });

  it('openLog: with rotation, full files are compressed and at most ten are kept', async () => {
    const file = join(dir, 'rotated.log');
    const log = await openLog({ level: 'info', file, rotationMegabytes: 1 });
    const line = 'x'.repeat(64 * 1024);
    const rotated = (): string[] => readdirSync(dir).filter((name) => /^rotated\.log\..*\.gz$/.test(name));
    const round = async (): Promise<void> => {
      for (let i = 0; i < 17; i++) log.info(line);
      await new Promise((resolve) => setTimeout(resolve, 20));
    };
    for (let i = 0; i < 500 && rotated().length < KEPT_LOG_FILES; i++) await round();
    for (let i = 0; i < 5; i++) await round();
    await log.close();
    const names = rotated();
    assert.equal(names.length, KEPT_LOG_FILES);
    const text = gunzipSync(readFileSync(join(dir, names[0] ?? ''))).toString();
    assert.ok(text.length >= 1024 * 1024, `${text.length} bytes in a rotated file`);
    assert.match(text, LINE);
  });
});
