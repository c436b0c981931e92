// States of a daemon and the events that move it. The internal position advances even when the action of a transition
// fails; the state clients see changes on success only, but for Start. Source: nydusd.md 4.
import { DaemonError } from './api-error.ts';

export type DaemonEvent = 'Mount' | 'Start' | 'Stop' | 'Exit' | 'Takeover';

/** What clients see. nydusd never reports the other names of the API document. */
export type DaemonState = 'INIT' | 'READY' | 'RUNNING' | 'STOPPED';

type Position = 'Init' | 'Ready' | 'Running' | 'Die';
type Action = 'none' | 'restore' | 'startService' | 'stopService' | 'unmount' | 'leave';

interface Transition {
  to: Position;
  action: Action;
  /** null: visible state stays as it is */
  visible: DaemonState | null;
}

const TRANSITIONS: Record<Position, Partial<Record<DaemonEvent, Transition>>> = {
  Init: {
    Mount: { to: 'Ready', action: 'none', visible: null },
    Takeover: { to: 'Ready', action: 'restore', visible: 'READY' },
    Stop: { to: 'Die', action: 'leave', visible: 'STOPPED' },
  },
  Ready: {
    Start: { to: 'Running', action: 'startService', visible: 'RUNNING' },
    Stop: { to: 'Die', action: 'unmount', visible: 'STOPPED' },
    Exit: { to: 'Die', action: 'leave', visible: 'STOPPED' },
  },
  Running: { Stop: { to: 'Ready', action: 'stopService', visible: 'READY' } },
  Die: {},
};

/** What the machine makes happen. Each may fail; the position has advanced by then. */
export interface StateActions {
  /** take state and device over from a supervisor */
  restore(): Promise<void>;
  /** spawn the workers */
  startService(): Promise<void>;
  /** stop the workers and wait for them; the mount stays */
  stopService(): Promise<void>;
  /** stop everything and unmount */
  unmount(): Promise<void>;
}

export class StateMachine {
  #position: Position = 'Init';
  #visible: DaemonState = 'INIT';
  readonly #actions: StateActions;
  readonly #onChange: (from: string, to: string, event: DaemonEvent) => void;

  constructor(
    actions: StateActions,
    onChange: (from: string, to: string, event: DaemonEvent) => void = () => {},
  ) {
    this.#actions = actions;
    this.#onChange = onChange;
  }

  /** The state that clients see. */
  get visible(): DaemonState {
    return this.#visible;
  }

  /**
   * Feed one event and wait for its action.
   *
   * @throws DaemonError `UnexpectedEvent` when the event does not fit the position; what the action throws
   */
  async on(event: DaemonEvent): Promise<void> {
    const from = this.#position;
    const transition = TRANSITIONS[from][event];
    if (transition === undefined) throw DaemonError.unexpectedEvent(event);
    this.#position = transition.to;
    this.#onChange(from, transition.to, event);
    if (event === 'Start') this.#visible = 'RUNNING';
    await this.#act(transition.action);
    if (transition.visible !== null) this.#visible = transition.visible;
  }

  async #act(action: Action): Promise<void> {
    switch (action) {
      case 'restore':
        return this.#actions.restore();
      case 'startService':
        return this.#actions.startService();
      case 'stopService':
        return this.#actions.stopService();
      case 'unmount':
        return this.#actions.unmount();
      case 'none':
      case 'leave':
        return undefined;
    }
  }

  /** Composite of SIGTERM: Stop, twice when RUNNING, so that the filesystem is unmounted. */
  async shutdown(): Promise<void> {
    if (this.#position === 'Running') await this.on('Stop');
    if (this.#position !== 'Die') await this.on('Stop');
  }

  /** Composite of the exit request: nothing is unmounted. */
  async exit(): Promise<void> {
    if (this.#position === 'Die') return;
    if (this.#position === 'Running') await this.on('Stop');
    await this.on(this.#position === 'Init' ? 'Stop' : 'Exit');
  }
}
