// `nydusd doctor`: what works on this host, what does not, and what to do about it. Loaded when it is called.
import { command } from './command.ts';
import { doctorTable, isUtf8 } from './nydusd-doctor-table.ts';

export const doctor = command({
  name: 'nydusd doctor',
  summary: 'Show what works on this host, what does not, and what to do',
  description:
    'Everything is tried, not looked up: a small image is mounted with each driver, read and unmounted. Nothing is left behind. ' +
    'Exit status: 0 everything needed for serving works, 1 something essential is missing.',
  options: {
    config: {
      type: 'string',
      short: 'C',
      value: 'FILE',
      help: 'check this configuration too: its cache directory and its backend',
    },
    'cache-dir': {
      type: 'string',
      value: 'DIR',
      aliases: ['cache'],
      repeatable: true,
      help: 'check this directory as a place for caches; default: that of the configuration, else /var/tmp',
    },
    driver: {
      type: 'string',
      values: ['auto', 'fuse', 'fileio', 'fanotify'],
      help: 'driver that must work; default: what the configuration says, else fuse',
    },
    output: {
      type: 'string',
      short: 'o',
      values: ['text', 'json'],
      default: 'text',
      help: 'a table for people, or JSON for programs',
    },
  },
  examples: ['nydusd doctor', 'nydusd doctor --config ./config.json --output json'],
  run: async (ctx, values) => {
    const { examine } = await import('../daemon/doctor/doctor.ts');
    const report = await examine(
      {
        config: values.config,
        cacheDirs: values['cache-dir'],
        driver: values.driver,
        imagePullAuth: ctx.env['IMAGE_PULL_AUTH'],
      },
      ctx.signal,
    );
    if (values.output === 'json') ctx.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
    else {
      const isTerminal = ctx.stdout.isTTY === true;
      const { columns } = ctx.stdout as { columns?: number };
      const style = { symbols: isTerminal && isUtf8(ctx.env), columns: isTerminal ? columns : undefined };
      ctx.stdout.write(doctorTable(report, style));
    }
    return report.ok ? 0 : 1;
  },
});
