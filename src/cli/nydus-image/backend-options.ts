// How a command is told where blobs are read: `--backend-type` with its configuration. Source: nydus-image 1.4.
import { readFileSync, statSync } from 'node:fs';
import { UsageError, messageOf } from '../../base/errors.ts';
import { MAX_CONFIG_SIZE } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { BACKEND_TYPES } from '../../storage/config-parse-backend.ts';
import { parseConfig } from '../../storage/config-parse.ts';
import type { BackendConfig } from '../../storage/config.ts';
import { CommandFailure } from '../report.ts';
import type { Options } from '../command.ts';

export const backendOptions = {
  'backend-type': {
    type: 'string',
    help: 'where the blobs are: registry, oss, s3, http-proxy or localdisk',
  },
  'backend-config': {
    type: 'string',
    conflicts: ['backend-config-file'],
    help: 'configuration of it, as JSON with the keys that nydusd knows',
  },
  'backend-config-file': {
    type: 'string',
    help: 'the same, in a file: secrets then do not show in the list of processes',
  },
} as const satisfies Options;

/** Values of the options above. */
export interface BackendValues {
  'backend-type': string | undefined;
  'backend-config': string | undefined;
  'backend-config-file': string | undefined;
}

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

function readText(path: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_CONFIG_SIZE)
      throw wrong(`--backend-config-file ${path} has ${size} bytes, limit ${MAX_CONFIG_SIZE}`);
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new CommandFailure(`failed to read backend configuration file "${path}"`, error);
  }
}

function parseObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // the text may hold secrets, and messages of the parser quote it
    throw wrong(
      'invalid backend configuration: is no JSON',
      error instanceof SyntaxError ? 'write one JSON object' : messageOf(error),
    );
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrong('invalid backend configuration: is no JSON object');
  return value as Record<string, unknown>;
}

function configOf(type: string, section: object, logger: Logger): BackendConfig {
  const { config, warnings } = parseConfig(
    JSON.stringify({ version: 2, backend: { type, [type]: section } }),
  );
  for (const warning of warnings) logger.warn(warning);
  if (config.backend === null) throw new TypeError('a configuration with a backend has one');
  return config.backend;
}

/** A directory of blobs, or one file that every blob is read from. */
export function localBackend(place: { dir: string } | { blob_file: string }, logger: Logger): BackendConfig {
  return configOf('localfs', place, logger);
}

/**
 * The backend that the options name; undefined without `--backend-type`.
 *
 * @param others options that could be given instead, for the messages
 * @throws UsageError exit 1
 */
export function readBackendOptions(
  values: BackendValues,
  others: string,
  logger: Logger,
): BackendConfig | undefined {
  const type = values['backend-type'];
  if (type === undefined) return undefined;
  const tail = `, ${others} or --backend-type must be specified`;
  if (type === 'localfs') throw wrong(`Use --blob-dir to specify localfs backend${tail}`);
  const text = values['backend-config'];
  const file = values['backend-config-file'];
  if (text === undefined && file === undefined)
    throw wrong(`--backend-config or --backend-config-file must be specified${tail}`);
  if (!(BACKEND_TYPES as readonly string[]).includes(type))
    throw wrong(
      `unsupported backend type '${type}'${tail}`,
      `use one of ${BACKEND_TYPES.filter((name) => name !== 'localfs').join(', ')}`,
    );
  return configOf(type, parseObject(text ?? readText(file ?? '')), logger);
}
