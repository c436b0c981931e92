// Which nydusd a command starts: the one that was asked for, else the one that came along, else the one in PATH.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Command line of the daemon.
 *
 * @param wanted what the flag says; undefined or `nydusd` leaves the choice to us
 * @param script file that this process runs, `process.argv[1]`
 */
export function nydusdCommand(wanted: string | undefined, script: string | undefined): string[] {
  if (wanted !== undefined && wanted !== '' && wanted !== 'nydusd') return [wanted];
  const folder = script === undefined ? '/nonexistent' : dirname(script);
  // bin/lib/nydusify.js of a built tree, src/bin/nydusify.ts of a checkout
  const built = join(folder, '../nydusd');
  if (existsSync(join(folder, 'nydusd.js')) && existsSync(built)) return [built];
  const source = join(folder, 'nydusd.ts');
  if (existsSync(source)) return [process.execPath, source];
  return ['nydusd'];
}
