import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parsePrefetchList } from './prefetch-patterns.ts';

const cases: [string, string[], string[]][] = [
  ['/\n', ['/'], []],
  ['', [], []],
  ['/bin\n  /etc/passwd \t\n', ['/bin', '/etc/passwd'], []],
  ['/a/b\n/a\n/a/c', ['/a/b', '/a'], ['"/a/c" is covered by "/a"']],
  ['/bin\n/bin\n/binary', ['/bin', '/binary'], ['"/bin" is covered by "/bin"']],
  ['/\n/usr', ['/'], ['"/usr" is covered by "/"']],
  ['relative\n\n/ok', ['/ok'], ['"relative" is not absolute', '"" is not absolute']],
  ['/a//b/\n/a/b/c', ['/a/b'], ['"/a/b/c" is covered by "/a/b"']],
];
for (const [text, patterns, warnings] of cases) {
  test(`parsePrefetchList: ${JSON.stringify(text)}`, () => {
    const warned: string[] = [];
    assert.deepEqual(
      parsePrefetchList(text, (message) => void warned.push(message)),
      patterns,
    );
    assert.equal(warned.length, warnings.length);
    for (const [i, part] of warnings.entries()) assert.ok(warned[i]?.includes(part) === true, part);
  });
}
