// Requests of upstream nydusd, recorded per scenario, against ours: same requests in the same order by meaning.
// Source: golden/backend/*.json (golden/README.md section 9).
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { sampleData } from '../../../test/conformance/make-image.ts';
import { goldenPath, skipUnlessGolden } from '../../../test/support/golden.ts';
import { silentLogger } from '../../base/log.ts';
import { parseConfig } from '../config-parse.ts';
import { openBackend } from './backend.ts';

interface Exchange {
  server: string;
  request: string;
  headers: [string, string][];
  request_body?: string;
  status: number;
  reply_headers: [string, string][];
  reply_bytes: number;
}

interface Transcript {
  config: object;
  metrics: { backend_type: string };
  requests: Exchange[];
}

const BLOB_ID = 'c'.repeat(64);
/** Sizes of the recorded image: chunk data, then compression information. */
const BLOB = sampleData(197_176, 9);
const CHUNK_END = 192_020;

/** Headers that mean something; the rest is the HTTP library's. */
const TELLING = /^(range|host|authorization|user-agent|content-type|x-amz-content-sha256|x-dragonfly-.*)$/;

/** Times and what depends on them. */
function steady(value: string): string {
  return value
    .replace(/^(OSS AK:).*$/, '$1SIGNATURE')
    .replace(/Credential=AK\/\d{8}/, 'Credential=AK/DAY')
    .replace(/Signature=[0-9a-f]{64}/, 'Signature=HEX');
}

const SERVERS = ['origin', 'second', 'proxy'];

function normal(exchange: Pick<Exchange, 'server' | 'request' | 'headers' | 'request_body'>): unknown {
  const form = (text: string): string => [...new URLSearchParams(text)].map(String).toSorted().join('&');
  const [method, target = ''] = exchange.request.split(' ');
  const [path, query = ''] = target.split('?');
  return {
    to: `${exchange.server} ${method} ${path}?${form(query)}`,
    headers: exchange.headers
      .map(([name, value]) => [name.toLowerCase(), steady(value)])
      .filter(([name = '']) => TELLING.test(name))
      .toSorted(([a = ''], [b = '']) => (a < b ? -1 : a > b ? 1 : 0)),
    form: form(exchange.request_body ?? ''),
  };
}

async function body(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const piece of request as AsyncIterable<Buffer>) text += piece.toString();
  return text;
}

/** Play the recorded answers; @returns what was asked, in the recording's words */
async function replay(
  t: TestContext,
  transcript: Transcript,
): Promise<{ asked: Exchange[]; fill: (text: string) => string }> {
  const answers = transcript.requests.filter(({ request }) => !request.includes('/ping'));
  const asked: Exchange[] = [];
  const ports: number[] = [];
  const fill = (text: string): string =>
    text.replaceAll('$BLOB_ID', BLOB_ID).replace(/PORT([123])/g, (_, n) => String(ports[Number(n) - 1]));
  const blank = (text: string): string =>
    ports.reduce(
      (all, port, i) => all.replaceAll(`:${port}`, `:PORT${i + 1}`),
      text.replaceAll(BLOB_ID, '$BLOB_ID'),
    );
  const play = async (server: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const text = await body(request);
    if (request.url === '/ping') return void response.end('pong');
    const answer = answers[asked.length];
    const headers = Object.entries(request.headers).map(([name, value]): [string, string] => [
      name,
      blank(String(value)),
    ]);
    const line = blank(`${request.method} ${request.url} HTTP/1.1`);
    asked.push({
      server,
      request: line,
      headers,
      request_body: text,
      status: 0,
      reply_headers: [],
      reply_bytes: 0,
    });
    if (answer === undefined) return void response.writeHead(500).end();
    for (const [name, value] of answer.reply_headers) response.setHeader(name, fill(value));
    const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    let reply = Buffer.alloc(answer.reply_bytes, 0x78);
    if (answer.status === 206) reply = Buffer.from(BLOB.subarray(start, start + answer.reply_bytes));
    if (answer.request.includes('/token')) reply = Buffer.from('{"token":"TOK","expires_in":300}');
    response.writeHead(answer.status).end(reply);
  };
  for (const name of SERVERS) {
    const server = createServer((request, response) => void play(name, request, response));
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    t.after(() => {
      server.closeAllConnections();
      server.close();
    });
    ports.push((server.address() as AddressInfo).port);
  }
  return { asked, fill };
}

async function run(t: TestContext, name: string, want: 'all' | number): Promise<void> {
  const path = goldenPath('backend', `${name}.json`) ?? '';
  const transcript = JSON.parse(readFileSync(path, 'utf8')) as Transcript;
  const { asked, fill } = await replay(t, transcript);
  const { config } = parseConfig(fill(JSON.stringify(transcript.config)).replaceAll('$WORK_DIR', '/tmp'));
  assert.ok(config.backend !== null);
  const backend = openBackend(config.backend, silentLogger);
  t.after(() => backend.close());
  assert.equal(backend.type, transcript.metrics.backend_type);
  const reader = await backend.open(BLOB_ID);
  const reading = async (): Promise<void> => {
    for (const [start, end] of [
      [CHUNK_END, BLOB.length],
      [0, CHUNK_END],
    ] as const) {
      assert.ok(Buffer.from(await reader.read(start, end - start)).equals(BLOB.subarray(start, end)));
    }
  };
  const recorded = transcript.requests.filter(({ request }) => !request.includes('/ping'));
  if (want === 'all') await reading();
  else await assert.rejects(reading(), { code: 'ERR_NYDUS_BACKEND' });
  const expected = want === 'all' ? recorded : recorded.slice(0, want);
  assert.deepEqual(asked.map(normal), expected.map(normal));
}

/** Scenarios, and how many of the recorded requests are ours too when the read fails. */
const SCENARIOS: Record<string, 'all' | number> = {
  oss: 'all',
  s3: 'all',
  'http-proxy': 'all',
  'registry-plain': 'all',
  'registry-basic': 'all',
  'registry-bearer-anonymous': 'all',
  'registry-bearer-get': 'all',
  'registry-bearer-post': 'all',
  'registry-token-configured': 'all',
  'registry-redirect-307': 'all',
  'registry-redirect-302-host-override': 'all',
  'registry-proxy': 'all',
  'registry-proxy-500-fallback': 'all',
  'registry-500-then-ok': 'all',
  // one read; upstream repeats it 20 times
  'registry-500-always': 4,
  'registry-proxy-500-no-fallback': 4,
  'registry-200-ignores-range': 4,
  // we do not repeat what cannot change
  'registry-403': 1,
  'registry-404': 1,
  // upstream sends an empty password, we none
  'registry-basic-no-credentials': 1,
};

for (const [name, want] of Object.entries(SCENARIOS)) {
  const skip = skipUnlessGolden('backend', `${name}.json`);
  test(`openBackend: asks as upstream does, ${name}`, { skip }, (t) => run(t, name, want));
}
