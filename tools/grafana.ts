// Writes docs/grafana-dashboard.json: one dashboard for a fleet of daemons. `--check` fails when it is stale.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

interface Panel {
  title: string;
  unit: string;
  /** legend text and expression */
  series: readonly (readonly [string, string])[];
  type?: 'stat' | 'timeseries';
  description?: string;
}

const RATE = '[$__rate_interval]';
const WHERE = '{instance=~"$instance", mountpoint=~"$mountpoint"}';

function quantile(q: number, metric: string): string {
  return `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket${WHERE}${RATE})))`;
}

const PANELS: readonly Panel[] = [
  {
    title: 'Daemons',
    unit: 'short',
    type: 'stat',
    series: [['{{state}}', 'count by (state) (nydusd_state{instance=~"$instance"})']],
  },
  {
    title: 'Mounts',
    unit: 'short',
    type: 'stat',
    series: [['mounts', 'sum(nydusd_mounts{instance=~"$instance"})']],
  },
  {
    title: 'Images that are wholly local',
    unit: 'percentunit',
    type: 'stat',
    series: [['share', `avg(nydusd_cache_complete${WHERE})`]],
  },
  {
    title: 'Operations',
    unit: 'ops',
    series: [['{{operation}}', `sum by (operation) (rate(nydusd_fs_operations_total${WHERE}${RATE}))`]],
  },
  {
    title: 'Failed operations',
    unit: 'ops',
    description: 'Readers see these as errors: EIO when a chunk could not be fetched or failed its digest.',
    series: [['{{operation}}', `sum by (operation) (rate(nydusd_fs_operation_errors_total${WHERE}${RATE}))`]],
  },
  {
    title: 'Duration of reads',
    unit: 's',
    series: [
      ['median', quantile(0.5, 'nydusd_fs_read_duration_seconds')],
      ['99 %', quantile(0.99, 'nydusd_fs_read_duration_seconds')],
    ],
  },
  {
    title: 'Bytes read, and bytes fetched',
    unit: 'Bps',
    series: [
      ['read by containers', `sum(rate(nydusd_fs_read_bytes_total${WHERE}${RATE}))`],
      ['fetched from the backend', `sum(rate(nydusd_backend_bytes_total${WHERE}${RATE}))`],
      ['of these by prefetch', `sum(rate(nydusd_cache_prefetch_bytes_total${WHERE}${RATE}))`],
    ],
  },
  {
    title: 'Chunk reads that the cache answered',
    unit: 'percentunit',
    series: [
      [
        'hits',
        `sum(rate(nydusd_cache_chunk_reads_total{instance=~"$instance", mountpoint=~"$mountpoint", result="hit"}${RATE})) / sum(rate(nydusd_cache_chunk_reads_total${WHERE}${RATE}))`,
      ],
    ],
  },
  {
    title: 'Backend: requests and errors',
    unit: 'reqps',
    series: [
      ['requests, {{backend}}', `sum by (backend) (rate(nydusd_backend_requests_total${WHERE}${RATE}))`],
      ['errors, {{backend}}', `sum by (backend) (rate(nydusd_backend_errors_total${WHERE}${RATE}))`],
    ],
  },
  {
    title: 'Backend: duration of requests',
    unit: 's',
    series: [
      ['median', quantile(0.5, 'nydusd_backend_request_duration_seconds')],
      ['99 %', quantile(0.99, 'nydusd_backend_request_duration_seconds')],
    ],
  },
  {
    title: 'Memory of the daemons',
    unit: 'bytes',
    series: [['{{instance}}', 'process_resident_memory_bytes{instance=~"$instance", job=~".*nydus.*"}']],
  },
  {
    title: 'Processor time of the daemons',
    unit: 'percentunit',
    series: [
      ['{{instance}}', `rate(process_cpu_seconds_total{instance=~"$instance", job=~".*nydus.*"}${RATE})`],
    ],
  },
];

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const COLUMNS = 24;
const HEIGHT = 8;
const STAT_HEIGHT = 4;

function panels(): Record<string, unknown>[] {
  let x = 0;
  let y = 0;
  return PANELS.map((panel, id) => {
    const isStat = panel.type === 'stat';
    const w = isStat ? COLUMNS / 3 : COLUMNS / 2;
    const h = isStat ? STAT_HEIGHT : HEIGHT;
    const gridPos = { x, y, w, h };
    x += w;
    if (x >= COLUMNS) {
      x = 0;
      y += h;
    }
    return {
      id: id + 1,
      type: panel.type ?? 'timeseries',
      title: panel.title,
      ...(panel.description === undefined ? {} : { description: panel.description }),
      datasource: DATASOURCE,
      gridPos,
      fieldConfig: { defaults: { unit: panel.unit, min: 0 }, overrides: [] },
      targets: panel.series.map(([legendFormat, expr], at) => ({
        refId: String.fromCharCode(65 + at),
        datasource: DATASOURCE,
        expr,
        legendFormat,
      })),
    };
  });
}

function variable(name: string, metric: string): Record<string, unknown> {
  return {
    name,
    type: 'query',
    datasource: DATASOURCE,
    query: { query: `label_values(${metric}, ${name})`, refId: name },
    multi: true,
    includeAll: true,
    current: { text: 'All', value: '$__all' },
    refresh: 2,
  };
}

/** The dashboard, as Grafana imports it. */
export function dashboard(): Record<string, unknown> {
  return {
    title: 'nydusd',
    uid: 'nydusd',
    tags: ['nydus'],
    schemaVersion: 39,
    editable: true,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    templating: {
      list: [
        { name: 'datasource', type: 'datasource', query: 'prometheus' },
        variable('instance', 'nydusd_info'),
        variable('mountpoint', 'nydusd_fs_read_bytes_total'),
      ],
    },
    panels: panels(),
  };
}

if (import.meta.main) {
  const file = fileURLToPath(new URL('../docs/grafana-dashboard.json', import.meta.url));
  const text = `${JSON.stringify(dashboard(), undefined, 2)}\n`;
  if (!process.argv.includes('--check')) writeFileSync(file, text);
  else if (readFileSync(file, 'utf8') !== text) {
    console.error('docs/grafana-dashboard.json is stale: run node tools/grafana.ts');
    process.exitCode = 1;
  }
}
