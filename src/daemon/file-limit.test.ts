import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { raiseFileLimit, type LimitCalls } from './file-limit.ts';

interface Case {
  title: string;
  wanted: number;
  fileMax?: number;
  soft?: number;
  hard?: number;
  /** setting the hard limit above the current one is not permitted */
  unprivileged?: boolean;
  set: [soft: number, hard: number][];
  log: string[];
}

const CASES: Case[] = [
  { title: 'leaves the limit alone for 0', wanted: 0, set: [], log: [] },
  {
    title: 'sets both limits to what is wanted',
    wanted: 1_000_000,
    set: [[1_000_000, 1_000_000]],
    log: ['info Set rlimit-nofile to 1000000, maximum 1000000'],
  },
  {
    title: 'keeps some files for the rest of the machine',
    wanted: 1_000_000,
    fileMax: 100_000,
    set: [[83_616, 83_616]],
    log: ['info Set rlimit-nofile to 83616, maximum 83616'],
  },
  {
    title: 'has no ceiling below the current limit',
    wanted: 1_000_000,
    fileMax: 40_000,
    soft: 30_000,
    hard: 30_000,
    set: [[30_000, 30_000]],
    log: ['info Set rlimit-nofile to 30000, maximum 30000'],
  },
  {
    title: 'warns of a tight machine',
    wanted: 1000,
    fileMax: 32_767,
    set: [],
    log: ['warn fs.file-max is 32767, too low (at least 32768): raise it with sysctl'],
  },
  {
    title: 'warns and goes on where it may not raise the limit',
    wanted: 1_000_000,
    unprivileged: true,
    set: [[4096, 4096]],
    log: [
      'warn cannot raise the limit of open files from 4096 to 1000000 (EPERM), going on with 4096: grant ' +
        "CAP_SYS_RESOURCE, raise the service's LimitNOFILE, or pass --rlimit-nofile 0",
    ],
  },
];

describe('raiseFileLimit', () => {
  for (const c of CASES) {
    it(`raiseFileLimit: ${c.title}`, () => {
      const set: [number, number][] = [];
      const log: string[] = [];
      const now = { soft: c.soft ?? 1024, hard: c.hard ?? 4096 };
      const calls: LimitCalls = {
        fileMax: () => c.fileMax ?? Number('9223372036854775807'),
        get: () => now,
        set: ({ soft, hard }) => {
          if (c.unprivileged === true && hard > now.hard) throw new Error('EPERM');
          set.push([soft, hard]);
        },
      };
      const logger = {
        ...silentLogger,
        info: (text: string) => void log.push(`info ${text}`),
        warn: (text: string) => void log.push(`warn ${text}`),
      };
      raiseFileLimit(c.wanted, logger, calls);
      assert.deepEqual(set, c.set);
      assert.deepEqual(log, c.log);
    });
  }
});
