// The filesystem side as it is: FUSE sessions of serve/, images of rafs/. Loaded when the daemon starts.
import type { RafsInstance } from '../rafs/instance.ts';
import type { FuseSession, MountSource } from '../serve/fuse/session.ts';
import type { SharedDirectory } from '../serve/passthrough/passthrough-fs.ts';
import type { DaemonParts, MountSession, MountTarget } from './parts.ts';

/** The daemon hands back what it got from `realParts`. */
function sourceOf(target: MountTarget<RafsInstance>): MountSource {
  return target.kind === 'rafs'
    ? target
    : { kind: 'passthrough', directory: target.directory as SharedDirectory };
}

/** A FUSE session as the daemon sees it. */
function mountSession(session: FuseSession): MountSession<RafsInstance> {
  return {
    ended: session.ended,
    attach: (mountpoint, target, options) => session.attach(mountpoint, sourceOf(target), options),
    replace: (mountpoint, target, options) => session.replace(mountpoint, sourceOf(target), options),
    detach: (mountpoint) => session.detach(mountpoint),
    stop: () => session.stop(),
    unmount: () => session.unmount(),
    counters: (mountpoint) => session.stats(mountpoint),
    files: (mountpoint) => session.accounting(mountpoint)?.files() ?? {},
    pattern: (mountpoint) => session.accounting(mountpoint)?.pattern() ?? [],
    takeLatest: (mountpoint) => session.accounting(mountpoint)?.takeLatest() ?? [],
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
  share: async (source) => {
    const { SharedDirectory } = await import('../serve/passthrough/passthrough-fs.ts');
    return SharedDirectory.open(source);
  },
};
