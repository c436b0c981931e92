// Directories made with their parents. Not `mkdirSync(…, { recursive: true })`: below /proc, where nothing can be made, that of
// Node 26 never ends.
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';

/** Make a directory and what is missing above it. @throws an error of node:fs; a file in the way is EEXIST */
export function makeDirectories(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return;
    if (code !== 'ENOENT' || dirname(path) === path) throw error;
    makeDirectories(dirname(path));
    try {
      mkdirSync(path);
    } catch (again) {
      // another process was as quick
      if ((again as NodeJS.ErrnoException).code !== 'EEXIST') throw again;
    }
  }
}
