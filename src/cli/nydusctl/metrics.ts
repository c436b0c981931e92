// `nydusctl metrics`: counters once, or the backend's again and again. Source: nydusd.md 17.
import { setTimeout as sleep } from 'node:timers/promises';
import { command, type CommandContext } from '../command.ts';
import { DaemonApi, member, type Json } from './api.ts';
import { backendDeltaText, backendText, cacheText, fsText } from './metrics-text.ts';
import { printAnswer, printRefusal, type OutputFlags } from './output.ts';

const CATEGORIES = {
  backend: { path: '/api/v1/metrics/backend', text: backendText },
  cache: { path: '/api/v1/metrics/blobcache', text: cacheText },
  fsstats: { path: '/api/v1/metrics', text: fsText },
} as const;

/** Longest pause between two looks, seconds: a day. */
const MAX_INTERVAL = 86_400;

/** Problem of an interval, for the parser. */
export function checkInterval(text: string): string | undefined {
  const seconds = Number(text);
  return /^\d+$/.test(text) && seconds >= 1 && seconds <= MAX_INTERVAL
    ? undefined
    : `expected whole seconds from 1 to ${MAX_INTERVAL}`;
}

/** Which ids there are: the answer to an unknown one, or to none where one is needed, does not say. */
async function idHint(api: DaemonApi, category: keyof typeof CATEGORIES): Promise<string> {
  const mounts = member((await api.request('GET', '/api/v1/daemon')).body, 'backend_collection');
  const entries = Object.entries(mounts ?? {}) as [string, Json][];
  const images = entries.filter(([, mount]) => member(mount, 'backend_type') === 'Rafs');
  if (images.length === 0) return 'no image is mounted: nothing is counted';
  // caches go by the id of their configuration, which is often empty
  const cacheId = (mount: Json): string => {
    const id = member(mount, 'config', 'id');
    return typeof id === 'string' ? id : '';
  };
  const ids = images.map(([at, mount]) => (category === 'cache' ? cacheId(mount) : at));
  return `name one with --id: ${[...new Set(ids)].map((id) => (id === '' ? "''" : id)).join(', ')}`;
}

async function watch(
  ctx: CommandContext,
  flags: OutputFlags,
  look: () => Promise<{ status: number; body: Json }>,
  seconds: number,
): Promise<number> {
  let before = await look();
  while (before.status < 400) {
    await sleep(seconds * 1000, undefined, { signal: ctx.signal });
    const now = await look();
    if (now.status >= 400) return printRefusal(ctx, flags, now);
    const earlier = before.body;
    printAnswer(ctx, flags, now.body, (body) => backendDeltaText(earlier, body, seconds));
    before = now;
  }
  return printRefusal(ctx, flags, before);
}

export const metrics = command({
  name: 'nydusctl metrics',
  summary: 'Show counters of the backend, the cache or the filesystem',
  options: {
    interval: {
      type: 'string',
      short: 'I',
      check: checkInterval,
      help: 'for backend: look again every so many seconds, and print what changed',
    },
    id: {
      type: 'string',
      help: 'which counters: the mountpoint, for cache the id in the configuration; needed when there are several',
    },
  },
  positionals: {
    category: {
      required: true,
      values: ['backend', 'cache', 'fsstats'],
      help: 'the counters to show',
    },
  },
  examples: [
    'nydusctl -S api.sock metrics backend',
    'nydusctl -S api.sock metrics backend --interval 1',
    'nydusctl -S api.sock metrics fsstats --id /image --json',
  ],
  run: async (ctx, values) => {
    const { sock, ...flags } = values as unknown as { sock: string } & OutputFlags;
    const { path, text } = CATEGORIES[values.category];
    const query = values.id === undefined ? '' : `?id=${encodeURIComponent(values.id)}`;
    const api = new DaemonApi(sock, ctx.signal);
    const look = (): Promise<{ status: number; body: Json }> => api.request('GET', path + query);
    // upstream ignores an interval of the other two as well
    if (values.category === 'backend' && values.interval !== undefined)
      return watch(ctx, flags, look, Number(values.interval));
    const answer = await look();
    if (answer.status >= 400) return printRefusal(ctx, flags, answer, await idHint(api, values.category));
    printAnswer(ctx, flags, answer.body, text);
    return 0;
  },
});
