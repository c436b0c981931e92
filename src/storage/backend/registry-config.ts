// The `backend.registry` section as the parser hands it over. Source: blob-and-cache.md 21.1, 21.3, 21.5, 21.10.
import { readFileSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { MAX_CONFIG_SIZE } from '../../base/limits.ts';
import type { ProxyConfig } from '../config.ts';

/** One row of the mirror table; durations in seconds. */
export interface MirrorConfig {
  /** `scheme://host[:port]` */
  host: string;
  /** '' = `{host}/v2` */
  ping_url: string;
  headers: Record<string, string>;
  health_check_interval: number;
  failure_limit: number;
  health_check_pause_elapsed: number;
}

/** Durations in seconds, 0 = no limit. */
export interface RegistryConfig {
  scheme: string;
  host: string;
  repo: string;
  /** base64 of user:password */
  auth: string | null;
  registry_token: string | null;
  blob_url_scheme: string;
  blob_redirected_host: string;
  skip_verify: boolean;
  ca_cert_files: string[];
  timeout: number;
  connect_timeout: number;
  retry_limit: number;
  proxy: ProxyConfig | null;
  mirrors: MirrorConfig[];
}

const DEFAULTS: RegistryConfig = {
  scheme: 'https',
  host: '',
  repo: '',
  auth: null,
  registry_token: null,
  blob_url_scheme: '',
  blob_redirected_host: '',
  skip_verify: false,
  ca_cert_files: [],
  timeout: 5,
  connect_timeout: 5,
  retry_limit: 0,
  proxy: null,
  mirrors: [],
};

/** Types and values were checked by the parser (config-parse-backend.ts); this fills in what is absent. */
export function readRegistryConfig(section: Record<string, unknown>): RegistryConfig {
  return { ...DEFAULTS, ...(section as Partial<RegistryConfig>) };
}

/** PEM texts of CA files. @throws UsageError EINVAL  a file cannot be read, is too large or has no certificate */
export function readCaFiles(paths: readonly string[]): string[] {
  return paths.map((path) => {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw new UsageError(`cannot read the CA certificate ${path}: ${messageOf(error)}`, { cause: error });
    }
    if (text.length > MAX_CONFIG_SIZE || !text.includes('-----BEGIN CERTIFICATE-----')) {
      throw new UsageError(`${path} has no PEM certificate`, { hint: 'ca_cert_files names PEM files' });
    }
    return text;
  });
}
