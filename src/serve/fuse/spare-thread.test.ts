import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { dropSpareWorker, startSpareWorker, takeWorker } from './spare-thread.ts';

test('takeWorker: the spare one first, then new ones', async () => {
  startSpareWorker();
  startSpareWorker();
  const first = takeWorker();
  const second = takeWorker();
  assert.notEqual(first, second);
  const ended = Promise.all([once(first, 'exit'), once(second, 'exit')]);
  await Promise.all([first.terminate(), second.terminate()]);
  await ended;
});

test('dropSpareWorker: it ends, and there is none to take', async () => {
  startSpareWorker();
  await dropSpareWorker();
  await dropSpareWorker();
  const worker = takeWorker();
  const ended = once(worker, 'exit');
  await worker.terminate();
  await ended;
});

test('startSpareWorker: the process ends without waiting for it', () => {
  const code = `const { startSpareWorker } = await import(${JSON.stringify(new URL('./spare-thread.ts', import.meta.url).href)});
    startSpareWorker(); console.log('done');`;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    timeout: 20_000,
  });
  assert.deepEqual({ status, stdout }, { status: 0, stdout: 'done\n' });
});
