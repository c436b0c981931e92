import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { chooseInitialMount, readPrefetchList, resolveMountpoint } from './initial-mount.ts';

let dir: string;

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'initial-'));
  writeFileSync(
    join(dir, 'config.json'),
    '{"device":{"backend":{"type":"registry","config":{"host":"h","repo":"r"}}},"mode":"direct","unknown":1}',
  );
  writeFileSync(join(dir, 'nonsense.json'), '{');
  writeFileSync(join(dir, 'list'), '/a\n\n  /b/c \r\n');
  writeFileSync(join(dir, 'relative'), '/a\nb\n');
  mkdirSync(join(dir, 'mnt'));
  symlinkSync('mnt', join(dir, 'link'));
});

after(() => rmSync(dir, { recursive: true }));

describe('chooseInitialMount', () => {
  it('chooseInitialMount: without an image the configuration is not opened', () => {
    assert.equal(chooseInitialMount({ config: join(dir, 'nonsense.json') }), undefined);
    assert.equal(chooseInitialMount({ config: join(dir, 'none.json'), localfsDir: '/x' }), undefined);
  });

  it('chooseInitialMount: an image with a configuration, and its warnings', () => {
    const mount = chooseInitialMount({
      bootstrap: '/b',
      config: join(dir, 'config.json'),
      imagePullAuth: 'dTpw',
      prefetchFiles: join(dir, 'list'),
    });
    assert.equal(mount?.source, '/b');
    assert.deepEqual(mount?.prefetchFiles, ['/a', '/b/c']);
    assert.equal(mount?.parsed?.config.backend?.registry?.['auth'], 'dTpw');
    assert.deepEqual(mount?.parsed?.warnings, ['unknown key `unknown` at line 1 is ignored']);
  });

  it('chooseInitialMount: an image with a directory of blobs, which is the cache too', () => {
    const config = chooseInitialMount({ bootstrap: '/b', localfsDir: '/blobs' })?.parsed?.config;
    assert.equal(config?.backend?.localfs?.dir, '/blobs');
    assert.equal(config?.cache?.type, 'blobcache');
    assert.equal(config?.cache?.filecache?.work_dir, '/blobs');
    assert.equal(config?.rafs?.validate, false);
  });

  it('chooseInitialMount: an image alone is refused with the next step', () => {
    assert.throws(() => chooseInitialMount({ bootstrap: '/b' }), {
      message: 'both --config and --localfs-dir are missing',
      exitCode: 1,
      hint: 'say where the blobs are: --config FILE, or --localfs-dir DIR',
    });
  });
});

describe('readPrefetchList', () => {
  it('readPrefetchList: refuses what is no file, and relative paths', () => {
    assert.throws(() => readPrefetchList(join(dir, 'none')), {
      message: /^the prefetch-files arg is not a file path: ENOENT/,
      exitCode: 1,
    });
    assert.throws(() => readPrefetchList(join(dir, 'relative')), {
      message: `invalid prefetch file list: b in ${join(dir, 'relative')} is not an absolute path`,
    });
  });
});

describe('resolveMountpoint', () => {
  it('resolveMountpoint: follows links, refuses what is no directory', () => {
    assert.equal(resolveMountpoint(join(dir, 'link')), join(dir, 'mnt'));
    assert.throws(() => resolveMountpoint(join(dir, 'none')), {
      exitCode: 1,
      hint: /^create it first: mkdir -p /,
    });
    assert.throws(() => resolveMountpoint(join(dir, 'list')), {
      message: /list is not a directory$/,
      exitCode: 1,
    });
  });
});
