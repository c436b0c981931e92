// Facts and limits of this process that node does not offer. Source: getrlimit(2), _exit(2).
import { check, libcFunction } from './libc.ts';

export const RLIMIT_NOFILE = 7;

type Rlimit = (resource: number, limit: Uint8Array) => number;
type Exit = (status: number) => void;

let getCall: Rlimit | undefined;
let setCall: Rlimit | undefined;
let exitCall: Exit | undefined;

/** Soft and hard limit of a resource; a limit that is not set is 2^53 - 1. */
export interface ResourceLimit {
  soft: number;
  hard: number;
}

function toNumber(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/** Read a resource limit. */
export function getResourceLimit(resource: number): ResourceLimit {
  getCall ??= libcFunction<Rlimit>('int getrlimit(int resource, void *rlim)');
  const limit = Buffer.alloc(16);
  check('getrlimit', getCall(resource, limit));
  return { soft: toNumber(limit.readBigUInt64LE(0)), hard: toNumber(limit.readBigUInt64LE(8)) };
}

/** Change a resource limit. SystemError EPERM when the hard limit may not be raised. */
export function setResourceLimit(resource: number, { soft, hard }: ResourceLimit): void {
  setCall ??= libcFunction<Rlimit>('int setrlimit(int resource, void *rlim)');
  const limit = Buffer.alloc(16);
  limit.writeBigUInt64LE(BigInt(soft), 0);
  limit.writeBigUInt64LE(BigInt(hard), 8);
  check('setrlimit', setCall(resource, limit));
}

/**
 * End the process at once: no exit handlers, nothing flushed. The way out while a worker thread sleeps in a system
 * call: process.exit() would wait for it for ever.
 */
export function exitNow(status: number): never {
  exitCall ??= libcFunction<Exit>('void _exit(int status)');
  exitCall(status);
  throw new Error('_exit returned');
}
