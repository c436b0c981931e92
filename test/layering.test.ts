// Imports point down the list of folders, and some packages may be loaded in one folder only. Source: STYLE 2.1.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const src = fileURLToPath(new URL('../src', import.meta.url));

/** Rank by folder: a folder imports from lower ranks only. build and daemon share one, so neither imports the other. */
const RANK: Record<string, number> = {
  bin: 13,
  cli: 12,
  convert: 11,
  build: 10,
  daemon: 10,
  serve: 9,
  rafs: 8,
  storage: 7,
  registry: 6,
  tree: 5,
  format: 4,
  codec: 3,
  native: 2,
  base: 1,
};

/** Packages that only one folder may load; native/ holds the libraries that codec/ calls. */
const PACKAGES: Record<string, readonly string[]> = {
  koffi: ['native'],
  'lz4-napi': ['codec', 'native'],
  '@napi-rs/blake-hash': ['codec', 'native'],
  '@node-rs/crc32': ['codec', 'native'],
  undici: ['registry'],
};

function importsOf(text: string): string[] {
  const forms = [
    /\bfrom\s+['"]([^'"]+)['"]/g,
    /\bimport\(\s*['"]([^'"]+)['"]/g,
    /\brequire\(\s*['"]([^'"]+)['"]/g,
    /^import\s+['"]([^'"]+)['"]/gm,
  ];
  return forms.flatMap((form) => [...text.matchAll(form)].map((match) => match[1] as string));
}

function folderOf(path: string): string {
  return relative(src, path).split('/')[0] as string;
}

const files = globSync('**/*.ts', { cwd: src }).filter(
  (name) => !name.endsWith('.test.ts') && !name.includes('/testing'),
);

test('layering: the list of folders is complete', () => {
  assert.ok(files.length > 50);
  const unknown = [...new Set(files.map((name) => name.split('/')[0] as string))].filter(
    (f) => RANK[f] === undefined,
  );
  assert.deepEqual(unknown, []);
});

test('layering: no import points up or across', () => {
  const wrong: string[] = [];
  for (const name of files) {
    const path = join(src, name);
    for (const to of importsOf(readFileSync(path, 'utf8'))) {
      if (!to.startsWith('.')) continue;
      const [from, into] = [folderOf(path), folderOf(resolve(dirname(path), to))];
      if (from !== into && (RANK[from] ?? 0) <= (RANK[into] ?? 99)) wrong.push(`${name} imports ${to}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('layering: native and codec packages are loaded in their folders only', () => {
  const wrong: string[] = [];
  for (const name of files) {
    for (const to of importsOf(readFileSync(join(src, name), 'utf8'))) {
      const allowed = PACKAGES[to];
      if (allowed !== undefined && !allowed.includes(name.split('/')[0] as string))
        wrong.push(`${name} loads ${to}`);
    }
  }
  assert.deepEqual(wrong, []);
});
