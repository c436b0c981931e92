// What a user sees in a tree.
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Regular files of a tree and their bytes; metadata only, nothing is fetched. */
export function visibleBytes(root: string): { files: number; bytes: number } {
  let files = 0;
  let bytes = 0;
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    files++;
    bytes += lstatSync(join(entry.parentPath, entry.name)).size;
  }
  return { files, bytes };
}
