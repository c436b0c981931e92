// Pages that are generated must be fresh, and links between documents must lead somewhere.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { repoRoot } from './golden.ts';

test('docs/limits.md: says what src/base/limits.ts says', () => {
  const result = spawnSync(process.execPath, [join(repoRoot, 'tools/limits-docs.ts'), '--check'], {
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
});

for (const page of [
  'README.md',
  ...['architecture', 'compat', 'dependencies', 'measured'].map((name) => `docs/${name}.md`),
]) {
  test(`${page}: its links lead to files of the checkout`, () => {
    const text = readFileSync(join(repoRoot, page), 'utf8');
    const links = [...text.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map((match) => match[1] ?? '');
    const missing = links.filter(
      (link) => !link.startsWith('https://') && !existsSync(join(repoRoot, dirname(page), link)),
    );
    assert.deepEqual(missing, []);
  });
}

test('docs/dependencies.md: lists every package of package.json', () => {
  const text = readFileSync(join(repoRoot, 'docs/dependencies.md'), 'utf8');
  const json = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as Record<
    string,
    Record<string, string>
  >;
  const names = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((key) =>
    Object.keys(json[key] ?? {}),
  );
  assert.deepEqual(
    names.filter((name) => !text.includes(`\`${name}\``)),
    [],
  );
});
