// Counters as upstream's client prints them, labels and roundings included. Source: nydusd.md 17, golden cli/mistakes.jsonl;
// figures that golden has not were compared with the output of nydusctl 2.2.0.
import { member, numberAt, numbersAt, type Json } from './api.ts';

const MB = 1024 * 1024;
const BUCKETS = 8;
const CELL = 8;
const SIZES = ['<1K', '1K~', '4K~', '16K~', '64K~', '128K~', '512K~', '1M~'];
/** Upstream's labels; its buckets are others (nydusd.md 6.1). */
const LATENCIES = ['<1ms', '~20ms', '~50ms', '~100ms', '~500ms', '~1s', '~2s', '2s~'];
const FOPS = [
  'Getattr',
  'Readlink',
  'Open',
  'Release',
  'Read',
  'Statfs',
  'Getxattr',
  'Listxattr',
  'Opendir',
  'Lookup',
  'Readdir',
  'Readdirplus',
  'Access',
  'Forget',
  'BatchForget',
];
const FOPS_OF_FIRST_LINE = 8;
const READ = 4;

/** A floating point number as Rust shows it. */
function float(value: number): string {
  return Number.isNaN(value) ? 'NaN' : value === Infinity ? 'inf' : String(value);
}

/** Quotient of whole numbers, 0 when there is nothing to divide by. */
function whole(dividend: number, divisor: number): number {
  return divisor === 0 ? 0 : Math.floor(dividend / divisor);
}

function row(label: string, width: number, cells: readonly (string | number)[]): string {
  return `${label.padEnd(width)}${cells.map((cell) => String(cell).padEnd(CELL)).join('')}\n`;
}

function lines(width: number, entries: readonly (readonly [string, string])[]): string {
  return entries.map(([label, value]) => `${label.padEnd(width)}${value}\n`).join('');
}

/** `metrics cache`. */
export function cacheText(m: Json): string {
  const amount = numberAt(m, 'prefetch_data_amount');
  const requests = numberAt(m, 'prefetch_requests_count');
  const seconds = (name: string): number =>
    numberAt(m, `prefetch_${name}_time_secs`) + numberAt(m, `prefetch_${name}_time_millis`) / 1000;
  // single precision upstream
  const duration = Math.fround(seconds('end') - seconds('begin'));
  const latency = numberAt(m, 'prefetch_cumulative_time_millis') / 1000 / requests;
  const head = lines(28, [
    ['Partial Hits:', String(numberAt(m, 'partial_hits'))],
    ['Whole Hits:', String(numberAt(m, 'whole_hits'))],
    ['Total Read:', String(numberAt(m, 'total'))],
    ['Directory:', JSON.stringify(member(m, 'store_path'))],
    ['Files:', JSON.stringify(member(m, 'underlying_files'))],
    ['Persister Buffer:', String(numberAt(m, 'buffered_backend_size'))],
  ]);
  const prefetch = lines(28, [
    ['Prefetch Workers:', String(numberAt(m, 'prefetch_workers'))],
    ['Prefetch Amount:', `${amount} = ${float(amount / 1024)} KB`],
    ['Prefetch Requests:', String(requests)],
    ['Prefetch Average Size:', `${whole(amount, requests)} Bytes`],
    ['Prefetch Duration:', `${float(duration)} Seconds`],
    ['Prefetch Bandwidth:', `${float(amount / MB / duration)} MB/S`],
    ['Prefetch Request Latency:', `${float(latency)} Seconds`],
    ['Prefetch Unmerged:', String(numberAt(m, 'prefetch_unmerged_chunks'))],
  ]);
  return `\n${head}\n${prefetch}`;
}

/** `metrics backend`. */
export function backendText(m: Json): string {
  const amount = numberAt(m, 'read_amount_total');
  const counts = numbersAt(m, 'read_count_block_size_dist', BUCKETS);
  const millis = numbersAt(m, 'read_cumulative_latency_millis_dist', BUCKETS);
  const head = lines(20, [
    ['Backend Type:', JSON.stringify(member(m, 'backend_type'))],
    ['Read Amount:', `${amount} Bytes (${float(amount / MB)} MB)`],
    ['Read Count:', String(numberAt(m, 'read_count'))],
    ['Read Errors:', String(numberAt(m, 'read_errors'))],
  ]);
  const sizes = row('Block Sizes:', 25, SIZES);
  const average = millis.map((total, at) => whole(total, counts[at] ?? 0));
  return `\n${head}\n${sizes}${row('Average Latency(millis):', 25, average)}\n${sizes}${row('Request Count:', 25, counts)}`;
}

/** `metrics backend --interval`: what happened between two looks. */
export function backendDeltaText(before: Json, now: Json, seconds: number): string {
  const delta = (key: string): number => numberAt(now, key) - numberAt(before, key);
  const deltas = (key: string): number[] => {
    const earlier = numbersAt(before, key, BUCKETS);
    return numbersAt(now, key, BUCKETS).map((value, at) => value - (earlier[at] ?? 0));
  };
  const bytes = delta('read_amount_total');
  const count = delta('read_count');
  const counts = deltas('read_count_block_size_dist');
  const millis = deltas('read_cumulative_latency_millis_dist');
  const head = lines(28, [
    ['Backend Read Bandwidth:', `${Math.floor(bytes / 1024 / seconds)} KB/S`],
    ['Backend Average IO Size:', `${whole(bytes, count)} Bytes`],
    ['Backend Average Latency:', `${whole(delta('read_cumulative_latency_millis_total'), count)} millis`],
  ]);
  const average = millis.map((total, at) => whole(total, counts[at] ?? 0));
  const table = `Block Sizes/millis:\n${row('', 0, SIZES)}${row('', 0, average)}`;
  return `\n>>> >>> >>> >>> >>>\n${head}\n${table}<<< <<< <<< <<< <<<\n`;
}

/** `metrics fsstats`. */
export function fsText(m: Json): string {
  const hits = numbersAt(m, 'fop_hits', FOPS.length);
  const errors = numbersAt(m, 'fop_errors', FOPS.length);
  const bytes = numberAt(m, 'data_read');
  const shown = FOPS.map((name, at) => `${name}(${hits[at] ?? 0})`);
  return (
    `\n${row('Read Latency:', 16, LATENCIES)}` +
    row('Reads Count:', 16, numbersAt(m, 'read_latency_dist', BUCKETS)) +
    `\nRead Errors: ${errors[READ] ?? 0}\nRead Data: ${bytes}Bytes (${whole(bytes, MB)}MB)\n\nFOP Counters:\n` +
    `${shown.slice(0, FOPS_OF_FIRST_LINE).join(' ')}\n${shown.slice(FOPS_OF_FIRST_LINE).join(' ')}\n`
  );
}
