// Writes docs/limits.md from the comments and values of src/base/limits.ts; with --check it only says whether the page is fresh.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as limits from '../src/base/limits.ts';

const source = fileURLToPath(new URL('../src/base/limits.ts', import.meta.url));
const page = fileURLToPath(new URL('../docs/limits.md', import.meta.url));

/** `1048576 (1 MiB)`: the number and, where it is a whole power of 1024, its unit. */
function shown(value: number): string {
  const units: [number, string][] = [
    [limits.GIB, 'GiB'],
    [limits.MIB, 'MiB'],
    [limits.KIB, 'KiB'],
  ];
  const unit = units.find(([size]) => value >= size && value % size === 0);
  return unit === undefined
    ? value.toLocaleString('en')
    : `${value.toLocaleString('en')} (${value / unit[0]} ${unit[1]})`;
}

/** The page: one row for each constant, its comment beside it; a comment counts for the constants that follow without one. */
function render(): string {
  const rows: string[] = [];
  let comment = '';
  for (const line of readFileSync(source, 'utf8').split('\n')) {
    const text = /^\/\*\* (.*) \*\/$/.exec(line)?.[1];
    if (text !== undefined) comment = text;
    if (line === '') comment = '';
    const name = /^export const (\w+)/.exec(line)?.[1];
    if (name === undefined || ['KIB', 'MIB', 'GIB'].includes(name)) continue;
    const value = (limits as Record<string, number>)[name] ?? Number.NaN;
    rows.push(`| \`${name}\` | ${shown(value)} | ${comment.replaceAll('|', '\\|')} |`);
  }
  return [
    '# Limits',
    '',
    'Whatever comes from outside (images, tars, configuration, requests) meets these limits before anything is allocated or looped over.',
    'Beyond one, the error names the limit and both values. They are part of the formats or wide enough for every image we know; none can be',
    'changed at run time. Written by `tools/limits-docs.ts` from `src/base/limits.ts`; section numbers refer to the format documents.',
    '',
    '| limit | value | what it is, what it stops |',
    '|---|---:|---|',
    ...rows,
    '',
  ].join('\n');
}

const text = render();
if (process.argv.includes('--check')) {
  if (readFileSync(page, 'utf8') !== text) {
    process.stderr.write('docs/limits.md is stale: run node tools/limits-docs.ts\n');
    process.exitCode = 1;
  }
} else {
  writeFileSync(page, text);
}
