// The report of `nydusd doctor` as a table for people. Marks and arrows only where the terminal shows them.
import { GROUPS, type Finding, type Group, type Report, type Status } from '../daemon/doctor/finding.ts';

export interface TableStyle {
  /** a terminal that shows UTF-8 */
  symbols: boolean;
  /** columns of the terminal; undefined: lines may be as long as they are */
  columns?: number | undefined;
}

const SYMBOLS: Record<Status, string> = { ok: '✓', info: ' ', warn: '!', fail: '✗' };
const WORDS: Record<Status, string> = { ok: 'ok', info: '-', warn: 'warn', fail: 'no' };
const TITLES: Record<Group, string> = {
  host: 'This machine',
  drivers: 'Drivers',
  cache: 'Cache',
  configuration: 'Configuration',
};
const MIN_TEXT = 30;

/** Whether a terminal shows UTF-8, by the locale in the environment. Source: setlocale(3) */
export function isUtf8(env: Readonly<Record<string, string | undefined>>): boolean {
  const locale = [env['LC_ALL'], env['LC_CTYPE'], env['LANG']].find(
    (value) => value !== undefined && value !== '',
  );
  return /utf-?8/i.test(locale ?? '');
}

/** Lines of at most `width` columns; a word that is longer stays whole. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

function headline(group: Group, subject: string | undefined): string {
  return group === 'cache' && subject !== undefined ? `${TITLES[group]} ${subject}` : TITLES[group];
}

/** Rows with one headline each, in the order of the groups. */
function sections(findings: readonly Finding[]): Map<string, Finding[]> {
  const out = new Map<string, Finding[]>();
  for (const group of GROUPS) {
    for (const finding of findings.filter((one) => one.group === group)) {
      const title = headline(group, finding.subject);
      const rows = out.get(title) ?? [];
      rows.push(finding);
      out.set(title, rows);
    }
  }
  return out;
}

function verdict({ ok, driver, findings }: Report): string {
  if (ok) return `Everything that driver ${driver} needs works here.`;
  const missing = findings.filter(({ essential, status }) => essential && status === 'fail');
  const names = missing.map(({ group, name }) => (group === 'drivers' ? name : `${group} ${name}`));
  return `Not ready to serve with driver ${driver}: ${names.join(', ')}.`;
}

/** The whole table, with a line feed at its end. */
export function doctorTable(report: Report, { symbols, columns }: TableStyle): string {
  const marks = symbols ? SYMBOLS : WORDS;
  const arrow = symbols ? '→' : '->';
  const nameWidth = Math.max(...report.findings.map(({ name }) => name.length));
  const markWidth = Math.max(...Object.values(marks).map((mark) => mark.length));
  const indent = 2 + markWidth + 1 + nameWidth + 2;
  const width = columns === undefined ? Infinity : Math.max(MIN_TEXT, columns - indent - 1);
  // several caches: each row of a driver says whose it is
  const many =
    new Set(report.findings.filter(({ group }) => group === 'cache').map((f) => f.subject)).size > 1;
  const lines: string[] = [];
  for (const [title, rows] of sections(report.findings)) {
    lines.push(title);
    for (const { status, name, detail, fix, group, subject } of rows) {
      const where = many && group === 'drivers' && subject !== undefined ? `${subject}: ` : '';
      const text = wrap(where + detail, width);
      if (fix !== undefined && status !== 'ok')
        text.push(
          ...wrap(fix, width - 3).map((line, i) => `${i === 0 ? arrow : ' '.repeat(arrow.length)} ${line}`),
        );
      const head = `  ${marks[status].padEnd(markWidth)} ${name.padEnd(nameWidth)}  `;
      text.forEach((line, i) => lines.push((i === 0 ? head : ' '.repeat(indent)) + line));
    }
    lines.push('');
  }
  lines.push(verdict(report));
  return `${lines.join('\n')}\n`;
}
