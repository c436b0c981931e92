import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DaemonError } from './api-error.ts';
import { StateMachine, type DaemonEvent, type StateActions } from './state-machine.ts';

const EVENTS: DaemonEvent[] = ['Mount', 'Start', 'Stop', 'Exit', 'Takeover'];

function machine(fail?: keyof StateActions): { machine: StateMachine; done: string[] } {
  const done: string[] = [];
  const act = (name: keyof StateActions) => async (): Promise<void> => {
    if (name === fail) throw new Error(`${name} failed`);
    done.push(name);
  };
  const actions: StateActions = {
    restore: act('restore'),
    startService: act('startService'),
    stopService: act('stopService'),
    unmount: act('unmount'),
  };
  return { machine: new StateMachine(actions), done };
}

/** Events that bring a fresh machine to a position. */
const TO: Record<string, DaemonEvent[]> = {
  Init: [],
  Ready: ['Mount'],
  Running: ['Mount', 'Start'],
  Die: ['Stop'],
};

// position, event -> visible state and actions; everything else is refused (nydusd.md 4)
const TABLE: [position: string, event: DaemonEvent, visible: string, actions: string[]][] = [
  ['Init', 'Mount', 'INIT', []],
  ['Init', 'Takeover', 'READY', ['restore']],
  ['Init', 'Stop', 'STOPPED', []],
  ['Ready', 'Start', 'RUNNING', ['startService']],
  ['Ready', 'Stop', 'STOPPED', ['unmount']],
  ['Ready', 'Exit', 'STOPPED', []],
  ['Running', 'Stop', 'READY', ['stopService']],
];

describe('StateMachine', () => {
  for (const position of Object.keys(TO)) {
    for (const event of EVENTS) {
      const row = TABLE.find((r) => r[0] === position && r[1] === event);
      it(`StateMachine: ${event} in ${position} ${row === undefined ? 'is refused' : `gives ${row[2]}`}`, async () => {
        const { machine: m, done } = machine();
        for (const before of TO[position] ?? []) await m.on(before);
        done.length = 0;
        const visible = m.visible;
        if (row !== undefined) {
          await m.on(event);
          assert.equal(m.visible, row[2]);
          assert.deepEqual(done, row[3]);
          return;
        }
        await assert.rejects(m.on(event), (error: DaemonError) => {
          assert.equal(error.rendering, `UnexpectedEvent("${event}")`);
          assert.equal(error.status, 400);
          return true;
        });
        assert.equal(m.visible, visible);
        assert.deepEqual(done, []);
      });
    }
  }

  it('StateMachine: a failed action advances the position but not the visible state', async () => {
    const { machine: m } = machine('restore');
    await assert.rejects(m.on('Takeover'), /restore failed/);
    assert.equal(m.visible, 'INIT');
    await assert.rejects(m.on('Takeover'), DaemonError);
    await m.on('Start');
    assert.equal(m.visible, 'RUNNING');
  });

  it('StateMachine: Start shows RUNNING even when it fails', async () => {
    const { machine: m } = machine('startService');
    await m.on('Mount');
    await assert.rejects(m.on('Start'), /startService failed/);
    assert.equal(m.visible, 'RUNNING');
  });

  it('StateMachine: shutdown unmounts from every position that has a mount', async () => {
    for (const [position, expected] of [
      ['Init', []],
      ['Ready', ['unmount']],
      ['Running', ['stopService', 'unmount']],
      ['Die', []],
    ] as const) {
      const { machine: m, done } = machine();
      for (const before of TO[position] ?? []) await m.on(before);
      done.length = 0;
      await m.shutdown();
      assert.equal(m.visible, 'STOPPED');
      assert.deepEqual(done, expected, position);
    }
  });

  it('StateMachine: exit never unmounts', async () => {
    for (const [position, expected] of [
      ['Init', []],
      ['Ready', []],
      ['Running', ['stopService']],
      ['Die', []],
    ] as const) {
      const { machine: m, done } = machine();
      for (const before of TO[position] ?? []) await m.on(before);
      done.length = 0;
      await m.exit();
      assert.equal(m.visible, 'STOPPED');
      assert.deepEqual(done, expected, position);
    }
  });
});
