// Daemons that take over from each other: started without waiting for more than their API, driven like the snapshotter drives them.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { apiRequest, Daemon } from './daemon.ts';
import { programCommand } from './programs.ts';
import type { Supervisor } from './supervisor.ts';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export interface LaunchOptions {
  /** directory of socket and configuration */
  dir: string;
  mountpoint: string;
  /** name of the API socket */
  socket?: string;
  bootstrap?: string;
  config?: object;
  args?: string[];
  /** program instead of ours */
  command?: string[];
}

/** Start a daemon; resolves with it and its state as soon as its API answers. */
export async function launch(options: LaunchOptions): Promise<{ daemon: Daemon; state: string }> {
  const { dir, mountpoint, socket = 'api.sock', bootstrap, config, args = [] } = options;
  const apisock = join(dir, socket);
  const all = ['--mountpoint', mountpoint, '--apisock', apisock, ...args];
  if (bootstrap !== undefined) all.push('--bootstrap', bootstrap);
  if (config !== undefined) {
    const path = join(dir, 'nydusd.json');
    writeFileSync(path, JSON.stringify(config));
    all.push('--config', path);
  }
  const [file = '', ...first] = options.command ?? programCommand('nydusd');
  const child = spawn(file, [...first, ...all], { stdio: ['ignore', 'pipe', 'pipe'] });
  const daemon = new Daemon(child, mountpoint, apisock);
  for (const deadline = performance.now() + 20_000; ;) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`nydusd ended\n${daemon.log}`);
    const state = await stateOf(daemon);
    if (state !== undefined) return { daemon, state };
    if (performance.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`no answer from nydusd\n${daemon.log}`);
    }
    await sleep(2);
  }
}

/** Visible state, undefined when nobody answers. */
export async function stateOf(daemon: Daemon): Promise<string | undefined> {
  try {
    const { body } = await apiRequest(daemon.apisock, 'GET', '/api/v1/daemon', undefined, 2000);
    return (JSON.parse(body) as { state: string }).state;
  } catch {
    return undefined;
  }
}

/** A command that must be answered with 204. */
export async function command(daemon: Daemon, path: string): Promise<void> {
  const { status, body } = await apiRequest(daemon.apisock, 'PUT', path);
  if (status !== 204) throw new Error(`PUT ${path}: ${status} ${body}\n${daemon.log}`);
}

/** Have the supervisor fetch the state of a daemon. */
export async function save(daemon: Daemon, supervisor: Supervisor): Promise<void> {
  const received = supervisor.receive();
  await Promise.all([command(daemon, '/api/v1/daemon/fuse/sendfd'), received]);
}

/** Have a daemon fetch the state. */
export async function takeOver(daemon: Daemon, supervisor: Supervisor): Promise<void> {
  const sent = supervisor.send();
  await Promise.all([command(daemon, '/api/v1/daemon/fuse/takeover'), sent]);
}

/** Pid of the guardian that keeps the mount of the daemon at a socket. */
export function keeperOf(apisock: string): number | undefined {
  const path = `${apisock}.failover`;
  if (!existsSync(path)) return undefined;
  return (JSON.parse(readFileSync(path, 'utf8')) as { guardian: { pid: number } }).guardian.pid;
}

/** Wait until a guardian, another one than `before`, is there. */
export async function awaitKeeper(apisock: string, before?: number): Promise<number> {
  for (const deadline = performance.now() + 10_000; performance.now() < deadline; await sleep(5)) {
    const pid = keeperOf(apisock);
    if (pid !== undefined && pid !== before) return pid;
  }
  throw new Error(`no guardian at ${apisock}`);
}
