import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { allowedCpus, bindThread } from './affinity.ts';
import { SystemError } from './libc.ts';

/** `0-1,4` of /proc as numbers. */
function cpuList(text: string): number[] {
  return text.split(',').flatMap((range) => {
    const [from = 0, to = from] = range.split('-').map(Number);
    return Array.from({ length: to - from + 1 }, (_, at) => from + at);
  });
}

function allowedBy(status: string): number[] {
  return cpuList(/^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync(status, 'utf8'))?.[1] ?? '');
}

test('allowedCpus: what the kernel says of this thread', () => {
  const cpus = allowedCpus();
  assert.deepEqual(cpus, allowedBy('/proc/thread-self/status'));
  assert.equal(cpus.length, availableParallelism());
});

test('bindThread: the calling thread alone stays on that CPU', async () => {
  const before = allowedCpus();
  const code = `
    const { parentPort } = require('node:worker_threads');
    const { readFileSync } = require('node:fs');
    import(${JSON.stringify(new URL('./affinity.ts', import.meta.url).href)}).then(({ allowedCpus, bindThread }) => {
      const cpu = allowedCpus().at(-1);
      bindThread(cpu);
      parentPort.postMessage({ cpu, now: allowedCpus(), status: readFileSync('/proc/thread-self/status', 'utf8') });
    });`;
  const worker = new Worker(code, { eval: true });
  const [message] = (await once(worker, 'message')) as [{ cpu: number; now: number[]; status: string }];
  assert.deepEqual(message.now, [message.cpu]);
  assert.match(message.status, new RegExp(`^Cpus_allowed_list:\\s*${message.cpu}$`, 'm'));
  assert.deepEqual(allowedCpus(), before);
});

test('bindThread: a CPU that does not exist is an error that names it', () => {
  assert.throws(
    () => bindThread(8000),
    (error) =>
      error instanceof SystemError &&
      error.code === 'EINVAL' &&
      /sched_setaffinity.*8000/.test(error.message),
  );
});
