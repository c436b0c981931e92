// Runs checks one after another: each with a limit of time, each cleaned up after, a failure of one no failure of the others.
import { UsageError } from '../../base/errors.ts';
import { failureOf, type Check, type Finding, type Outcome } from './finding.ts';
import { Scratch } from './scratch.ts';

const LIMIT_MS = 20_000;
/** What a check that was told to stop may need to clean up. */
const GRACE_MS = 5000;

/** Wait for something, but no longer than until the signal. The work itself goes on. */
export function within<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason as Error);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    const done = (): void => signal.removeEventListener('abort', stop);
    work.then(
      (value) => (done(), resolve(value)),
      (error: unknown) => (done(), reject(error as Error)),
    );
  });
}

async function runOne(check: Check, signal: AbortSignal): Promise<Outcome> {
  const { limitMs = LIMIT_MS } = check;
  const scratch = new Scratch();
  const late = new AbortController();
  const problem = new UsageError(`no result within ${limitMs / 1000} s`, {
    hint: 'look into the log of the kernel (dmesg), and at what else uses this directory',
  });
  const timer = setTimeout(() => late.abort(problem), limitMs);
  const limit = AbortSignal.any([signal, late.signal]);
  const work = (async () => check.run({ signal: limit, scratch }))();
  try {
    return await within(work, limit);
  } catch (error) {
    signal.throwIfAborted();
    return failureOf(error);
  } finally {
    clearTimeout(timer);
    if (limit.aborted) {
      // its own cleaning up is better than ours
      const patience = Promise.withResolvers<void>();
      const end = setTimeout(patience.resolve, GRACE_MS);
      await Promise.race([work.catch(() => {}), patience.promise]);
      clearTimeout(end);
    }
    scratch.dispose();
  }
}

/**
 * Run checks.
 *
 * @throws the reason of `signal` when that was aborted; everything is cleaned up then
 */
export async function runChecks(checks: readonly Check[], signal: AbortSignal): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const check of checks) {
    signal.throwIfAborted();
    const { id, group, name, subject, essential } = check;
    const { status, detail, fix } = await runOne(check, signal);
    findings.push({
      id,
      group,
      name,
      ...(subject === undefined ? {} : { subject }),
      status,
      essential,
      detail,
      ...(fix === undefined ? {} : { fix }),
    });
  }
  return findings;
}
