import assert from 'node:assert/strict';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { tempDir } from '../../../test/support/golden.ts';
import { Supervisor } from '../../../test/support/supervisor.ts';
import { receiveState, sendState } from './supervisor.ts';

describe('sendState and receiveState', () => {
  it('hand bytes over in any size, with one open file', async (t) => {
    const supervisor = new Supervisor(join(tempDir(t), 'sup.sock'));
    t.after(() => supervisor.close());
    const file = openSync('/proc/self/exe', 'r');
    const bytes = Buffer.alloc(1_000_000, 'state ');
    const receiving = supervisor.receive();
    await sendState(supervisor.path, bytes, file);
    await receiving;
    assert.ok(supervisor.state?.equals(bytes));
    const sending = supervisor.send();
    const received = await receiveState(supervisor.path);
    await sending;
    assert.ok(received.bytes.equals(bytes));
    assert.equal(fstatSync(received.fd).ino, fstatSync(file).ino);
    closeSync(received.fd);
    closeSync(file);
  });

  it('say what is wrong when nobody listens, and when no descriptor comes', async (t) => {
    const path = join(tempDir(t), 'sup.sock');
    await assert.rejects(receiveState(path), /cannot reach the supervisor at .*: ENOENT: connect/);
    const supervisor = new Supervisor(path);
    t.after(() => supervisor.close());
    const sending = supervisor.sendBytes(readFileSync('/proc/self/comm'), []);
    await assert.rejects(receiveState(path), /the supervisor sent no descriptor/);
    await sending;
  });
});
