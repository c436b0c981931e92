// Verifies what clients of object stores sign, from the request as it arrived. Written from the public documents alone, so that
// our signer is judged by something else. Sources: AWS "Signature Version 4 signing process"; Alibaba Cloud OSS
// "Include a V1 signature in the Authorization header".
import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

/** Secrets by access key id. */
export type Keys = Record<string, string>;

function header(request: IncomingMessage, name: string): string {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(',') : (value ?? '').trim().replace(/ +/g, ' ');
}

/** @returns true when the request carries a right AWS signature of service s3 that is at most 15 minutes old */
export function verifyAws(request: IncomingMessage, keys: Keys, region: string): boolean {
  const pattern =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})$/;
  const [, id = '', day = '', where = '', list = '', given = ''] =
    pattern.exec(header(request, 'authorization')) ?? [];
  const secret = keys[id];
  const time = header(request, 'x-amz-date');
  if (secret === undefined || where !== region || !time.startsWith(day) || day === '') return false;
  const iso = time.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z');
  if (!(Math.abs(Date.parse(iso) - Date.now()) < 900_000)) return false;
  const names = list.split(';');
  // what must be signed: the host and every x-amz header
  const mandatory = Object.keys(request.headers).filter(
    (name) => name === 'host' || name.startsWith('x-amz-'),
  );
  if (!mandatory.every((name) => names.includes(name))) return false;
  const url = new URL(request.url ?? '/', 'http://any');
  const query = [...url.searchParams]
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .toSorted()
    .join('&');
  let canonical = `${request.method}\n${url.pathname}\n${query}\n`;
  for (const name of names) canonical += `${name}:${header(request, name)}\n`;
  canonical += `\n${list}\n${header(request, 'x-amz-content-sha256')}`;
  const digest = createHash('sha256').update(canonical).digest('hex');
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${day}/${region}/s3/aws4_request\n${digest}`;
  const mac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();
  const signing = mac(mac(mac(mac('AWS4' + secret, day), region), 's3'), 'aws4_request');
  return mac(signing, toSign).toString('hex') === given;
}

/** @returns true when the request carries a right OSS signature that is at most 15 minutes old; virtual host style */
export function verifyOss(request: IncomingMessage, keys: Keys, bucket: string): boolean {
  const [, id = '', given = ''] = /^OSS ([^:]+):(.+)$/.exec(header(request, 'authorization')) ?? [];
  const secret = keys[id];
  const date = header(request, 'date');
  if (secret === undefined || !(Math.abs(Date.parse(date) - Date.now()) < 900_000)) return false;
  const url = new URL(request.url ?? '/', 'http://any');
  const object = decodeURIComponent(url.pathname);
  // sub-resources of multipart uploads are part of what is signed
  const sub = [...url.searchParams]
    .filter(([name]) => ['uploads', 'uploadId', 'partNumber'].includes(name))
    .map(([name, value]) => (value === '' ? name : `${name}=${value}`))
    .toSorted()
    .join('&');
  const lines = [request.method, header(request, 'content-md5'), header(request, 'content-type'), date];
  const own = Object.keys(request.headers).filter((name) => name.startsWith('x-oss-'));
  for (const name of own.toSorted()) lines.push(`${name}:${header(request, name)}`);
  lines.push(`/${bucket}${object}${sub === '' ? '' : `?${sub}`}`);
  return createHmac('sha1', secret).update(lines.join('\n')).digest('base64') === given;
}
