import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../../test/support/temporary.ts';
import { caFiles } from './ca-files.ts';

test('caFiles: the file and what is a certificate in the directories, each once', (t) => {
  const dir = tempDir(t);
  const pem = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  const [one, two] = [join(dir, 'one'), join(dir, 'two')];
  mkdirSync(join(one, 'folder'), { recursive: true });
  mkdirSync(two);
  writeFileSync(join(one, 'b.pem'), pem);
  writeFileSync(join(one, 'a.crt'), `comment\n${pem}`);
  writeFileSync(join(one, 'key.pem'), '-----BEGIN PRIVATE KEY-----\n');
  symlinkSync('b.pem', join(one, '1234abcd.0'));
  symlinkSync('nowhere', join(one, 'dangling'));
  writeFileSync(join(two, 'c.pem'), pem);
  assert.deepEqual(caFiles({}), []);
  assert.deepEqual(caFiles({ SSL_CERT_FILE: '', SSL_CERT_DIR: '' }), []);
  assert.deepEqual(caFiles({ SSL_CERT_FILE: join(one, 'b.pem') }), [join(one, 'b.pem')]);
  const all = { SSL_CERT_FILE: join(two, 'c.pem'), SSL_CERT_DIR: `${one}:${dir}/absent::${two}` };
  assert.deepEqual(caFiles(all), [join(two, 'c.pem'), join(one, 'b.pem'), join(one, 'a.crt')]);
});
