// Names of users and groups of this machine, as its own files list them; name services are not asked.
// Source: passwd(5), group(5).
import { readFileSync } from 'node:fs';
import type { OwnerNames } from './unpack.ts';

/** Larger lists of accounts are not looked at. */
const MAX_LIST = 64 * 1024 * 1024;

/** Names by id. Of several names the first counts, as for getpwuid(3). */
export function parseAccounts(text: string): Map<number, string> {
  const names = new Map<number, string>();
  for (const line of text.split('\n')) {
    const [name = '', , id = ''] = line.split(':');
    if (name === '' || name.startsWith('#') || !/^[0-9]{1,10}$/.test(id)) continue;
    if (!names.has(Number(id))) names.set(Number(id), name);
  }
  return names;
}

function readAccounts(path: string): Map<number, string> {
  try {
    const text = readFileSync(path, 'utf8');
    return text.length > MAX_LIST ? new Map() : parseAccounts(text);
  } catch {
    return new Map(); // a machine without the list knows no names
  }
}

/** No owner has a name: what is made is the same on every machine. */
export const NO_NAMES: OwnerNames = { user: () => '', group: () => '' };

/** Names that this machine knows. */
export function hostNames(): OwnerNames {
  const users = readAccounts('/etc/passwd');
  const groups = readAccounts('/etc/group');
  return { user: (uid) => users.get(uid) ?? '', group: (gid) => groups.get(gid) ?? '' };
}
