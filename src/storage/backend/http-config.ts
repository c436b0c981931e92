// Settings that all HTTP backends share, as the parser hands them over. Source: blob-and-cache.md 21.1, 21.3, 21.5.
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
export interface HttpConfig {
  skip_verify: boolean;
  ca_cert_files: string[];
  timeout: number;
  connect_timeout: number;
  retry_limit: number;
  proxy: ProxyConfig | null;
  mirrors: MirrorConfig[];
  /** how long a read waits for a backend that is down; 0 = it fails after its retries */
  outage_wait: number;
}

export const HTTP_DEFAULTS: HttpConfig = {
  skip_verify: false,
  ca_cert_files: [],
  timeout: 5,
  connect_timeout: 5,
  retry_limit: 0,
  proxy: null,
  mirrors: [],
  outage_wait: 0,
};

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
