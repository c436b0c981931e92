// What this process knows of a host, whichever images ask it: whether it is down, how its network is, how long its answers take. Images
// of other repositories or buckets share it, so one outage is found and probed once, and one estimate decides for all.
import type { Logger } from '../../base/log.ts';
import { BackendError } from '../../base/errors.ts';
import { Hedge } from './hedge.ts';
import { Link } from './link.ts';
import { OutageGate } from './outage.ts';
import { SharedStates } from './shared-states.ts';

export interface HostState {
  readonly link: Link;
  readonly gate: OutageGate;
  readonly hedge: Hedge;
}

const hosts = new SharedStates<HostState>();

/**
 * The state of a host; give it back with `releaseHost`.
 *
 * @param key  scheme, host and port, and whatever stands between: proxy, mirrors
 * @param name what messages call it
 */
export function acquireHost(key: string, name: string, logger: Logger): HostState {
  return hosts.acquire(key, () => ({
    link: new Link(),
    gate: new OutageGate(name, logger),
    hedge: new Hedge(),
  }));
}

/** End the use of a host's state; with the last user it is forgotten. */
export function releaseHost(key: string, state: HostState): void {
  if (!hosts.release(key, state)) return;
  const reason = new BackendError('the backend is closed');
  state.gate.close(reason);
  state.link.close(reason);
}
