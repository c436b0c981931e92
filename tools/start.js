// Starts PROGRAM: code that was compiled once is kept beside it, or in the user's own cache folder, and loaded quicker.
import { accessSync, constants } from 'node:fs';
import { enableCompileCache } from 'node:module';

function cacheFolder() {
  try {
    const beside = new URL('.', import.meta.url).pathname;
    accessSync(beside, constants.W_OK);
    return `${beside}cache`;
  } catch {
    // a folder of the user's own: what lies in a shared one could have been planted
    const { HOME, XDG_CACHE_HOME } = process.env;
    const base = XDG_CACHE_HOME || (HOME && `${HOME}/.cache`);
    return base && base.startsWith('/') ? `${base}/nydus-ts` : undefined;
  }
}

const folder = cacheFolder();
if (folder !== undefined) enableCompileCache(folder);
await import('./PROGRAM-main.js');
