// Opens the backend that the flags of a command name: its configuration has the keys that nydusd knows.
// Source: nydus-image-and-nydusify.md 9.1; nydusd.md 7.3.
import type { Logger } from '../../base/log.ts';
import { openBackend, type Backend } from '../../storage/backend/backend.ts';
import { parseConfig } from '../../storage/config-parse.ts';
import type { BackendChoice } from './backend-flags.ts';

/** @throws UsageError a key is missing or wrong, or the type is not served */
export function openBackendChoice(choice: BackendChoice, logger: Logger): Backend {
  const device = { backend: choice, cache: {} };
  const { config } = parseConfig(JSON.stringify({ device, mode: 'direct' }));
  if (config.backend === null) throw new TypeError('a configuration with a backend has one');
  return openBackend(config.backend, logger);
}
