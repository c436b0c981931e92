// What V8's garbage collector is told about this process.
import { setFlagsFromString } from 'node:v8';

/** The first Node whose V8 is known to have the flag; V8 prints an error for flags that it does not have. */
const NODE_WITH_FLAG = 26;

/**
 * Mapped files (bootstraps of many MB) are no garbage to come. By default V8 collects everything each time another 64 MB of them are
 * there: measured with 255 images of 12 MB, it spent 6 of the 14 ms of each mount on that. Counted with the heap instead, they only
 * raise its limit. Before other threads start.
 */
export function expectMappedFiles(): void {
  if (Number.parseInt(process.versions.node, 10) < NODE_WITH_FLAG) return;
  setFlagsFromString('--external-memory-accounted-in-global-limit');
}
