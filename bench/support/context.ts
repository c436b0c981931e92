// What every benchmark receives, and the small things they share: medians, running a command with time and peak memory.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

/** Settings of one benchmark run. */
export interface BenchContext {
  /** directory for trees and images; kept between runs, on a real disk */
  dir: string;
  /** folder with upstream's `nydusd` and `nydus-image`, or undefined */
  peer: string | undefined;
  /** runs per figure; the median is reported */
  rounds: number;
  /** progress for people, on stderr */
  note(text: string): void;
}

/** One line of the report: what we measured, and what others did in the same run. */
export interface Line {
  group: string;
  what: string;
  unit: string;
  /** which way is better */
  better: 'more' | 'less';
  /** figures by system name; ours is `ours` */
  figures: Record<string, number>;
  /** the ratio to reach: ours over this system (for `less`: that system over ours), or an absolute limit */
  target?: { versus?: string; ratio?: number; limit?: number };
  /** remarks under the table */
  remark?: string;
}

/** Middle value; the mean of the two middle ones for an even count. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = sorted.length >> 1;
  const high = sorted[at] ?? Number.NaN;
  return sorted.length % 2 === 1 ? high : ((sorted[at - 1] ?? Number.NaN) + high) / 2;
}

export interface Timed {
  ms: number;
  /** peak resident memory in bytes, sampled every 5 ms */
  peakBytes: number;
  /** user and system time of the process itself, in ms */
  cpuMs: number;
  stdout: string;
}

/** A memory figure of a process in bytes, such as `VmHWM`; 0 when it is gone. Source: proc(5). */
export function memoryOf(pid: number, field: 'VmHWM' | 'VmRSS'): number {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Resident and private dirty bytes of a process. Source: proc(5), smaps_rollup. */
export function residentOf(pid: number): { resident: number; privateDirty: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024;
  return { resident: field('Rss'), privateDirty: field('Private_Dirty') };
}

/** CPU time of a process so far, in ms. Source: proc(5), stat fields 14 and 15, in ticks of 10 ms. */
export function cpuOf(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return 0;
  }
}

/** Run a command to its end and measure it. @throws Error with its output when the status is not in `accept` */
export function timed(
  command: readonly string[],
  options: { cwd?: string; stdin?: number; accept?: number[] } = {},
): Promise<Timed> {
  const [file = '', ...args] = command;
  const began = performance.now();
  const child = spawn(file, args, { cwd: options.cwd, stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'] });
  let [peakBytes, cpuMs, stdout, stderr] = [0, 0, '', ''];
  const look = (): void => {
    if (child.pid === undefined) return;
    peakBytes = Math.max(peakBytes, memoryOf(child.pid, 'VmHWM'));
    cpuMs = Math.max(cpuMs, cpuOf(child.pid));
  };
  const timer = setInterval(look, 5);
  child.stdout?.on('data', (piece: Buffer) => (stdout = (stdout + piece.toString()).slice(-1 << 20)));
  child.stderr?.on('data', (piece: Buffer) => (stderr = (stderr + piece.toString()).slice(-1 << 16)));
  return new Promise((done, fail) => {
    child.on('error', (error) => {
      clearInterval(timer);
      fail(error);
    });
    child.on('exit', () => clearInterval(timer));
    child.on('close', (code, signal) => {
      const ms = performance.now() - began;
      if ((options.accept ?? [0]).includes(code ?? -1)) done({ ms, peakBytes, cpuMs, stdout });
      else fail(new Error(`${command.join(' ')} ended with ${signal ?? code}\n${stderr}${stdout}`));
    });
  });
}

/** Forget cached pages (1), names and inodes (2), or both (3) of the whole machine. Needs root. Source: proc_sys_vm(5). */
export function dropCaches(what: 1 | 2 | 3): void {
  writeFileSync('/proc/sys/vm/drop_caches', String(what));
}

/** Wait until written pages are on the disk, so that one system's writes are not paid for by the next. */
export async function settle(): Promise<void> {
  await timed(['sync']);
}
