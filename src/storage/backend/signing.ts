// How requests to object stores are signed. Sources: blob-and-cache.md 21.8 (OSS signature version 1) and 21.9 (AWS Signature
// Version 4); Alibaba Cloud "Include a signature in the Authorization header"; AWS "Signature Calculations for the
// Authorization Header".

/** Loaded when it is needed: a daemon that serves what is local never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** Names who signs. */
export interface AccessKey {
  id: string;
  secret: string;
}

/** SHA-256 of no bytes: requests that read have no body. */
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/** Percent-encode one path as signatures want it: all but unreserved characters and slashes. Source: RFC 3986. */
export function encodePath(path: string): string {
  const encode = (part: string): string =>
    encodeURIComponent(part).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
  return path.split('/').map(encode).join('/');
}

/**
 * Headers that sign a request to OSS without a body.
 *
 * @param resource `/{bucket}/{object}`, not encoded, and the sub-resources of the query
 * @param nowMs    milliseconds since 1970
 */
export function signOss(
  method: string,
  resource: string,
  key: AccessKey,
  nowMs: number,
): { date: string; authorization: string } {
  const date = new Date(nowMs).toUTCString();
  // empty: MD5 of the body, its type, and `x-oss-*` headers
  const text = `${method}\n\n\n${date}\n${resource}`;
  const signature = crypto().createHmac('sha1', key.secret).update(text).digest('base64');
  return { date, authorization: `OSS ${key.id}:${signature}` };
}

/** What an AWS signature covers. */
export interface AwsRequest {
  method: string;
  /** as sent; the parameters of its query sorted by name */
  url: URL;
  /** `Host` header */
  host: string;
  region: string;
  /** headers that are signed too */
  headers: Record<string, string>;
  /** SHA-256 of the body, hex; absent: there is none */
  bodySha256?: string | undefined;
}

/** Headers that sign a request to S3, those of the request included. @param nowMs milliseconds since 1970 */
export function signS3(request: AwsRequest, key: AccessKey, nowMs: number): Record<string, string> {
  const stamp = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, '');
  const scope = `${stamp.slice(0, 8)}/${request.region}/s3/aws4_request`;
  const payload = request.bodySha256 ?? EMPTY_SHA256;
  const headers: Record<string, string> = {
    ...request.headers,
    host: request.host,
    'x-amz-content-sha256': payload,
    'x-amz-date': stamp,
  };
  const names = Object.keys(headers).toSorted();
  const canonical = [
    request.method,
    request.url.pathname,
    request.url.search.slice(1),
    ...names.map((name) => `${name}:${headers[name] ?? ''}`),
    '',
    names.join(';'),
    payload,
  ].join('\n');
  const hash = crypto().createHash('sha256').update(canonical).digest('hex');
  const hmac = (secret: string | Buffer, text: string): Buffer =>
    crypto().createHmac('sha256', secret).update(text).digest();
  let secret: string | Buffer = `AWS4${key.secret}`;
  for (const part of scope.split('/')) secret = hmac(secret, part);
  const signature = hmac(secret, `AWS4-HMAC-SHA256\n${stamp}\n${scope}\n${hash}`).toString('hex');
  const authorization = `AWS4-HMAC-SHA256 Credential=${key.id}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`;
  return { ...headers, authorization };
}
