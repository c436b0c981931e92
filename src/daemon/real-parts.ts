// The filesystem side as it is: FUSE sessions of serve/, images of rafs/. Loaded when the daemon starts.
import type { RafsInstance } from '../rafs/instance.ts';
import type { FuseSession } from '../serve/fuse/session.ts';
import type { AttachOptions, DaemonParts, MountSession } from './parts.ts';

/** A FUSE session as the daemon sees it. */
function mountSession(session: FuseSession): MountSession<RafsInstance> {
  return {
    ended: session.ended,
    attach: (instance: RafsInstance, options: AttachOptions) => session.attach(instance, options),
    replace: (instance: RafsInstance, options: AttachOptions) => session.replace(instance, options),
    detach: () => session.detach(),
    stop: () => session.stop(),
    unmount: () => session.unmount(),
    counters: () => session.stats(),
    files: () => session.files(),
    pattern: () => session.pattern(),
    takeLatest: () => session.takeLatest(),
    inflight: () => session.inflight(),
    setWireLog: (on) => session.setWireLog(on),
  };
}

export const realParts: DaemonParts<RafsInstance> = {
  mount: async (options) => {
    const { FuseSession } = await import('../serve/fuse/session.ts');
    const { detachDeadMounts } = await import('../serve/fuse/dead-mounts.ts');
    await detachDeadMounts(options.mountpoint, options.logger);
    const mounting = FuseSession.mount(options);
    if (options.whileStarting !== undefined) setImmediate(options.whileStarting);
    return mountSession(await mounting);
  },
  open: async (options) => {
    const { RafsInstance } = await import('../rafs/instance.ts');
    return RafsInstance.open(options);
  },
};
