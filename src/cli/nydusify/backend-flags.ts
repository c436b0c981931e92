// The flags that name a storage backend, `--backend-type` and its two configurations, with a prefix where a command has
// two of them. Source: nydus-image-and-nydusify.md 8.1, 8.3.
import { readFileSync, statSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { MAX_CONFIG_SIZE } from '../../base/limits.ts';
import type { Flag, FlagValues } from './flags.ts';

const TYPES = ['oss', 's3', 'localfs'];

/** A backend as it was asked for. */
export interface BackendChoice {
  type: string;
  config: Record<string, unknown>;
}

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** The three flags. @param prefix '', `source-` or `target-` */
export function backendFlags<P extends string>(
  prefix: P,
  what: string,
): Record<`${P}backend-type` | `${P}backend-config` | `${P}backend-config-file`, Flag> {
  const flags: Record<string, Flag> = {
    [`${prefix}backend-type`]: { type: 'string', env: 'BACKEND_TYPE', help: `${what}: oss, s3 or localfs` },
    [`${prefix}backend-config`]: {
      type: 'string',
      env: 'BACKEND_CONFIG',
      value: 'JSON',
      help: 'configuration of it, as JSON',
    },
    [`${prefix}backend-config-file`]: {
      type: 'string',
      env: 'BACKEND_CONFIG_FILE',
      value: 'FILE',
      help: 'the same, in a file: secrets then do not show in the list of processes',
    },
  };
  return flags as Record<`${P}backend-type` | `${P}backend-config` | `${P}backend-config-file`, Flag>;
}

/** Read the flags. @throws UsageError exit 1 */
export function readBackend(values: FlagValues, prefix: string): BackendChoice | undefined {
  const given = (name: string): string | undefined => {
    const text = values.text(`${prefix}${name}`);
    return text === '' ? undefined : text;
  };
  const [type, inline, file] = [given('backend-type'), given('backend-config'), given('backend-config-file')];
  if (type === undefined) return undefined;
  if (!TYPES.includes(type)) throw wrong(`--${prefix}backend-type should be one of [${TYPES.join(' ')}]`);
  if (inline !== undefined && file !== undefined)
    throw wrong(`--${prefix}backend-config conflicts with --${prefix}backend-config-file`);
  if (inline === undefined && file === undefined)
    throw wrong(`backend configuration is empty, please specify option '--${prefix}backend-config'`);
  return { type, config: parse(inline ?? readConfig(file ?? ''), `--${prefix}backend-config`) };
}

function readConfig(path: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_CONFIG_SIZE) throw wrong(`${path} has ${size} bytes, limit ${MAX_CONFIG_SIZE}`);
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`cannot read ${path}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
}

function parse(text: string, name: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // the parser's message would show a piece of the text, which may be a secret
    throw wrong(`${name} is no JSON`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrong(`${name} is no JSON object`);
  return value as Record<string, unknown>;
}
