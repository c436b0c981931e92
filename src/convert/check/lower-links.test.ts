import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failedLink } from './lower-links.ts';

test('failedLink: names out of messages of tar, with all that escapes stand for', () => {
  const after = 'No such file or directory';
  const cases: [string, ReturnType<typeof failedLink>][] = [
    [`tar: bin/b: Cannot hard link to 'bin/a': ${after}`, { link: 'bin/b', target: 'bin/a' }],
    [`tar: b: Cannot hard link to a: ${after}`, { link: 'b', target: 'a' }],
    [`tar: x\\ y\\n: Cannot hard link to 'o\\303\\244\\\\': ${after}`, { link: 'x y\n', target: 'oä\\' }],
    [`tar: \\377: Cannot hard link to 'a': ${after}`, undefined],
    [`tar: b: Cannot open: ${after}`, undefined],
    ['tar: Exiting with failure status due to previous errors', undefined],
  ];
  for (const [line, expected] of cases) assert.deepEqual(failedLink(line), expected, line);
});
