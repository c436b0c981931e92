// Single checks: how privileges, file systems and configurations are judged, and the image that EROFS is tried with.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { detectVersion } from '../../format/detect.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { cacheChecks, existingParent, fileSystemName } from './cache-dir.ts';
import { configurationChecks, tryReadConfig } from './configuration.ts';
import { imageWithoutData } from './erofs.ts';
import { sizeText, type Check, type Finding } from './finding.ts';
import { judgePrivileges } from './host.ts';
import { runChecks } from './run-checks.ts';

function run(checks: Check[]): Promise<Finding[]> {
  return runChecks(checks, new AbortController().signal);
}

const rows = (findings: readonly Finding[]): string[] => findings.map(({ id, status }) => `${id} ${status}`);

describe('doctor', () => {
  it('judgePrivileges: all, some, none', () => {
    const of = (uid: number, bits: string): [string, string | undefined] => {
      const { status, fix } = judgePrivileges(uid, `Name:\tx\nCapEff:\t${bits}\n`);
      return [status, fix];
    };
    assert.deepEqual(of(0, '000001ffffffffff'), ['ok', undefined]);
    assert.deepEqual(of(0, '0000000000200000'), ['warn', 'grant CAP_SYS_PTRACE']);
    const [status, fix] = of(65534, '0000000000000000');
    assert.equal(status, 'warn');
    assert.match(fix ?? '', /^run as root, or grant CAP_SYS_ADMIN/);
  });

  it('fileSystemName: by number, also where the system call gives a negative one', () => {
    assert.equal(fileSystemName(0xef53), 'ext4');
    assert.equal(fileSystemName(0x9123683e - 2 ** 32), 'btrfs');
    assert.equal(fileSystemName(0x1234), 'type 0x1234');
    assert.deepEqual(
      [sizeText(12), sizeText(1536), sizeText(3 * 1024 ** 4)],
      ['12 bytes', '1.5 KiB', '3.0 TiB'],
    );
  });

  it('imageWithoutData: is a v6 bootstrap', () => {
    const image = imageWithoutData();
    assert.equal(detectVersion(image), 6);
    assert.equal(image.length % 4096, 0);
  });

  it('cacheChecks: a directory that does not exist is judged by where it will be, and not made', async (t) => {
    const dir = tempDir(t);
    const cache = join(dir, 'not/yet');
    assert.equal(existingParent(cache), dir);
    const findings = await run(cacheChecks(cache, true));
    assert.deepEqual(
      findings.map(({ id, essential }) => [id, essential]),
      [
        ['cache.writable', true],
        ['cache.file-system', false],
        ['cache.room', false],
        ['cache.holes', false],
        ['cache.reflink', false],
      ],
    );
    assert.equal(findings[0]?.status, 'ok');
    assert.equal(
      findings[0].detail,
      `files can be written; it does not exist yet, nydusd creates it below ${dir}`,
    );
    assert.equal(existingParent(cache), dir);
  });

  it('cacheChecks: a file where the directory should be is no cache', async (t) => {
    const dir = tempDir(t);
    writeFileSync(join(dir, 'file'), '');
    const [writable] = await run(cacheChecks(join(dir, 'file'), true));
    assert.equal(writable?.status, 'fail');
    assert.equal(writable.detail, `${join(dir, 'file')} is not a directory`);
  });

  it('configurationChecks: what the drivers cannot serve is told', async (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'blobs'));
    const path = join(dir, 'config.json');
    const plain = { type: 'blobcache', filecache: { work_dir: dir } };
    const dense = { ...plain, compressed: true };
    const cases: [cache: object, more: object, driver: 'fuse' | 'auto' | 'fileio', expected: string[]][] = [
      [plain, {}, 'fuse', ['configuration.file ok', 'configuration.cache ok']],
      [dense, {}, 'fuse', ['configuration.file ok', 'configuration.cache ok']],
      [dense, {}, 'auto', ['configuration.file ok', 'configuration.cache warn']],
      [dense, {}, 'fileio', ['configuration.file ok', 'configuration.cache fail']],
      [{ type: 'dummycache' }, {}, 'fuse', ['configuration.file ok', 'configuration.cache warn']],
      [plain, { nonsense: 1 }, 'fuse', ['configuration.file warn', 'configuration.cache ok']],
    ];
    for (const [cache, more, driver, expected] of cases) {
      const backend = { type: 'localfs', localfs: { dir: join(dir, 'blobs') } };
      writeFileSync(path, JSON.stringify({ version: 2, backend, cache, rafs: { mode: 'direct' }, ...more }));
      const findings = await run(configurationChecks(path, tryReadConfig(path, undefined), driver));
      assert.deepEqual(rows(findings), expected);
    }
  });
});
