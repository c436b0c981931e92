// The table at the end of the demo, and the lines before it. Colours on a terminal only.

const colourful = process.stdout.isTTY && process.env['NO_COLOR'] === undefined;
const paint = (code: string, text: string): string => (colourful ? `\x1b[${code}m${text}\x1b[0m` : text);

export const bold = (text: string): string => paint('1', text);
export const dim = (text: string): string => paint('2', text);
export const green = (text: string): string => paint('32', text);

/** `12.3 MB`. @param bytes 0 or more */
export function megabytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1_000_000) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** `345 ms` or `1.23 s`. */
export function duration(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** `7.5 %` of a whole. */
export function share(part: number, whole: number): string {
  return whole === 0 ? '-' : `${((100 * part) / whole).toFixed(1)} %`;
}

export type Row = [label: string, value: string, note?: string] | 'line';

/** A figure of both ways, and how many times better the second is. */
export type Versus = [label: string, whole: string, nydus: string, times?: string];

/** `6.2 × less`. @param words what less is called */
export function times(whole: number, nydus: number, words: string): string {
  const ratio = whole / nydus;
  return Number.isFinite(ratio) && ratio > 0 ? `${ratio.toFixed(ratio < 10 ? 1 : 0)} × ${words}` : '';
}

/** Rows of two figures as rows of a table: columns line up, the heads stand over them. */
export function versusRows(rows: readonly Versus[]): Row[] {
  const heads: Versus = ['', 'whole image', 'with nydus'];
  const width = (at: 1 | 2): number => Math.max(...[heads, ...rows].map((row) => row[at].length));
  return [heads, ...rows].map(([label, whole, nydus, note = '']) => [
    label,
    `${whole.padStart(width(1))}   ${nydus.padStart(width(2))}`,
    note,
  ]);
}

/** A box of rows: label, value on the right, note. */
export function table(title: string, rows: Row[]): string {
  const cells = rows.filter((row) => row !== 'line');
  const widest = (at: number): number => Math.max(...cells.map((row) => (row[at] ?? '').length));
  const [label, value, note] = [widest(0), widest(1), Math.max(widest(2), 1)];
  const inner = Math.max(label + value + note + 8, title.length + 2);
  const rule = (left: string, right: string): string => dim(left + '─'.repeat(inner) + right);
  const side = dim('│');
  const lines = [
    rule('╭', '╮'),
    `${side} ${bold(title)}${' '.repeat(inner - title.length - 1)}${side}`,
    rule('├', '┤'),
  ];
  for (const row of rows) {
    if (row === 'line') {
      lines.push(rule('├', '┤'));
      continue;
    }
    const [name, figure, remark = ''] = row;
    const text = `  ${name.padEnd(label)}   ${bold(figure.padStart(value))}  ${dim(remark.padEnd(note))}`;
    const used = 2 + label + 3 + value + 2 + note;
    lines.push(`${side}${text}${' '.repeat(inner - used)}${side}`);
  }
  lines.push(rule('╰', '╯'));
  return lines.join('\n');
}

/** Print what is being done now; the returned function ends the line with the time it took. */
export function step(text: string): (note?: string) => void {
  const began = performance.now();
  process.stdout.write(`  ${text} `);
  return (note = '') => {
    const took = dim(duration(performance.now() - began));
    process.stdout.write(`${green('✓')} ${took}${note === '' ? '' : ` ${dim(note)}`}\n`);
  };
}
