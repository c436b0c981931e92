import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** Nice values of a process of its own, as JSON: this one's threads go on with other tests. */
function inProcess(code: string): unknown {
  const module = JSON.stringify(new URL('./thread-priority.ts', import.meta.url).href);
  const setup = `
    const { raiseMainThread, withUsualPriority } = await import(${module});
    const { execFileSync } = await import('node:child_process');
    const { Worker } = await import('node:worker_threads');
    const { getPriority, setPriority } = await import('node:os');
    const ofWorker = (worker) => new Promise((resolve) => worker.once('message', resolve));
    const module = (name) => \`process.getBuiltinModule('\${name}')\`;
    const source = \`\${module('worker_threads')}.parentPort.postMessage(\${module('os')}.getPriority(0))\`;
    const startWorker = () => new Worker(source, { eval: true });`;
  const { stdout, stderr, status } = spawnSync(process.execPath, [
    '--input-type=module',
    '-e',
    `${setup}\n${code}`,
  ]);
  assert.equal(status, 0, stderr.toString());
  return JSON.parse(stdout.toString());
}

test('raiseMainThread: this thread alone, where it may; workers started by withUsualPriority are as before', () => {
  const [before, may, raised, worker, after] = inProcess(`
    const before = getPriority(0);
    let may = true;
    try { setPriority(0, -20); setPriority(0, before); } catch { may = false; }
    raiseMainThread();
    raiseMainThread();
    const raised = getPriority(0);
    const worker = await ofWorker(withUsualPriority(startWorker));
    console.log(JSON.stringify([before, may, raised, worker, getPriority(0)]));`) as [
    number,
    boolean,
    number,
    number,
    number,
  ];
  assert.equal(raised, may ? -20 : before);
  assert.deepEqual([worker, after], [before, raised]);
});

test('withUsualPriority: without raiseMainThread it only calls, and an error comes through', () => {
  const result = inProcess(`
    let message = '';
    try { withUsualPriority(() => { throw new Error('not started'); }); } catch (error) { message = error.message; }
    console.log(JSON.stringify([withUsualPriority(() => 7), message]));`);
  assert.deepEqual(result, [7, 'not started']);
});
