// The table of `nydusctl top`.
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

interface Column {
  title: string;
  cell: (rates: Rates) => string;
}

const COLUMNS: readonly Column[] = [
  { title: 'MOUNTPOINT', cell: (r) => r.mountpoint },
  { title: 'OPS/S', cell: (r) => r.ops_per_second.toFixed(0) },
  { title: 'READ/S', cell: (r) => bytesText(r.read_bytes_per_second) },
  {
    title: 'READ LATENCY',
    cell: (r) => (r.read_latency_micros === null ? '-' : `${r.read_latency_micros.toFixed(0)} µs`),
  },
  { title: 'FETCHED/S', cell: (r) => bytesText(r.fetched_bytes_per_second) },
  { title: 'FETCHED', cell: (r) => bytesText(r.fetched_bytes) },
  { title: 'HITS', cell: (r) => (r.hit_rate === null ? '-' : `${(r.hit_rate * 100).toFixed(1)} %`) },
  { title: 'PREFETCHED', cell: (r) => bytesText(r.prefetched_bytes) },
  { title: 'ERRORS', cell: (r) => String(r.errors) },
  { title: 'LOCAL', cell: (r) => (r.type !== 'Rafs' ? '-' : r.complete ? 'all' : 'partly') },
];

/** The whole table, busiest mount first, cut to `height` lines. */
export function topText(sample: Sample, rates: readonly Rates[], height = Infinity): string {
  const sorted = [...rates].sort(
    (a, b) => b.ops_per_second - a.ops_per_second || a.mountpoint.localeCompare(b.mountpoint),
  );
  const rows = [COLUMNS.map(({ title }) => title), ...sorted.map((r) => COLUMNS.map(({ cell }) => cell(r)))];
  const widths = COLUMNS.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((text, at) => (at === 0 ? text.padEnd(widths[at] ?? 0) : text.padStart(widths[at] ?? 0)))
      .join('  '),
  );
  const total = (key: 'ops_per_second' | 'fetched_bytes_per_second'): number =>
    rates.reduce((sum, r) => sum + r[key], 0);
  const head =
    `nydusd ${sample.state}, ${rates.length} ${rates.length === 1 ? 'mount' : 'mounts'}, ` +
    `${total('ops_per_second').toFixed(0)} operations/s, ${bytesText(total('fetched_bytes_per_second'))}/s fetched`;
  const shown = [head, '', ...lines];
  if (shown.length <= height) return `${shown.join('\n')}\n`;
  const cut = shown.slice(0, Math.max(3, height - 1));
  return `${[...cut, `... ${shown.length - cut.length} more`].join('\n')}\n`;
}
