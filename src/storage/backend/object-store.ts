// Blobs as objects of a bucket: Alibaba Cloud OSS, and S3 with everything that speaks its protocol.
// Source: blob-and-cache.md 21.8, 21.9.
import type { Logger } from '../../base/log.ts';
import { RegistryError } from '../../base/errors.ts';
import type { BackendSetting } from './backend.ts';
import { HttpBackend, type Attempt, type HttpLine, type HttpOrigin, type HttpSeams } from './http-backend.ts';
import { HTTP_DEFAULTS, type HttpConfig } from './http-config.ts';
import type { Asked } from './http-range.ts';
import { encodePath, signOss, signS3, type AccessKey } from './signing.ts';

/** The `backend.oss` section. */
export interface OssConfig extends HttpConfig {
  scheme: string;
  endpoint: string;
  bucket_name: string;
  object_prefix: string;
  access_key_id: string;
  access_key_secret: string;
}

/** The `backend.s3` section. */
export interface S3Config extends OssConfig {
  region: string;
  /** where the bucket stands in the URL: in the path, or in front of the host */
  addressing_style: 'path' | 'virtual';
}

const KEYS = { object_prefix: '', access_key_id: '', access_key_secret: '' };

/** Types and values were checked by the parser (config-parse-backend.ts); these fill in what is absent. */
export function readOssConfig(section: Record<string, unknown>): OssConfig {
  const empty = { ...HTTP_DEFAULTS, ...KEYS, scheme: 'https', endpoint: '', bucket_name: '' };
  return { ...empty, ...(section as Partial<OssConfig>) };
}

export function readS3Config(section: Record<string, unknown>): S3Config {
  const config = { region: '', addressing_style: 'path' as const, ...readOssConfig(section) };
  return { ...config, ...(section as Partial<S3Config>), endpoint: config.endpoint || 's3.amazonaws.com' };
}

/** Where an object is, and the headers that authorise a request for it. */
type Sign = (
  method: 'GET' | 'HEAD',
  object: string,
  headers: Record<string, string>,
  key: AccessKey,
  time: number,
) => { url: URL; headers: Record<string, string> };

/** Objects by signed requests. `registry_auth` of the API, base64 of `id:secret`, replaces the key. */
class SignedOrigin implements HttpOrigin {
  readonly #prefix: string;
  readonly #line: HttpLine;
  readonly #sign: Sign;
  #key: AccessKey;

  constructor(config: OssConfig, line: HttpLine, sign: Sign) {
    this.#prefix = config.object_prefix;
    this.#key = { id: config.access_key_id, secret: config.access_key_secret };
    this.#line = line;
    this.#sign = sign;
  }

  async ask(
    method: 'GET' | 'HEAD',
    blobId: string,
    headers: Record<string, string>,
    attempt: Attempt,
  ): Promise<Asked> {
    const { clock } = this.#line;
    const signed = this.#sign(method, this.#prefix + blobId, headers, this.#key, clock());
    const { url } = signed;
    return { url, answer: await this.#line.send(method, url, signed.headers, attempt, true) };
  }

  configure(setting: BackendSetting, value: string): void {
    if (setting !== 'registry_auth') return;
    const [, id, secret] = /^([^:]*):(.*)$/s.exec(Buffer.from(value, 'base64').toString()) ?? [];
    if (id === undefined || secret === undefined)
      this.#line.logger.warn('registry_auth is not base64 of access_key_id:access_key_secret, it is ignored');
    else this.#key = { id, secret };
  }

  hint(error: unknown): string | undefined {
    return error instanceof RegistryError && error.status === 403
      ? 'check access_key_id, access_key_secret, the bucket, and the clock of this machine: signatures end after 15 minutes'
      : undefined;
  }
}

function ossSign({ scheme, bucket_name: bucket, endpoint }: OssConfig): Sign {
  return (method, object, headers, key, time) => ({
    url: new URL(`${scheme}://${bucket}.${endpoint}/${encodePath(object)}`),
    headers: { ...headers, ...signOss(method, `/${bucket}/${object}`, key, time) },
  });
}

function s3Base({ scheme, bucket_name: bucket, endpoint, addressing_style: style }: S3Config): string {
  return style === 'virtual' ? `${scheme}://${bucket}.${endpoint}` : `${scheme}://${endpoint}/${bucket}`;
}

function s3Sign(config: S3Config): Sign {
  const base = s3Base(config);
  return (method, object, headers, key, time) => {
    const url = new URL(`${base}/${encodePath(object)}`);
    // the host without its port, as upstream sends and signs it
    const request = { method, url, host: url.hostname, region: config.region, headers };
    return { url, headers: signS3(request, key, time) };
  };
}

export class OssBackend extends HttpBackend {
  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(config: OssConfig, logger: Logger, seams: HttpSeams = {}) {
    super({
      type: 'oss',
      name: `oss ${config.bucket_name}.${config.endpoint}`,
      config,
      logger,
      seams,
      fallbackFrom: 400,
      host: `${config.scheme}://${config.bucket_name}.${config.endpoint}`,
      origin: (line) => new SignedOrigin(config, line, ossSign(config)),
    });
  }
}

export class S3Backend extends HttpBackend {
  /** @throws UsageError EINVAL  a CA file cannot be used */
  constructor(config: S3Config, logger: Logger, seams: HttpSeams = {}) {
    super({
      // upstream's metrics call it so (golden/backend/s3.json)
      type: 'oss',
      name: `s3 ${config.endpoint}/${config.bucket_name}`,
      config,
      logger,
      seams,
      fallbackFrom: 400,
      host: URL.parse(s3Base(config))?.origin ?? config.endpoint,
      origin: (line) => new SignedOrigin(config, line, s3Sign(config)),
    });
  }
}
