/**
 * Interrupts, as the protocol thread does them.
 *
 * A main thread that waits (for a timer, a socket, a promise) reads the message `interrupt` and
 * ends its run by itself. One that computes does not: after a short grace V8 is told to terminate
 * what it executes. That has to come through an inspector session of this thread; it is connected
 * only then, since Node waits for such a session when the process exits.
 */

import { Session } from 'node:inspector';
import { PHASE, RUNNING, TERMINATING, word } from './shared.mjs';

/** How long the main thread may take to read a message before it counts as busy. */
const BUSY_MS = 20;

export class Interrupter {
  #port;
  #words;
  #session = null;

  constructor(port, words) {
    this.#port = port;
    this.#words = words;
  }

  /** Ends a run that the main thread has been given. */
  interrupt(run) {
    this.#port.postMessage({ op: 'interrupt', serial: run.serial });
    if (run.terminates === undefined) {
      run.terminates = setTimeout(() => this.#terminate(run), BUSY_MS);
    }
  }

  #terminate(run) {
    const { serial } = run;
    const running = word(serial, RUNNING);
    if (Atomics.compareExchange(this.#words, PHASE, running, word(serial, TERMINATING)) !== running) {
      return; // It has ended, or is ending itself.
    }
    this.#session = new Session();
    this.#session.connectToMainThread();
    this.#session.post('Runtime.terminateExecution', () => {
      // What was executed is gone and V8 executes again.
      this.#session.disconnect();
      this.#session = null;
      this.#port.postMessage({ op: 'stopped', ...run.order });
    });
    // A termination holds for the next code that runs, should nothing run now: this is it.
    this.#port.postMessage({ op: 'poke' });
  }
}
