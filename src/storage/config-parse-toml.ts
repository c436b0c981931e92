// Lines of the keys of a TOML text. The values come from smol-toml, which does not say where it found them.

const HEADER = /^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$/;
const ASSIGNMENT = /^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=/;

function dotted(keys: string): string {
  return [...keys.matchAll(/"([^"]*)"|'([^']*)'|([\w-]+)/g)].map((m) => m[1] ?? m[2] ?? m[3] ?? '').join('.');
}

/**
 * Line of every key, by path, from 1. Good enough for messages: keys inside an inline table share the line of the key
 * that holds the table, and a line within a multi-line string that looks like an assignment may add a path of its own.
 */
export function tomlLines(text: string): Map<string, number> {
  const lines = new Map<string, number>();
  const counts = new Map<string, number>();
  let section = '';
  for (const [index, line] of text.split('\n').entries()) {
    const header = HEADER.exec(line);
    if (header !== null) {
      section = dotted(header[2] ?? '');
      if (header[1] === '[[') {
        const count = counts.get(section) ?? 0;
        counts.set(section, count + 1);
        section = `${section}[${count}]`;
      }
      lines.set(section, index + 1);
      continue;
    }
    const assignment = ASSIGNMENT.exec(line);
    if (assignment === null) continue;
    const key = dotted(assignment[1] ?? '');
    const path = section === '' ? key : `${section}.${key}`;
    if (!lines.has(path)) lines.set(path, index + 1);
  }
  return lines;
}
