// Runs nydusd on one image: configuration, start, wait for RUNNING, end. Source: nydus-image-and-nydusify.md 9.3;
// nydusd.md 5.4 (GET /api/v1/daemon).
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BackendError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';

/** Longest wait for RUNNING, ms. */
const READY_MS = 30_000;
/** Longest wait for the daemon to unmount and end, ms. */
const END_MS = 10_000;
const POLL_MS = 10;
/** Bytes of the daemon's output that an error shows. */
const LOG_TAIL = 4000;

/** A backend as nydusd's configuration has it. */
export interface BackendSection {
  type: string;
  config: Record<string, unknown>;
}

export interface NydusdOptions {
  /** command line that starts it */
  command: readonly string[];
  bootstrap: string;
  mountpoint: string;
  backend: BackendSection;
  configFile: string;
  apiSocket: string;
  cacheDir: string;
  prefetch: boolean;
  digestValidate: boolean;
  logger: Logger;
}

/** The configuration of version 1 that the daemon is started with. */
export function nydusdConfig(options: NydusdOptions): object {
  return {
    device: {
      backend: options.backend,
      cache: { type: 'blobcache', config: { work_dir: resolve(options.cacheDir) } },
    },
    mode: 'direct',
    iostats_files: false,
    fs_prefetch: { enable: options.prefetch, threads_count: 10, merging_size: 131_072 },
    digest_validate: options.digestValidate,
    enable_xattr: true,
  };
}

function stateOf(socketPath: string): Promise<string | undefined> {
  const { request } = process.getBuiltinModule('node:http');
  return new Promise((done) => {
    const call = request({ socketPath, path: '/api/v1/daemon', agent: false, timeout: 2000 }, (answer) => {
      let body = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece: string) => (body = (body + piece).slice(0, 65_536)));
      answer.on('error', () => done(undefined));
      answer.on('end', () => {
        try {
          done((JSON.parse(body) as { state?: string }).state);
        } catch {
          done(undefined);
        }
      });
    });
    call.on('timeout', () => call.destroy());
    call.on('error', () => done(undefined)); // the socket is not there yet
    call.end();
  });
}

/** A daemon that has the image mounted. */
export class Nydusd {
  readonly mountpoint: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #tail: () => string;

  private constructor(child: ChildProcess, mountpoint: string, ended: Promise<void>, tail: () => string) {
    this.#child = child;
    this.mountpoint = mountpoint;
    this.#ended = ended;
    this.#tail = tail;
  }

  /**
   * Start one and wait until the image is mounted.
   *
   * @throws BackendError it cannot be started, ends early or does not get ready in 30 s; the signal's reason
   */
  static async start(options: NydusdOptions, signal: AbortSignal): Promise<Nydusd> {
    await mkdir(options.cacheDir, { recursive: true });
    await mkdir(dirname(options.configFile), { recursive: true });
    await mkdir(options.mountpoint, { recursive: true });
    // it may hold the credentials of a registry
    await rm(options.configFile, { force: true });
    await writeFile(options.configFile, JSON.stringify(nydusdConfig(options), undefined, 2), { mode: 0o600 });
    await rm(options.apiSocket, { force: true });
    const [file = 'nydusd', ...first] = options.command;
    const args = ['--config', options.configFile, '--mountpoint', options.mountpoint];
    args.push('--bootstrap', options.bootstrap, '--apisock', options.apiSocket, '--log-level', 'warn');
    // a group of its own: Ctrl-C on a terminal reaches us alone, and we end it when its work is done
    const child = spawn(file, [...first, ...args], { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    let tail = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (piece: Buffer) => (tail = (tail + piece.toString()).slice(-LOG_TAIL)));
    let failure: string | undefined;
    const ended = new Promise<void>((done) => {
      child.on('error', (error) => {
        failure = `${file}: ${messageOf(error)}`;
        done();
      });
      child.on('exit', (code, by) => {
        failure ??= `${file} ended with ${by ?? code}`;
        done();
      });
    });
    const daemon = new Nydusd(child, options.mountpoint, ended, () => tail);
    try {
      const deadline = performance.now() + READY_MS;
      while ((await stateOf(options.apiSocket)) !== 'RUNNING') {
        signal.throwIfAborted();
        if (failure !== undefined) throw daemon.#error(failure);
        if (performance.now() > deadline)
          throw daemon.#error(`${file} is not ready after ${READY_MS / 1000} s`);
        await sleep(POLL_MS);
      }
    } catch (error) {
      await daemon.stop();
      throw error;
    }
    return daemon;
  }

  #error(problem: string): BackendError {
    const said = this.#tail().trim();
    return new BackendError(`cannot mount ${this.mountpoint}: ${problem}${said === '' ? '' : `: ${said}`}`, {
      retryable: false,
      hint: 'name another daemon with --nydusd',
    });
  }

  /** Resolves when the daemon is gone, whoever ended it. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Tell it to unmount and end, and wait for that. */
  async stop(): Promise<void> {
    if (this.#child.pid === undefined) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), END_MS);
    await this.#ended;
    clearTimeout(timer);
  }
}
