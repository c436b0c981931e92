// `nydusctl top`: a live view of what the mounts of a daemon do. On a terminal it refreshes in place, elsewhere table follows table.
import { setTimeout as sleep } from 'node:timers/promises';
import { command, type CommandContext } from '../command.ts';
import { DaemonApi } from './api.ts';
import { checkInterval } from './metrics.ts';
import type { OutputFlags } from './output.ts';
import { ratesBetween, takeSample, type Rates, type Sample } from './top-sample.ts';
import { topText } from './top-text.ts';

const HOME_AND_CLEAR = '\x1b[H\x1b[J';

function show(ctx: CommandContext, flags: OutputFlags, sample: Sample, rates: Rates[]): void {
  if (flags.raw || flags.json) {
    ctx.stdout.write(`${JSON.stringify({ state: sample.state, mounts: rates })}\n`);
    return;
  }
  const terminal = ctx.stdout as { isTTY?: boolean; rows?: number; columns?: number };
  if (terminal.isTTY === true)
    ctx.stdout.write(HOME_AND_CLEAR + topText(sample, rates, terminal.rows, terminal.columns));
  else ctx.stdout.write(`${topText(sample, rates)}\n`);
}

function checkCount(text: string): string | undefined {
  return /^[1-9]\d{0,8}$/.test(text) ? undefined : 'expected a whole number above 0';
}

export const top = command({
  name: 'nydusctl top',
  summary: 'Watch operations, fetched bytes and cache hits, image by image',
  description:
    'One line for each mount, the busiest first. With --json one object a line is printed instead, for each look.',
  options: {
    interval: {
      type: 'string',
      short: 'I',
      default: '1',
      check: checkInterval,
      help: 'seconds between two looks',
    },
    count: {
      type: 'string',
      short: 'n',
      check: checkCount,
      help: 'end after so many looks; without it, at Ctrl-C',
    },
  },
  examples: ['nydusctl -S api.sock top', 'nydusctl -S api.sock top --interval 5 --count 1 --json'],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const api = new DaemonApi(sock, ctx.signal);
    const looks = values.count === undefined ? Infinity : Number(values.count);
    let before = await takeSample(api);
    try {
      for (let look = 0; look < looks; look++) {
        await sleep(Number(values.interval) * 1000, undefined, { signal: ctx.signal });
        const now = await takeSample(api);
        show(ctx, flags, now, ratesBetween(before, now));
        before = now;
      }
    } catch (error) {
      // Ctrl-C is how a person ends it
      if (!ctx.signal.aborted) throw error;
    }
    return 0;
  },
});
