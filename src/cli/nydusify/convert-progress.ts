// How a conversion is shown: bars on a terminal, log lines elsewhere, JSON events for programs.
import type { ConvertEvent } from '../../convert/convert.ts';
import { showBytes } from '../nydus-image/progress.ts';
import type { NydusifyContext } from './context.ts';

/** Smallest time between two JSON events of one layer in the same state. */
const EVENT_MS = 200;

export interface ConvertView {
  update: (event: ConvertEvent) => void;
  stop: () => void;
}

/** `sha256:0123456789ab`. */
export function shortDigest(digest: string): string {
  return digest.slice(0, 'sha256:'.length + 12);
}

function savedLine(event: ConvertEvent & { event: 'saved' }): string {
  const { cachedLayers, cachedBytes, dictionaryChunks, dictionaryBytes } = event;
  return (
    `build cache: ${cachedLayers} layers (${showBytes(cachedBytes)}) not converted again; ` +
    `chunk dictionary: ${dictionaryChunks} chunks (${showBytes(dictionaryBytes)}) not stored again`
  );
}

/** The log line of an event; undefined for those that only move a bar. */
export function eventLine(event: ConvertEvent): string | undefined {
  switch (event.event) {
    case 'image':
      return `converting ${event.platform} ${shortDigest(event.digest)}: ${event.layers} layers, ${showBytes(event.size)}`;
    case 'layer': {
      if (event.state !== 'done') return undefined;
      const { digest, size, target, targetSize, how } = event;
      const from =
        how === 'resumed' ? ', from an earlier run' : how === 'cached' ? ', from the build cache' : '';
      return `layer ${shortDigest(digest)} (${showBytes(size)}) is now ${shortDigest(target)} (${showBytes(targetSize)})${from}`;
    }
    case 'merge':
      return `merging layers of ${event.platform}`;
    case 'saved':
      return savedLine(event);
    case 'done':
      return `converted to ${event.digest}, ${showBytes(event.size)}`;
  }
}

function jsonView(ctx: NydusifyContext): ConvertView {
  const last = new Map<string, { state: string; time: number }>();
  return {
    update: (event) => {
      if (event.event === 'layer' && event.state !== 'done') {
        const now = performance.now();
        const before = last.get(event.digest);
        if (before?.state === event.state && now - before.time < EVENT_MS) return;
        last.set(event.digest, { state: event.state, time: now });
      }
      ctx.stdout.write(`${JSON.stringify(event)}\n`);
    },
    stop: () => {},
  };
}

async function barView(ctx: NydusifyContext): Promise<ConvertView> {
  const { default: progress } = await import('cli-progress');
  const bars = new progress.MultiBar({
    stream: ctx.stderr as NodeJS.WritableStream,
    format: '{name} {bar} {percentage}% {text}',
    hideCursor: true,
    barsize: 24,
  });
  const byLayer = new Map<string, ReturnType<typeof bars.create>>();
  const last: string[] = [];
  return {
    update: (event) => {
      if (event.event !== 'layer') {
        const line = eventLine(event);
        if (line === undefined) return;
        // what says how it ended stands below the bars
        if (event.event === 'done' || event.event === 'saved') last.push(line);
        else bars.log(`${line}\n`);
        return;
      }
      const name = shortDigest(event.digest);
      let bar = byLayer.get(event.digest);
      if (bar === undefined) {
        bar = bars.create(Math.max(1, event.size), 0, { name, text: '' });
        byLayer.set(event.digest, bar);
      }
      const done = event.state === 'done';
      // while a blob is pushed its bar is full: the reading is done
      const at = event.state === 'converting' ? Math.min(event.done, bar.getTotal()) : bar.getTotal();
      const text = done ? `${showBytes(event.size)} -> ${showBytes(event.targetSize)}` : event.state;
      bar.update(at, { name, text });
    },
    stop: () => {
      // lines that came since the last drawing
      bars.update();
      bars.stop();
      for (const line of last) ctx.stderr.write(`${line}\n`);
    },
  };
}

/** The view that the command line asks for; `stop` leaves a terminal clean. */
export async function openConvertView(
  ctx: NydusifyContext,
  kind: 'auto' | 'json' | 'none',
): Promise<ConvertView> {
  if (kind === 'json') return jsonView(ctx);
  if (kind === 'none') return { update: () => {}, stop: () => {} };
  if (ctx.stderr.isTTY === true) return barView(ctx);
  return {
    update: (event) => {
      const line = eventLine(event);
      if (line !== undefined) ctx.log.info(line);
    },
    stop: () => {},
  };
}
