// `nydusd doctor`: what works on this machine, what does not, what to do.
import type { Finding } from '../daemon/doctor/doctor.ts';
import { command } from './command.ts';

const COLUMN = 2;

/** A table for people, as wide as its longest entries; advice on a line of its own. */
export function doctorText(findings: readonly Finding[]): string {
  const whats = Math.max(...findings.map(({ what }) => what.length)) + COLUMN;
  const lines = findings.flatMap(({ what, verdict, detail, advice }) => [
    `${what.padEnd(whats)}${verdict.padEnd('limited'.length + COLUMN)}${detail}`,
    ...(advice === '' ? [] : [`${' '.repeat(whats)}${' '.repeat('limited'.length + COLUMN)}→ ${advice}`]),
  ]);
  const bad = findings.filter(({ verdict }) => verdict === 'no').length;
  const limited = findings.filter(({ verdict }) => verdict === 'limited').length;
  const sum =
    bad > 0
      ? `${bad} of ${findings.length} things do not work.`
      : limited > 0
        ? `nydusd works here; ${limited} of ${findings.length} things are limited.`
        : 'All is well.';
  return `${lines.join('\n')}\n\n${sum}\n`;
}

export const doctor = command({
  name: 'nydusd doctor',
  summary: 'Show what works on this machine, what does not, and what to do',
  description:
    'Each driver is tried by a small real mount, with its cache where the configuration or --cache says. The exit status is 0 when ' +
    'nydusd can serve images here, 1 when something that it needs does not work.',
  options: {
    config: { type: 'string', short: 'C', help: 'configuration whose cache and backend are looked at' },
    cache: {
      type: 'string',
      repeatable: true,
      help: 'directory that is to hold a cache; several may be given',
    },
    output: { type: 'string', default: 'text', values: ['text', 'json'], help: 'form of the result' },
  },
  examples: ['nydusd doctor', 'nydusd doctor --config ./config.json --output json | jq .'],
  run: async (ctx, values) => {
    const { examine } = await import('../daemon/doctor/doctor.ts');
    const findings = await examine({ config: values.config, caches: values.cache });
    const works = findings.every(({ verdict }) => verdict !== 'no');
    ctx.stdout.write(
      values.output === 'json'
        ? `${JSON.stringify({ works, findings }, undefined, 2)}\n`
        : doctorText(findings),
    );
    return works ? 0 : 1;
  },
});
