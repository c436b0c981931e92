// A progress bar for builds, on a terminal only.
import type { BuildProgress } from '../../build/options.ts';
import type { CommandContext } from '../command.ts';

/** What draws the events of a build; `stop` leaves the terminal clean. */
export interface ProgressView {
  update: (event: BuildProgress) => void;
  stop: () => void;
}

const PHASES: Record<BuildProgress['phase'], string> = {
  scan: 'reading the source',
  data: 'storing data',
  metadata: 'writing metadata',
  done: 'done',
};

/** Bytes for people: `3.4 MiB`. */
export function showBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** The line that stands where the bar does. `total` 0 means that nobody knows it yet. */
export function progressLine(event: BuildProgress): string {
  const of = event.totalBytes > 0 ? ` of ${showBytes(event.totalBytes)}` : '';
  const files = event.totalFiles > 0 ? `${event.files} of ${event.totalFiles}` : `${event.files}`;
  return `${PHASES[event.phase]}: ${files} files, ${showBytes(event.bytes)}${of}`;
}

/** ` 42%`, blank while nobody knows how much there is. */
export function progressShare({ bytes, totalBytes }: BuildProgress): string {
  if (totalBytes === 0) return '    ';
  return `${String(Math.floor((Math.min(bytes, totalBytes) / totalBytes) * 100)).padStart(3)}%`;
}

/** A bar on stderr when that is a terminal, else nothing. The library is loaded only when it draws. */
export async function openProgress(ctx: CommandContext): Promise<ProgressView> {
  if (ctx.stderr.isTTY !== true) return { update: () => {}, stop: () => {} };
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar({
    stream: ctx.stderr,
    format: '{bar} {share} {line}',
    clearOnComplete: true,
    hideCursor: true,
    barsize: 24,
  });
  bar.start(1, 0, { share: '', line: '' });
  return {
    update: (event) => {
      bar.setTotal(Math.max(1, event.totalBytes));
      const done = Math.min(event.bytes, event.totalBytes);
      bar.update(done, { share: progressShare(event), line: progressLine(event) });
    },
    stop: () => bar.stop(),
  };
}
