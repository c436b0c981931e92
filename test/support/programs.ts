// Our programs as child processes: from the sources by default, from built launchers where $NYDUS_BIN names their folder.
import { spawn, spawnSync, type SpawnOptions, type SpawnSyncOptions } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { repoRoot } from './golden.ts';

/** Programs of this repository. */
export type ProgramName = 'nydus-image' | 'nydusctl' | 'nydusd';

/**
 * Command line that starts a program: executable first, then arguments that come before the caller's own.
 * The sources are what a test run should judge; a folder of built programs ($NYDUS_BIN) is judged before a release.
 */
export function programCommand(name: ProgramName): [string, ...string[]] {
  const folder = process.env['NYDUS_BIN'];
  if (folder !== undefined && folder !== '') return [join(folder, name)];
  return [process.execPath, join(repoRoot, 'src/bin', `${name}.ts`)];
}

/** Value for `skip`: false when the program can be started. Our own programs are never optional in CI. */
export function requireProgram(name: ProgramName): string | false {
  const file = programCommand(name).at(-1) ?? '';
  if (existsSync(file)) return false;
  if (process.env['CI'] === 'true') throw new Error(`${file} does not exist`);
  return `${file} does not exist`;
}

export interface ProgramResult {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Run a program of ours to its end. Output is text; nothing is thrown for a non-zero status. */
export function runProgram(name: ProgramName, args: string[], options: SpawnSyncOptions = {}): ProgramResult {
  const [file, ...first] = programCommand(name);
  const result = spawnSync(file, [...first, ...args], { maxBuffer: 1 << 26, ...options });
  if (result.error !== undefined) throw result.error;
  return {
    status: result.status,
    signal: result.signal,
    stdout: String(result.stdout),
    stderr: String(result.stderr),
  };
}

/** As `runProgram`, while this process goes on: for a test that also serves, or reads what a daemon prints. */
export function runProgramLive(
  name: ProgramName,
  args: string[],
  options: SpawnOptions = {},
): Promise<ProgramResult> {
  const [file, ...first] = programCommand(name);
  const child = spawn(file, [...first, ...args], { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
}

/** Run `nydus-image` and expect success. @throws Error with what it printed */
export function nydusImage(args: string[], options: SpawnSyncOptions = {}): ProgramResult {
  const result = runProgram('nydus-image', args, options);
  if (result.status !== 0) {
    const end = result.signal ?? `status ${result.status}`;
    throw new Error(`nydus-image ${args.join(' ')} ended with ${end}\n${result.stderr}${result.stdout}`);
  }
  return result;
}
