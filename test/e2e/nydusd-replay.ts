// Golden API transcripts: their lines, raw requests sent to a socket, replies taken apart, varying values masked.
// Source: golden/README.md section 5.
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';

/** One exchange of a transcript. */
export interface Exchange {
  n: number;
  state: string;
  request: string;
  statusLine: string;
  headers: string[];
  body: string;
  note: string;
}

/** The exchanges of a transcript; lines without a reply describe states and are left out. */
export function readTranscript(path: string): Exchange[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => typeof line['request'] === 'string' && typeof line['status_line'] === 'string')
    .map((line) => ({
      n: Number(line['n']),
      state: String(line['state']),
      request: String(line['request']),
      statusLine: String(line['status_line']),
      headers: line['headers'] as string[],
      body: String(line['body']),
      note: typeof line['note'] === 'string' ? line['note'] : '',
    }));
}

export type Reply = Pick<Exchange, 'statusLine' | 'headers' | 'body'>;

function takeReply(text: string): Reply | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const [statusLine = '', ...headers] = text.slice(0, end).split('\r\n');
  const length = Number(/^Content-Length: (\d+)$/m.exec(headers.join('\n'))?.[1] ?? 0);
  const rest = Buffer.from(text.slice(end + 4));
  if (rest.length < length) return undefined;
  return { statusLine, headers, body: rest.subarray(0, length).toString() };
}

/** Send the bytes of a request and wait for the first whole reply. */
export function send(socketPath: string, request: string, timeoutMs = 10_000): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let text = '';
    const timer = setTimeout(() => {
      socket.destroy();
      reject(
        new Error(
          `no reply in ${timeoutMs} ms to ${JSON.stringify(request.slice(0, 80))}: ${JSON.stringify(text)}`,
        ),
      );
    }, timeoutMs);
    socket.on('connect', () => socket.write(Buffer.from(request, 'latin1')));
    socket.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.on('data', (data) => {
      text += data.toString();
      const reply = takeReply(text);
      if (reply === undefined) return;
      clearTimeout(timer);
      socket.destroy();
      resolve(reply);
    });
  });
}

/** A request with another body, its length adjusted. */
export function withBody(request: string, change: (body: string) => string): string {
  const end = request.indexOf('\r\n\r\n') + 4;
  const body = change(request.slice(end));
  return (
    request.slice(0, end).replace(/Content-Length: \d+/, `Content-Length: ${Buffer.byteLength(body)}`) + body
  );
}

/** Counters that upstream does not have. */
const ADDED = /,"(?:degraded_blobs|write_errors|dedup_\w+|evicted_\w+|outage\w*)":[\w.]+/g;

/** Values that differ from run to run and machine to machine become fixed texts. */
export function maskBody(body: string): string {
  return body
    .replace(ADDED, '')
    .replace(/"version":\{"package_ver.*?\}/, '"version":{}')
    .replace(/"mounted_time":"[^"]*"/g, '"mounted_time":""')
    .replace(/"(\w*(?:latency|time|dist)\w*)":(?:\d+|\[[\d,[\]]*\])/g, '"$1":0');
}

/** Headers without the length when the body was masked. */
export function maskHeaders(headers: readonly string[], masked: boolean): string[] {
  return masked ? headers.map((header) => header.replace(/^(Content-Length): .*/, '$1')) : [...headers];
}
