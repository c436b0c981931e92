// Writes docs/cli/*.md from the command tables; `--check` fails when a page is stale.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from '../src/cli/command.ts';
import { helpSections } from '../src/cli/help.ts';
import { nydusImage } from '../src/cli/nydus-image/program.ts';
import { nydusctl } from '../src/cli/nydusctl/program.ts';
import { nydusify } from '../src/cli/nydusify/program.ts';
import { nydusd } from '../src/cli/nydusd.ts';
import { helpUsage, scopeOf } from '../src/cli/usage.ts';

const folder = fileURLToPath(new URL('../docs/cli', import.meta.url));

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
}

/** The page of one command. */
export function page(command: Command, parents: readonly Command[]): string {
  const scope = scopeOf(command, parents);
  const out = [`# ${command.name}`, '', `${command.summary}.`, ''];
  if (command.description !== undefined) out.push(command.description, '');
  out.push('```', helpUsage(scope), '```', '');
  for (const section of helpSections(scope)) {
    out.push(`## ${section.title}`, '', '| | |', '|---|---|');
    for (const { term, text } of section.entries)
      out.push(`| \`${term.trim().replaceAll('|', '\\|')}\` | ${cell(text)} |`);
    out.push('');
  }
  const refused = Object.entries(command.options).filter(([, o]) => o.refused !== undefined);
  if (refused.length > 0) {
    out.push('## Not supported yet', '', '| | |', '|---|---|');
    for (const [name, o] of refused) out.push(`| \`--${name}\` | ${cell(o.refused ?? '')} |`);
    out.push('');
  }
  out.push('## Examples', '', '```', ...command.examples, '```', '');
  return `${out.join('\n')}\nGenerated from the command tables by \`node tools/cli-docs.ts\`.\n`;
}

async function pages(
  command: Command,
  parents: readonly Command[],
  into: Map<string, string>,
): Promise<void> {
  into.set(`${command.name.replaceAll(' ', '-')}.md`, page(command, parents));
  for (const entry of Object.values(command.subcommands)) {
    await pages(await entry.load(), [...parents, command], into);
  }
}

const wanted = new Map<string, string>();
for (const program of [nydusImage, nydusd, nydusctl, nydusify]) await pages(program, [], wanted);
mkdirSync(folder, { recursive: true });
const present = readdirSync(folder).filter((name) => name.endsWith('.md'));
const extra = present.filter((name) => !wanted.has(name));
if (process.argv.includes('--check')) {
  const stale = [...wanted].filter(
    ([name, text]) => !present.includes(name) || readFileSync(join(folder, name), 'utf8') !== text,
  );
  const wrong = [...stale.map(([name]) => name), ...extra];
  if (wrong.length > 0) {
    console.error(`docs/cli is stale: ${wrong.join(', ')}; run 'node tools/cli-docs.ts'`);
    process.exit(1);
  }
} else {
  for (const name of extra) rmSync(join(folder, name));
  for (const [name, text] of wanted) writeFileSync(join(folder, name), text);
}
