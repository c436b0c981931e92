// A process that mounts images with the kernel's EROFS, for tests that read them: who reads must not be who feeds.
// Arguments: a JSON list of { bootstrap, blobs, cache, mountpoint }, and `fileio` for that driver. Prints a line per image, unmounts all when stdin ends.
import { mkdirSync } from 'node:fs';
import { messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import { RafsInstance } from '../../../rafs/instance.ts';
import { parseConfig } from '../../../storage/config-parse.ts';
import { ErofsMount } from '../erofs-mount.ts';
import { Feed } from '../feed.ts';
import { FlatFeed } from '../flat-feed.ts';

interface Wanted {
  bootstrap: string;
  blobs: string;
  cache: string;
  mountpoint: string;
}

const say = (text: string): void => console.error(text);
const quiet = (): void => {};
const logger: Logger = { error: say, warn: say, info: quiet, debug: quiet, trace: quiet };

const feed = process.argv[3] === 'fileio' ? FlatFeed.open(logger) : Feed.open(logger);
if (feed instanceof FlatFeed) feed.begin();
const mounted: { mount: ErofsMount; instance: RafsInstance }[] = [];
for (const { bootstrap, blobs, cache, mountpoint } of JSON.parse(process.argv[2] ?? '[]') as Wanted[]) {
  mkdirSync(mountpoint, { recursive: true });
  const text = JSON.stringify({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: blobs } },
    cache: { type: 'blobcache', filecache: { work_dir: cache } },
    rafs: { mode: 'direct' },
  });
  const { config } = parseConfig(text);
  try {
    const instance = await RafsInstance.open({ bootstrap, config, id: mountpoint, logger, decodeThreads: 0 });
    mounted.push({ mount: await ErofsMount.mount({ instance, mountpoint, feed, logger }), instance });
    console.log('mounted');
  } catch (error) {
    console.log(messageOf(error));
  }
}
process.stdin.resume();
process.stdin.on('end', () => void end());

async function end(): Promise<void> {
  const free = await Promise.all(mounted.map(({ mount }) => mount.unmount()));
  await feed.close();
  await Promise.all(mounted.map(({ instance }) => instance.close()));
  console.log(JSON.stringify({ free: free.every(Boolean), counts: feed.counts() }));
}
