// The `backend.registry` section as the parser hands it over. Source: blob-and-cache.md 21.10.
import { HTTP_DEFAULTS, type HttpConfig } from './http-config.ts';

export interface RegistryConfig extends HttpConfig {
  scheme: string;
  host: string;
  repo: string;
  /** base64 of user:password */
  auth: string | null;
  registry_token: string | null;
  blob_url_scheme: string;
  blob_redirected_host: string;
}

const DEFAULTS: RegistryConfig = {
  ...HTTP_DEFAULTS,
  scheme: 'https',
  host: '',
  repo: '',
  auth: null,
  registry_token: null,
  blob_url_scheme: '',
  blob_redirected_host: '',
};

/** Types and values were checked by the parser (config-parse-backend.ts); this fills in what is absent. */
export function readRegistryConfig(section: Record<string, unknown>): RegistryConfig {
  return { ...DEFAULTS, ...(section as Partial<RegistryConfig>) };
}
