// A nydusd child process with its API: started, awaited, asked, stopped, never left behind.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { programCommand } from './programs.ts';
import { mountsBelow, unmountBelow } from './temporary.ts';

export interface DaemonOptions {
  /** v5 or v6 bootstrap; without it the daemon starts empty */
  bootstrap?: string;
  /** directory for the configuration, the log and the socket; created */
  workDir: string;
  /** existing directory, default `<workDir>/mnt` */
  mountpoint?: string;
  /** configuration object, version 1 or 2; see `localConfig` */
  config?: unknown;
  /** further arguments */
  args?: string[];
  /** program to start instead of ours, such as a peer's nydusd */
  command?: string[];
  /** milliseconds until RUNNING is given up */
  timeoutMs?: number;
  env?: NodeJS.ProcessEnv;
  /** open files that it has as descriptors 3 and up */
  inherit?: number[];
}

export interface ApiAnswer {
  status: number;
  body: string;
}

/** A configuration (version 1, as most users write it): blobs in a directory, cache in another (created) or none. */
export function localConfig(blobDir: string, cacheDir?: string, more: Record<string, unknown> = {}): object {
  if (cacheDir !== undefined) mkdirSync(cacheDir, { recursive: true });
  return {
    device: {
      backend: { type: 'localfs', config: { dir: blobDir } },
      cache: cacheDir === undefined ? {} : { type: 'blobcache', config: { work_dir: cacheDir } },
    },
    mode: 'direct',
    digest_validate: false,
    iostats_files: false,
    enable_xattr: true,
    ...more,
  };
}

/** One request to an API socket. @throws Error when nobody listens or the answer does not come in time */
export function apiRequest(
  socketPath: string,
  method: string,
  path: string,
  body?: string,
  timeoutMs = 10_000,
): Promise<ApiAnswer> {
  return new Promise((resolve, reject) => {
    // node sends no length with the body of a GET
    const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) };
    const call = request(
      { socketPath, method, path, headers, timeout: timeoutMs, agent: false },
      (answer) => {
        const pieces: Buffer[] = [];
        answer.on('data', (piece: Buffer) => pieces.push(piece));
        answer.on('error', reject);
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(pieces).toString() }),
        );
      },
    );
    call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer in ${timeoutMs} ms`)));
    call.on('error', reject);
    call.end(body);
  });
}

/** A started daemon. Dispose it, or call `stop`. */
export class Daemon {
  readonly child: ChildProcess;
  readonly mountpoint: string;
  readonly apisock: string;
  /** milliseconds from exec to the first RUNNING */
  startMs = 0;
  #log = '';
  #ended: Promise<number | NodeJS.Signals>;

  constructor(child: ChildProcess, mountpoint: string, apisock: string) {
    this.child = child;
    this.mountpoint = mountpoint;
    this.apisock = apisock;
    const keep = (piece: Buffer): void => {
      this.#log = (this.#log + piece.toString()).slice(-200_000);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    this.#ended = new Promise((resolve) => {
      child.on('error', (error) => {
        this.#log += String(error);
        resolve(-1);
      });
      child.on('exit', (code, signal) => resolve(signal ?? code ?? -1));
    });
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** What the daemon printed, the last 200 kB of it. */
  get log(): string {
    return this.#log;
  }

  /** Resolves with the exit status or the signal's name. */
  get ended(): Promise<number | NodeJS.Signals> {
    return this.#ended;
  }

  /** JSON body of a GET that must succeed. */
  async get(path: string): Promise<unknown> {
    const { status, body } = await apiRequest(this.apisock, 'GET', path);
    if (status !== 200) throw new Error(`GET ${path}: status ${status}: ${body}`);
    return JSON.parse(body);
  }

  /** Send a signal and wait for the end; SIGKILL after `patienceMs`. @returns exit status or signal name */
  async stop(signal: NodeJS.Signals = 'SIGTERM', patienceMs = 10_000): Promise<number | NodeJS.Signals> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), patienceMs);
    const end = await this.#ended;
    clearTimeout(timer);
    return end;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    unmountBelow(this.mountpoint);
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Start a daemon and wait until its API says RUNNING and, when it was given a bootstrap, until the mount is there.
 *
 * @throws Error with the daemon's output when it ends first, or is not RUNNING in time (it is then stopped)
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { workDir } = options;
  mkdirSync(workDir, { recursive: true });
  const mountpoint = options.mountpoint ?? join(workDir, 'mnt');
  // what a killed daemon leaves mounted there is the business of the new one
  if (!mountsBelow(mountpoint).includes(mountpoint)) mkdirSync(mountpoint, { recursive: true });
  const apisock = join(workDir, 'api.sock');
  const args = ['--mountpoint', mountpoint, '--apisock', apisock];
  if (options.bootstrap !== undefined) args.push('--bootstrap', options.bootstrap);
  if (options.config !== undefined) {
    const path = join(workDir, 'nydusd.json');
    writeFileSync(path, JSON.stringify(options.config, undefined, 1));
    args.push('--config', path);
  }
  const [file = '', ...first] = options.command ?? programCommand('nydusd');
  const began = performance.now();
  const child = spawn(file, [...first, ...args, ...(options.args ?? [])], {
    stdio: ['ignore', 'pipe', 'pipe', ...(options.inherit ?? [])],
    env: { ...process.env, ...options.env },
  });
  const daemon = new Daemon(child, mountpoint, apisock);
  const deadline = began + (options.timeoutMs ?? 20_000);
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`nydusd ended with ${child.exitCode ?? child.signalCode}\n${daemon.log}`);
    }
    if (await isRunning(daemon, options.bootstrap !== undefined)) break;
    if (performance.now() > deadline) {
      await daemon[Symbol.asyncDispose]();
      throw new Error(`nydusd is not RUNNING after ${options.timeoutMs ?? 20_000} ms\n${daemon.log}`);
    }
    await sleep(2);
  }
  daemon.startMs = performance.now() - began;
  return daemon;
}

async function isRunning(daemon: Daemon, mounted: boolean): Promise<boolean> {
  try {
    const { status, body } = await apiRequest(daemon.apisock, 'GET', '/api/v1/daemon', undefined, 2000);
    if (status !== 200 || (JSON.parse(body) as { state?: string }).state !== 'RUNNING') return false;
    return !mounted || mountsBelow(daemon.mountpoint).length > 0;
  } catch {
    return false; // the socket is not there yet
  }
}
