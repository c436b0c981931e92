// `make bench`: ratios measured in one run against what a user could have instead. Needs root (mounts, page cache).
//   PEER=<folder>        (or --peer <folder>) adds upstream's nydusd and nydus-image of nydus 2.2.0
//   BENCH_ONLY=a,b       startup, memory, build, convert, check, first-read, serve, many-mounts, failover, cold-start, dedup, erofs
//   BENCH_ROUNDS=n       runs per figure (default 3; 1 is quick and noisy)
//   BENCH_DIR=<folder>   trees and images, about 6 GB, kept (default /var/tmp/nydus-bench)
//   BENCH_WRITE=1        puts the result into docs/measured.md
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { unmountBelow } from '../test/support/temporary.ts';
import { benchBuild } from './build/build.ts';
import { benchColdStart } from './cold-start/cold-start.ts';
import { benchCheck } from './check/check.ts';
import { benchErofs } from './erofs/erofs.ts';
import { benchDedup } from './dedup/dedup.ts';
import { benchConvert } from './convert/convert.ts';
import { benchFailover } from './failover/failover.ts';
import { benchFirstRead } from './first-read/first-read.ts';
import { benchManyMounts } from './many-mounts/many-mounts.ts';
import { benchMemory } from './memory/memory.ts';
import { benchServe } from './serve/serve.ts';
import { benchStartup } from './startup/startup.ts';
import type { BenchContext, Line } from './support/context.ts';
import { formatMarkdown, formatText, origin } from './support/report.ts';

const SUITES: Record<string, (context: BenchContext) => Promise<Line[]>> = {
  startup: benchStartup,
  memory: benchMemory,
  build: benchBuild,
  check: benchCheck,
  convert: benchConvert,
  'first-read': benchFirstRead,
  serve: benchServe,
  erofs: benchErofs,
  'many-mounts': benchManyMounts,
  failover: benchFailover,
  'cold-start': benchColdStart,
  dedup: benchDedup,
};

const START = '<!-- bench: written by bench/run.ts, do not edit -->';
const END = '<!-- bench: end -->';

function store(repo: string, markdown: string): void {
  const path = join(repo, 'docs/measured.md');
  const text = existsSync(path) ? readFileSync(path, 'utf8') : `# Measured\n\n${START}\n${END}\n`;
  const [from, to] = [text.indexOf(START), text.indexOf(END)];
  if (from < 0 || to < from) throw new Error(`${path} has no place between "${START}" and "${END}"`);
  writeFileSync(path, `${text.slice(0, from + START.length)}\n\n${markdown}\n\n${text.slice(to)}`);
}

async function main(): Promise<number> {
  const repo = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
  if (process.getuid?.() !== 0) {
    process.stderr.write('make bench mounts file systems and drops the page cache: run it as root\n');
    return 1;
  }
  if (existsSync(join(repo, 'bin/nydusd'))) process.env['NYDUS_BIN'] ??= join(repo, 'bin');
  const dir = resolve(process.env['BENCH_DIR'] ?? '/var/tmp/nydus-bench');
  const { values } = parseArgs({ options: { peer: { type: 'string' } } });
  const peer = values.peer ?? process.env['PEER'];
  const context: BenchContext = {
    dir,
    peer: peer === undefined || peer === '' ? undefined : resolve(peer),
    rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
    note: (text) => process.stderr.write(`· ${text}\n`),
  };
  if (context.peer !== undefined && !existsSync(join(context.peer, 'nydusd'))) {
    process.stderr.write(`PEER=${context.peer} has no nydusd; see docs/measured.md for how to install it\n`);
    return 1;
  }
  unmountBelow(dir);
  rmSync(join(dir, 'work'), { recursive: true, force: true });
  mkdirSync(join(dir, 'work'), { recursive: true });
  const clean = (): void => {
    unmountBelow(dir);
    rmSync(join(dir, 'work'), { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      clean();
      process.exit(130);
    });
  }
  const only = process.env['BENCH_ONLY']?.split(',') ?? Object.keys(SUITES);
  const lines: Line[] = [];
  let failed = 0;
  for (const name of only) {
    const suite = SUITES[name];
    if (suite === undefined)
      throw new Error(`BENCH_ONLY knows ${Object.keys(SUITES).join(', ')}, not ${name}`);
    try {
      lines.push(...(await suite(context)));
    } catch (error) {
      failed++;
      process.stderr.write(
        `${name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
      );
    }
    clean();
    mkdirSync(join(dir, 'work'), { recursive: true });
  }
  const from = origin(repo, context.rounds, context.peer);
  process.stdout.write(
    `${from.machine}\nNode ${from.node}, commit ${from.commit}, peer: ${from.peer}\n${formatText(lines)}\n`,
  );
  mkdirSync(join(repo, 'build'), { recursive: true });
  writeFileSync(join(repo, 'build/bench.json'), `${JSON.stringify({ from, lines }, undefined, 1)}\n`);
  if (process.env['BENCH_WRITE'] === '1' && failed === 0) store(repo, formatMarkdown(lines, from));
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
