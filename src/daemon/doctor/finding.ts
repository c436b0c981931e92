// What `nydusd doctor` finds: one row per check, the same for the table and for JSON.
import { NydusError, messageOf } from '../../base/errors.ts';
import type { Scratch } from './scratch.ts';

/** `info` is neither good nor bad, `warn` works with a drawback, `fail` does not work here. */
export type Status = 'ok' | 'info' | 'warn' | 'fail';

/** Part of the machine a check is about, in the order of the table. */
export const GROUPS = ['host', 'drivers', 'cache', 'configuration'] as const;
export type Group = (typeof GROUPS)[number];

/** What one check saw. */
export interface Outcome {
  status: Status;
  detail: string;
  /** what to do about it */
  fix?: string | undefined;
}

/** One row. */
export interface Finding extends Outcome {
  /** stable name for scripts: `driver.fuse` */
  id: string;
  group: Group;
  /** name in the table */
  name: string;
  /** directory that the check is about */
  subject?: string;
  /** nothing can be served when this one fails */
  essential: boolean;
}

/** What a check works with. */
export interface CheckContext {
  /** aborted by the user, or when the check takes too long */
  signal: AbortSignal;
  /** cleaned up after the check, whatever happens */
  scratch: Scratch;
}

/** One thing to try. What it throws is a failure, with its hint as what to do. */
export interface Check extends Pick<Finding, 'id' | 'group' | 'name' | 'subject' | 'essential'> {
  /** milliseconds until it is given up */
  limitMs?: number;
  run: (context: CheckContext) => Promise<Outcome> | Outcome;
}

/** Everything that was seen. */
export interface Report {
  /** everything needed for serving works */
  ok: boolean;
  /** driver that is needed */
  driver: string;
  findings: readonly Finding[];
}

/** The errors below one, itself first. */
export function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = [];
  for (let at = error; at !== undefined && at !== null && !chain.includes(at);) {
    chain.push(at);
    at = at instanceof Error ? at.cause : undefined;
  }
  return chain;
}

/** Next step that an error knows of. */
export function hintOf(error: unknown): string | undefined {
  for (const at of chainOf(error)) if (at instanceof NydusError && at.hint !== undefined) return at.hint;
  return undefined;
}

/** A failure as an outcome. */
export function failureOf(error: unknown): Outcome {
  return { status: 'fail', detail: messageOf(error), fix: hintOf(error) };
}

/** Bytes for people: `12.3 GiB`. */
export function sizeText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  let value = bytes;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`;
}
