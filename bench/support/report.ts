// The report: one table for each group, ratios of one run, targets beside them; and the same as markdown for docs/measured.md.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import type { Line } from './context.ts';

/** Machine, versions and commit of a run. */
export interface Origin {
  date: string;
  machine: string;
  node: string;
  commit: string;
  rounds: number;
  peer: string;
}

/** Describe this machine and checkout. */
export function origin(repo: string, rounds: number, peer: string | undefined): Origin {
  const git = (...args: string[]): string => {
    try {
      return execFileSync('git', ['-C', repo, ...args], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      }).trim();
    } catch {
      return 'unknown';
    }
  };
  const changed = git('status', '--porcelain', '--', 'src') === '' ? '' : ' with changes';
  const list = cpus();
  const debian = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    machine: `${list.length} × ${list[0]?.model.trim() ?? 'CPU'}, ${memory}, ${debian}, Linux ${release()}`,
    node: process.version,
    commit: `${git('rev-parse', '--short', 'HEAD')}${changed}`,
    rounds,
    peer: peer === undefined ? 'not measured' : `nydus 2.2.0 (Rust) from ${peer}`,
  };
}

/** A figure with three significant digits, thousands marked. */
export function shownFigure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return value.toPrecision(value >= 10 ? 3 : 2);
}

/** Ours against another system, above 1 when ours is better. */
export function ratioOf(line: Line, versus: string): number {
  const [ours = Number.NaN, other = Number.NaN] = [line.figures['ours'], line.figures[versus]];
  return line.better === 'more' ? ours / other : other / ours;
}

/** What the target says and whether it is met; undefined where the line has none or nothing to compare with. */
export function verdict(line: Line): { text: string; met: boolean } | undefined {
  const { target } = line;
  const ours = line.figures['ours'];
  if (target === undefined || ours === undefined) return undefined;
  if (target.limit !== undefined) {
    return { text: `≤ ${shownFigure(target.limit)} ${line.unit}`, met: ours <= target.limit };
  }
  const versus = target.versus ?? 'Rust';
  const ratio = ratioOf(line, versus);
  if (target.ratio === undefined || Number.isNaN(ratio)) return undefined;
  return { text: `≥ ${target.ratio} × ${versus}`, met: ratio >= target.ratio };
}

function columns(lines: Line[]): string[] {
  const names = new Set(lines.flatMap((line) => Object.keys(line.figures)));
  names.delete('ours');
  return [...names];
}

function rowsOf(lines: Line[]): string[][] {
  const systems = columns(lines);
  const head = [
    'what',
    'unit',
    'ours',
    ...systems.flatMap((name) => [name, `ours / ${name}`]),
    'to reach',
    '',
  ];
  const rows = lines.map((line) => {
    const judged = verdict(line);
    const others = systems.flatMap((name) => {
      const value = line.figures[name];
      return value === undefined ? ['', ''] : [shownFigure(value), `${ratioOf(line, name).toFixed(2)} ×`];
    });
    const ours = line.figures['ours'];
    const mark = judged === undefined ? '' : judged.met ? 'reached' : 'NOT YET';
    return [
      line.what,
      line.unit,
      ours === undefined ? '-' : shownFigure(ours),
      ...others,
      judged?.text ?? '',
      mark,
    ];
  });
  return [head, ...rows];
}

function groups(lines: Line[]): Map<string, Line[]> {
  return Map.groupBy(lines, (line) => line.group);
}

/** For a terminal. */
export function formatText(lines: Line[]): string {
  const out: string[] = [];
  for (const [group, members] of groups(lines)) {
    const rows = rowsOf(members);
    const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => (row[at] ?? '').length)));
    out.push('', group);
    for (const row of rows) {
      const cells = row.map((cell, at) =>
        at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
      );
      out.push(`  ${cells.join('  ').trimEnd()}`);
    }
    for (const line of members) if (line.remark !== undefined) out.push(`  · ${line.what}: ${line.remark}`);
  }
  return out.join('\n');
}

/** For docs/measured.md. */
export function formatMarkdown(lines: Line[], from: Origin): string {
  const out = [
    `Measured ${from.date} UTC at commit \`${from.commit}\`, Node ${from.node}.`,
    `Machine: ${from.machine}. Peer: ${from.peer}. Medians of ${from.rounds} runs; every ratio compares figures of the same run;`,
    'above 1 is better for ours, also for times and memory.',
  ];
  for (const [group, members] of groups(lines)) {
    const [head = [], ...rows] = rowsOf(members);
    const text = (row: string[]): string => `| ${row.join(' | ')} |`;
    out.push(
      '',
      `### ${group}`,
      '',
      text(head),
      text(head.map((_, at) => (at === 0 ? '---' : '---:'))),
      ...rows.map(text),
    );
    const remarks = members.filter((line) => line.remark !== undefined);
    if (remarks.length > 0) out.push('', ...remarks.map((line) => `- ${line.what}: ${line.remark}`));
  }
  return out.join('\n');
}
