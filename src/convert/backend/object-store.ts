// Blobs as objects of a bucket, written: one request for small ones, pieces for large ones. Secrets are only in headers.
// Source: blob-and-cache.md 21.8, 21.9; Amazon S3 API and Alibaba Cloud OSS API: PutObject, HeadObject,
// CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { IntegrityError, RegistryError, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { Crc64 } from '../../codec/crc64.ts';
import { HttpClient, type HttpAnswer } from '../../registry/http.ts';
import { redactUrl } from '../../registry/redact.ts';
import { backoff, parseRetryAfter, pause } from '../../registry/retry.ts';
import { readOssConfig, readS3Config, type S3Config } from '../../storage/backend/object-store.ts';
import { encodePath, signOss, signS3 } from '../../storage/backend/signing.ts';
import type { BlobStore } from './blob-store.ts';
import { exhausted } from '../exhausted.ts';

/** Bytes of one request; pieces of a large object are larger where their number would pass what stores take. */
const PIECE_SIZE = 32 * 1024 * 1024;
const MAX_PIECES = 10_000;
/** Answers with a body are a few hundred bytes of XML. */
const MAX_ANSWER = 256 * 1024;
const MAX_WAIT_MS = 30_000;

export interface ObjectStoreOptions {
  type: 'oss' | 's3';
  config: Readonly<Record<string, unknown>>;
  /** times that a failed request is tried again */
  retries: number;
  /** wait before the first of them; it doubles */
  retryDelayMs: number;
  logger: Logger;
  pieceSize?: number;
  /** the proxy of a URL, undefined = none */
  proxyFor?: (url: URL) => string | undefined;
}

type Query = readonly (readonly [name: string, value: string])[];

function queryText(query: Query, bare: boolean): string {
  const parts = query.map(([name, value]) =>
    value === '' && bare ? name : `${encodeURIComponent(name)}=${encodeURIComponent(value)}`,
  );
  return parts.length === 0 ? '' : `?${parts.toSorted().join('&')}`;
}

/** Text of an XML element; the documents are flat and made by machines. */
function element(xml: string, name: string): string | undefined {
  return new RegExp(`<${name}>([^<]{1,4096})</${name}>`).exec(xml)?.[1];
}

class ObjectStore implements BlobStore {
  readonly name: string;
  readonly #options: ObjectStoreOptions;
  readonly #config: S3Config;
  readonly #http: HttpClient;

  constructor(options: ObjectStoreOptions, config: S3Config) {
    this.#options = options;
    this.#config = config;
    this.name = `${options.type}://${config.bucket_name}/${config.object_prefix}`;
    this.#http = new HttpClient({ skipVerify: config.skip_verify, headersTimeoutMs: 120_000 });
  }

  /** URL and signed headers of a request. */
  #signed(
    method: string,
    id: string,
    query: Query,
    bodySha256: string | undefined,
  ): { url: URL; headers: Record<string, string> } {
    const { scheme, endpoint, bucket_name: bucket, object_prefix: prefix, region } = this.#config;
    const key = { id: this.#config.access_key_id, secret: this.#config.access_key_secret };
    const object = encodePath(prefix + id);
    if (this.#options.type === 'oss') {
      const sub = queryText(query, true);
      const url = new URL(`${scheme}://${bucket}.${endpoint}/${object}${sub}`);
      return {
        url,
        headers: signOss(method, `/${bucket}/${prefix}${id}${decodeURIComponent(sub)}`, key, Date.now()),
      };
    }
    const virtual = this.#config.addressing_style === 'virtual';
    const base = virtual ? `${scheme}://${bucket}.${endpoint}` : `${scheme}://${endpoint}/${bucket}`;
    const url = new URL(`${base}/${object}${queryText(query, false)}`);
    // the host without its port, as nydusd sends and signs it
    const request = { method, url, host: url.hostname, region, headers: {}, bodySha256 };
    return { url, headers: signS3(request, key, Date.now()) };
  }

  /** Send until it succeeds, as often as it may. @param accept statuses beside 200 to 299 that are an answer */
  async #send(
    method: string,
    id: string,
    signal: AbortSignal,
    options: { query?: Query; body?: Buffer; accept?: readonly number[] } = {},
  ): Promise<{ answer: HttpAnswer; text: string }> {
    const { query = [], body, accept = [] } = options;
    const sha256 = body === undefined ? undefined : createHash('sha256').update(body).digest('hex');
    for (let failed = 1; ; failed++) {
      const { url, headers } = this.#signed(method, id, query, sha256);
      try {
        const length: Record<string, string> =
          method === 'GET' || method === 'HEAD' ? {} : { 'content-length': String(body?.length ?? 0) };
        const answer = await this.#http.send({
          method,
          url,
          headers: { ...headers, ...length },
          body,
          signal,
          proxy: this.#options.proxyFor?.(url),
        });
        const text = (await answer.bytes(MAX_ANSWER)).toString();
        const { status } = answer;
        // a store may begin its answer with 200 and find out later
        const code = element(text, 'Code');
        if ((status >= 200 && status <= 299 && !text.includes('<Error>')) || accept.includes(status))
          return { answer, text };
        const problem = `${status} ${code ?? ''} ${element(text, 'Message') ?? ''}`.trim();
        throw new RegistryError(
          { method, url: redactUrl(url), status, codes: code === undefined ? [] : [code] },
          problem,
          {
            retryable: status >= 500 || status === 429 || status === 408 || status === 200,
            retryAfterMs: parseRetryAfter(answer.header('retry-after'), Date.now()),
            ...(status === 403
              ? { hint: 'check the access key, the bucket and the clock of this machine' }
              : {}),
          },
        );
      } catch (error) {
        signal.throwIfAborted();
        const { retries, retryDelayMs, logger } = this.#options;
        if (!(error instanceof RegistryError) || !error.retryable) throw error;
        if (failed > retries) throw exhausted(error);
        const wait = error.retryAfterMs ?? backoff(failed, retryDelayMs, MAX_WAIT_MS, Math.random());
        logger.warn(`${error.message}; retry ${failed} of ${retries} in ${Math.round(wait)} ms`);
        await pause(wait, signal);
      }
    }
  }

  async has(id: string, size: number, signal: AbortSignal): Promise<boolean> {
    const { answer } = await this.#send('HEAD', id, signal, { accept: [404] });
    return answer.status !== 404 && answer.contentLength === size;
  }

  async put(id: string, path: string, size: number, signal: AbortSignal): Promise<void> {
    const least = this.#options.pieceSize ?? PIECE_SIZE;
    const piece = Math.max(least, Math.ceil(size / MAX_PIECES));
    const file = await open(path, 'r');
    const crc = new Crc64();
    const read = async (start: number): Promise<Buffer> => {
      const bytes = Buffer.allocUnsafe(Math.min(piece, size - start));
      for (let filled = 0; filled < bytes.length;) {
        const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, start + filled);
        if (bytesRead === 0) throw new IntegrityError(`blob ${id}: its file ends before ${size} bytes`);
        filled += bytesRead;
      }
      if (this.#options.type === 'oss') crc.update(bytes);
      return bytes;
    };
    try {
      if (size <= piece) {
        const { answer } = await this.#send('PUT', id, signal, { body: await read(0) });
        this.#checkCrc(answer, crc, id);
      } else await this.#putPieces(id, size, piece, read, crc, signal);
    } finally {
      await file.close();
    }
  }

  async #putPieces(
    id: string,
    size: number,
    piece: number,
    read: (start: number) => Promise<Buffer>,
    crc: Crc64,
    signal: AbortSignal,
  ): Promise<void> {
    const begun = await this.#send('POST', id, signal, { query: [['uploads', '']] });
    const uploadId = element(begun.text, 'UploadId');
    if (uploadId === undefined) throw this.#odd('POST', id, 'the answer has no UploadId');
    try {
      let parts = '';
      for (let start = 0, number = 1; start < size; start += piece, number++) {
        const query: Query = [
          ['partNumber', String(number)],
          ['uploadId', uploadId],
        ];
        const { answer } = await this.#send('PUT', id, signal, { query, body: await read(start) });
        const tag = answer.header('etag');
        if (tag === '') throw this.#odd('PUT', id, 'the answer has no ETag');
        parts += `<Part><PartNumber>${number}</PartNumber><ETag>${tag.replaceAll('"', '&quot;')}</ETag></Part>`;
      }
      const { answer } = await this.#send('POST', id, signal, {
        query: [['uploadId', uploadId]],
        body: Buffer.from(`<CompleteMultipartUpload>${parts}</CompleteMultipartUpload>`),
      });
      this.#checkCrc(answer, crc, id);
    } catch (error) {
      // pieces that nobody completes are paid for
      await this.#send('DELETE', id, AbortSignal.timeout(10_000), { query: [['uploadId', uploadId]] }).catch(
        () => {},
      );
      throw error;
    }
  }

  #odd(method: string, id: string, problem: string): RegistryError {
    return new RegistryError({ method, url: `${this.name}${id}`, status: 200, codes: [] }, problem);
  }

  #checkCrc(answer: HttpAnswer, crc: Crc64, id: string): void {
    const said = answer.header('x-oss-hash-crc64ecma');
    if (this.#options.type === 'oss' && said !== '' && said !== String(crc.value()))
      throw new IntegrityError(`blob ${id}: the store has CRC64 ${said}, ${crc.value()} was sent`);
  }

  close(): Promise<void> {
    return this.#http.close();
  }
}

/** Open a bucket. @throws UsageError exit 1  a key is missing */
export function objectStore(options: ObjectStoreOptions): BlobStore {
  const section = { ...options.config };
  const config =
    options.type === 's3' ? readS3Config(section) : { ...readS3Config(section), ...readOssConfig(section) };
  const needed = [
    'bucket_name',
    'access_key_id',
    'access_key_secret',
    options.type === 's3' ? 'region' : 'endpoint',
  ] as const;
  for (const key of needed)
    if (config[key] === '')
      throw new UsageError(`the configuration of backend ${options.type} has no ${key}`, { exitCode: 1 });
  return new ObjectStore(options, config);
}
