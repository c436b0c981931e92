// Where the demo works, and how everything is taken away again: children, mounts, files; also on Ctrl-C and on errors.
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const isRoot = process.getuid?.() === 0;

/** A temporary directory with what runs in it. */
export class Workshop {
  readonly dir: string;
  readonly #children = new Set<ChildProcess>();
  #cleared = false;

  constructor() {
    this.dir = realpathSync(mkdtempSync(join(tmpdir(), 'nydus-demo-')));
    process.once('exit', () => this.clear());
    for (const [signal, number] of [
      ['SIGINT', 2],
      ['SIGTERM', 15],
      ['SIGHUP', 1],
    ] as const) {
      process.on(signal, () => {
        process.stdout.write('\n  stopped: unmounting and cleaning up\n');
        process.exit(128 + number); // the exit hook clears
      });
    }
  }

  path(...names: string[]): string {
    return join(this.dir, ...names);
  }

  /** A directory, made when it is missing. */
  folder(name: string): string {
    mkdirSync(this.path(name), { recursive: true });
    return this.path(name);
  }

  /** End this child when the demo ends. */
  adopt(child: ChildProcess): void {
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
  }

  /** Run a program to its end without blocking signals. @returns what it printed @throws Error unless it exits with 0 */
  run(file: string, args: string[]): Promise<string> {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.adopt(child);
    const pieces: Buffer[] = [];
    let errors = '';
    child.stdout.on('data', (piece: Buffer) => pieces.push(piece));
    child.stderr.on('data', (piece: Buffer) => (errors += piece.toString()));
    return new Promise((done, fail) => {
      child.on('error', fail);
      child.on('close', (code, signal) => {
        if (code === 0) done(Buffer.concat(pieces).toString());
        else fail(new Error(`${[file, ...args].join(' ')} ended with ${signal ?? code}\n${errors}`));
      });
    });
  }

  /** End what still runs, unmount, delete. Safe to call twice. */
  clear(): void {
    if (this.#cleared) return;
    this.#cleared = true;
    for (const child of this.#children) child.kill('SIGTERM');
    const mountpoint = this.path('mnt');
    for (let attempt = 0; attempt < 3 && isMounted(mountpoint); attempt++) {
      if (isRoot) spawnSync('umount', ['-l', mountpoint]);
      else spawnSync('fusermount3', ['-u', '-z', mountpoint]);
    }
    for (const child of this.#children) child.kill('SIGKILL');
    if (existsSync(this.dir)) rmSync(this.dir, { recursive: true, force: true });
  }
}

function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === path);
}
