// Is the backend of a configuration there, and does it let us in? One request for a blob that there is not: who answers "no such
// blob" was reached, trusted, and took the credentials. Nothing of those is ever shown.
import { accessSync, constants, statSync } from 'node:fs';
import { messageOf, RegistryError } from '../../base/errors.ts';
import { openBackend, type Backend } from '../../storage/backend/backend.ts';
import type { BackendConfig, ConfigV2, LocalfsConfig } from '../../storage/config.ts';
import { chainOf, hintOf, type Check, type Outcome } from './finding.ts';
import { Notes } from './notes.ts';
import { within } from './run-checks.ts';

/** A blob id that no data has. */
const NO_BLOB = '0'.repeat(64);
/** Attempts, their time-outs and the token server's. */
const LIMIT_MS = 60_000;

type Section = Record<string, unknown>;

function word(section: Section, key: string): string {
  const value = section[key];
  return typeof value === 'string' ? value : '';
}

/** Where it is, for people: never with credentials. */
export function placeOf(type: string, section: Section): string {
  const text = (key: string): string => word(section, key);
  if (type === 'registry') return `${text('host')}/${text('repo')}`;
  if (type !== 'http-proxy') return `${text('endpoint')} ${text('bucket_name')}`.trim();
  const address = text('addr');
  return address.startsWith('/') ? address : (URL.parse(address)?.host ?? 'the server');
}

function access(section: Section): string {
  if (word(section, 'registry_token') !== '') return 'with a token';
  const given = word(section, 'auth') !== '' || word(section, 'access_key_id') !== '';
  return given ? 'with credentials' : 'without credentials';
}

function security(type: string, section: Section): string {
  const scheme =
    type === 'http-proxy' ? word(section, 'addr').split(':')[0] : word(section, 'scheme') || 'https';
  if (scheme !== 'https') return 'not encrypted';
  return section['skip_verify'] === true
    ? 'over TLS, certificate not verified'
    : 'over TLS, certificate trusted';
}

function answered(error: unknown): RegistryError | undefined {
  return chainOf(error).find((at): at is RegistryError => at instanceof RegistryError && at.status > 0);
}

const REFUSED = new Set([401, 403]);

/** How the answer to a request for a blob that there is not is judged. */
export function judgeAnswer(type: string, section: Section, error: unknown): Outcome {
  const place = placeOf(type, section);
  const how = `${security(type, section)}, ${access(section)}`;
  const status = error === undefined ? 200 : (answered(error)?.status ?? 0);
  if (status === 404 || status === 200) return { status: 'ok', detail: `${place} answers, ${how}` };
  if (status === 403 && (type === 's3' || type === 'oss')) {
    return {
      status: 'warn',
      detail: `${place} answers 403, ${how}: the keys are wrong, or may not list the bucket`,
      fix: 'check access_key_id and access_key_secret; who may list the bucket gets 404 for what is not there',
    };
  }
  const fix = hintOf(error);
  if (REFUSED.has(status)) {
    return {
      status: 'fail',
      detail: `${place} refuses us (${status}), ${how}`,
      fix: access(section) === 'without credentials' ? 'set backend.registry.auth or IMAGE_PULL_AUTH' : fix,
    };
  }
  return {
    status: 'fail',
    detail: `${place}: ${messageOf(deepest(error))}`,
    fix,
  };
}

/** The innermost error of ours: what happened, without what we wanted. */
function deepest(error: unknown): unknown {
  return chainOf(error).findLast((at) => at instanceof RegistryError) ?? error;
}

async function ask(
  type: string,
  section: Section,
  config: BackendConfig,
  signal: AbortSignal,
): Promise<Outcome> {
  const notes = new Notes();
  // nobody waits for an outage to end here
  const backend: Backend = openBackend({ ...config, [type]: { ...section, outage_wait: 0 } }, notes);
  let problem: unknown;
  try {
    const reader = await backend.open(NO_BLOB);
    await within(reader.size(), signal);
  } catch (error) {
    signal.throwIfAborted();
    problem = error;
  } finally {
    await backend.close();
  }
  const outcome = judgeAnswer(type, section, problem);
  if (notes.lines.length === 0) return outcome;
  const detail = `${outcome.detail}; ${notes.lines.join('; ')}`;
  return { ...outcome, status: outcome.status === 'ok' ? 'warn' : outcome.status, detail };
}

function lookAtDirectories({ dir, blob_file: file, alt_dirs: more }: LocalfsConfig): Outcome {
  const paths = [dir, file, ...more].filter((path) => path !== '');
  for (const path of paths) {
    try {
      const isDirectory = statSync(path).isDirectory();
      accessSync(path, constants.R_OK | (isDirectory ? constants.X_OK : 0));
    } catch (error) {
      return {
        status: 'fail',
        detail: `blobs cannot be read: ${messageOf(error)}`,
        fix: `create ${path}, or let this user read it`,
      };
    }
  }
  return { status: 'ok', detail: `localfs: ${paths.join(', ')} can be read` };
}

async function openDisk(config: BackendConfig): Promise<Outcome> {
  const notes = new Notes();
  await openBackend(config, notes).close();
  return { status: 'ok', detail: `${config.type} can be opened` };
}

/** The check of the backend of a configuration. */
export function backendCheck(config: ConfigV2): Check {
  return {
    id: 'configuration.backend',
    group: 'configuration',
    name: 'backend',
    essential: true,
    limitMs: LIMIT_MS,
    run: ({ signal }) => {
      const { backend } = config;
      if (backend === null)
        return { status: 'fail', detail: 'there is none', fix: 'add a section backend to the configuration' };
      if (backend.localfs !== null && backend.type === 'localfs') return lookAtDirectories(backend.localfs);
      const section = backend[backend.type as 'oss'] ?? null;
      if (section === null || backend.type === 'localdisk') return openDisk(backend);
      return ask(backend.type, section, backend, signal);
    },
  };
}
