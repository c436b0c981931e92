// Several checking readers at once, started and asked from a test.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import type { ReaderReport } from './check-reader.ts';
import { repoRoot } from './golden.ts';

export type { ReaderReport } from './check-reader.ts';

/** Readers at work. */
export class CheckReaders {
  readonly #children: { child: ChildProcess; lines: AsyncIterator<string> }[];

  private constructor(children: { child: ChildProcess; lines: AsyncIterator<string> }[]) {
    this.#children = children;
  }

  /** Start them; resolves when all are reading. */
  static async start(mount: string, source: string, count = 4, seed = 1): Promise<CheckReaders> {
    const children = Array.from({ length: count }, (_, at) => {
      const script = join(repoRoot, 'test/support/check-reader.ts');
      const child = spawn(process.execPath, [script, mount, source, String(seed * 1000 + at)], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
    });
    for (const { lines } of children) await lines.next();
    return new CheckReaders(children);
  }

  /** Let them finish. @throws Error one hangs for longer than `patienceMs` */
  async finish(patienceMs = 20_000): Promise<ReaderReport> {
    const sum: ReaderReport = { reads: 0, wrong: 0, zeros: 0, errors: {}, longestMs: 0 };
    for (const { child } of this.#children) child.stdin?.end();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`a reader hangs for ${patienceMs} ms`)), patienceMs);
    });
    try {
      for (const { child, lines } of this.#children) {
        const { value } = await Promise.race([lines.next(), late]);
        const report = JSON.parse(value as string) as ReaderReport;
        sum.reads += report.reads;
        sum.wrong += report.wrong;
        sum.zeros += report.zeros;
        for (const [code, n] of Object.entries(report.errors)) sum.errors[code] = (sum.errors[code] ?? 0) + n;
        sum.longestMs = Math.max(sum.longestMs, report.longestMs);
        if (child.exitCode === null) await Promise.race([once(child, 'exit'), late]);
      }
    } finally {
      clearTimeout(timer);
      this.kill();
    }
    return sum;
  }

  kill(): void {
    for (const { child } of this.#children) child.kill('SIGKILL');
  }
}
