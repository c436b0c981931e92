// Pages that are generated must be fresh, and links between documents must lead somewhere.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Command } from '../../src/cli/command.ts';
import { nydusImage } from '../../src/cli/nydus-image/program.ts';
import { nydusctl } from '../../src/cli/nydusctl/program.ts';
import { nydusd } from '../../src/cli/nydusd.ts';
import { nydusify } from '../../src/cli/nydusify/program.ts';
import { repoRoot } from './golden.ts';

test('docs/limits.md: says what src/base/limits.ts says', () => {
  const result = spawnSync(process.execPath, [join(repoRoot, 'tools/limits-docs.ts'), '--check'], {
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
});

for (const page of [
  'README.md',
  'CHANGELOG.md',
  ...['docs', 'docs/decisions'].flatMap((folder) =>
    readdirSync(join(repoRoot, folder))
      .filter((name) => name.endsWith('.md'))
      .map((name) => `${folder}/${name}`),
  ),
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

/** Words of a command line that a program and its commands refuse by name. */
async function refusedWords(command: Command): Promise<string[]> {
  const own = Object.entries(command.options).flatMap(([name, option]) => [
    ...(option.refused === undefined ? [] : [`--${name}`]),
    ...Object.keys((option.type === 'string' && option.refusedValues) || {}),
  ]);
  const below = await Promise.all(
    Object.values(command.subcommands).map(async ({ load }) => refusedWords(await load())),
  );
  return [...new Set([...Object.keys(command.refusedSubcommands), ...own, ...below.flat()])];
}

test('docs/compat.md: names exactly what the command tables refuse', async () => {
  const text = readFileSync(join(repoRoot, 'docs/compat.md'), 'utf8');
  const [, section = ''] = /^## 3\. (.*?)^## 4\. /ms.exec(text) ?? [];
  for (const program of [nydusImage, nydusify, nydusd, nydusctl]) {
    const rows = section.split('\n').filter((line) => line.startsWith(`| \`${program.name}\` |`));
    const refused = await refusedWords(program);
    assert.equal(rows.length, refused.length > 0 ? 1 : 0, `rows of ${program.name}`);
    const row = rows[0] ?? '';
    assert.deepEqual(
      refused.filter((word) => !row.includes(`\`${word}\``)),
      [],
      program.name,
    );
    // a word of its own list that is not refused must at least be there together with another one
    const named = [...row.matchAll(/`(--[a-z-]+)`(?! together)/g)].map((match) => match[1] ?? '');
    const served = named.filter((word) => !refused.includes(word));
    assert.deepEqual(served, program === nydusify ? ['--backend-type'] : [], program.name);
  }
});

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
