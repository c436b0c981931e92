// The table of `nydusctl top`.
import { tableText } from '../table.ts';
import type { Rates, Sample } from './top-sample.ts';

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** `1.3 MB`: three digits at most, powers of 1000. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

interface TopColumn {
  title: string;
  cell: (rates: Rates) => string;
  /** left out on a narrow terminal, the highest number first; never without one */
  spare?: number;
}

// prettier-ignore
const COLUMNS: readonly TopColumn[] = [
  { title: 'MOUNTPOINT', cell: (r) => r.mountpoint },
  { title: 'OPS/S', cell: (r) => r.ops_per_second.toFixed(0) },
  { title: 'READ/S', cell: (r) => bytesText(r.read_bytes_per_second) },
  { title: 'READ LATENCY', spare: 2, cell: (r) => (r.read_latency_micros === null ? '-' : `${r.read_latency_micros.toFixed(0)} µs`) },
  { title: 'FETCHED/S', cell: (r) => bytesText(r.fetched_bytes_per_second) },
  { title: 'FETCHED', spare: 3, cell: (r) => bytesText(r.fetched_bytes) },
  { title: 'HITS', cell: (r) => (r.hit_rate === null ? '-' : `${(r.hit_rate * 100).toFixed(1)} %`) },
  { title: 'PREFETCHED', spare: 4, cell: (r) => bytesText(r.prefetched_bytes) },
  { title: 'ERRORS', cell: (r) => String(r.errors) },
  { title: 'LOCAL', spare: 1, cell: (r) => (r.type !== 'Rafs' ? '-' : r.complete ? 'all' : 'partly') },
];

/** Narrowest mountpoint column: what remains of a long path is its end. */
const MIN_MOUNTPOINT = 20;

/** The end of a path, when it is longer than its place. */
function endOf(path: string, width: number): string {
  return path.length <= width ? path : `…${path.slice(path.length - width + 1)}`;
}

function linesOf(rates: readonly Rates[], width: number): string[] {
  const columns = [...COLUMNS];
  for (;;) {
    const table = (room: number): string[] => {
      const rows = rates.map((r) =>
        columns.map(({ cell }, at) => (at === 0 ? endOf(cell(r), room) : cell(r))),
      );
      const titles = columns.map(({ title }, at) => ({ title, right: at > 0 }));
      return tableText(titles, rows).trimEnd().split('\n');
    };
    const lines = table(Infinity);
    const wide = Math.max(...lines.map((line) => line.length));
    if (wide <= width) return lines;
    const longest = Math.max(...rates.map((r) => r.mountpoint.length), MIN_MOUNTPOINT);
    const room = longest - (wide - width);
    const spare = Math.max(...columns.map((column) => column.spare ?? 0));
    if (room >= MIN_MOUNTPOINT || spare === 0) return table(Math.max(room, MIN_MOUNTPOINT));
    columns.splice(
      columns.findIndex((column) => column.spare === spare),
      1,
    );
  }
}

/** The whole table, busiest mount first, cut to a terminal of `height` lines and `width` characters. */
export function topText(
  sample: Sample,
  rates: readonly Rates[],
  height = Infinity,
  width = Infinity,
): string {
  const sorted = [...rates].sort(
    (a, b) => b.ops_per_second - a.ops_per_second || a.mountpoint.localeCompare(b.mountpoint),
  );
  const total = (key: 'ops_per_second' | 'fetched_bytes_per_second'): number =>
    rates.reduce((sum, r) => sum + r[key], 0);
  const head =
    `nydusd ${sample.state}, ${rates.length} ${rates.length === 1 ? 'mount' : 'mounts'}, ` +
    `${total('ops_per_second').toFixed(0)} operations/s, ${bytesText(total('fetched_bytes_per_second'))}/s fetched`;
  const shown = [head, '', ...linesOf(sorted, width)];
  if (shown.length <= height) return `${shown.join('\n')}\n`;
  const cut = shown.slice(0, Math.max(3, height - 1));
  return `${[...cut, `... ${shown.length - cut.length} more`].join('\n')}\n`;
}
