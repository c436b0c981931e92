// How check, inspect and stat are told which image to look at. Source: nydus-image 4.1, 4.2.
import { UsageError } from '../../base/errors.ts';
import type { Options, Positionals } from '../command.ts';

export const imageOptions = {
  bootstrap: {
    type: 'string',
    short: 'B',
    help: 'the bootstrap, in the older form; blob ids are then shown as stored',
  },
  'blob-dir': {
    type: 'string',
    short: 'D',
    conflicts: ['config'],
    help: 'directory with the data blobs',
  },
  config: { type: 'string', short: 'C', help: 'configuration of nydusd that names where the blobs are' },
} as const satisfies Options;

export const imagePositionals = {
  BOOTSTRAP: {
    requiredUnless: ['bootstrap'],
    conflicts: ['bootstrap'],
    help: 'a bootstrap, or a data blob with metadata inside',
  },
} as const satisfies Positionals;

/** Path of the image, and whether ids are those of the table. */
export function imagePath(values: { bootstrap: string | undefined; BOOTSTRAP: string | undefined }): {
  path: string;
  stored: boolean;
} {
  const path = values.BOOTSTRAP ?? values.bootstrap;
  if (path === undefined) throw new UsageError('a bootstrap must be named', { exitCode: 1 });
  return { path, stored: values.BOOTSTRAP === undefined };
}
