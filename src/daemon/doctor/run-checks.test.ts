import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { UsageError } from '../../base/errors.ts';
import type { Check, CheckContext } from './finding.ts';
import { runChecks, within } from './run-checks.ts';

const never = new AbortController().signal;

function check(run: Check['run'], more: Partial<Check> = {}): Check {
  return { id: 'a.b', group: 'host', name: 'b', essential: true, run, ...more };
}

/** A check that makes a directory and then waits until it is told to stop. */
function hanging(seen: { dir?: string; cleaned?: boolean }, started = (): void => {}): Check['run'] {
  return async ({ scratch, signal }: CheckContext) => {
    seen.dir = scratch.directory();
    started();
    try {
      return await within(new Promise<never>(() => {}), signal);
    } finally {
      seen.cleaned = true;
    }
  };
}

test('runChecks: a failure is a finding with its hint, and the next check runs', async () => {
  const failing = check(() => {
    throw new UsageError('no such thing', { hint: 'make one' });
  });
  const fine = check(async () => ({ status: 'ok', detail: 'there' }), { subject: '/d', essential: false });
  assert.deepEqual(await runChecks([failing, fine], never), [
    {
      id: 'a.b',
      group: 'host',
      name: 'b',
      status: 'fail',
      essential: true,
      detail: 'no such thing',
      fix: 'make one',
    },
    { id: 'a.b', group: 'host', name: 'b', subject: '/d', status: 'ok', essential: false, detail: 'there' },
  ]);
});

test('runChecks: a check that hangs is given up, and what it made is gone', async () => {
  const seen: { dir?: string; cleaned?: boolean } = {};
  const [found] = await runChecks([check(hanging(seen), { limitMs: 50 })], never);
  assert.equal(found?.status, 'fail');
  assert.equal(found.detail, 'no result within 0.05 s');
  assert.equal(seen.cleaned, true);
  assert.equal(existsSync(seen.dir ?? '/'), false);
});

test('runChecks: a signal ends the run after what was made is gone', async () => {
  const seen: { dir?: string; cleaned?: boolean } = {};
  const stop = new AbortController();
  const reason = new Error('stopped by SIGINT');
  const ran: string[] = [];
  const next = check(() => {
    ran.push('next');
    return { status: 'ok', detail: '' };
  });
  const running = runChecks([check(hanging(seen, () => stop.abort(reason))), next], stop.signal);
  await assert.rejects(running, reason);
  assert.equal(seen.cleaned, true);
  assert.equal(existsSync(seen.dir ?? '/'), false);
  assert.deepEqual(ran, []);
});
