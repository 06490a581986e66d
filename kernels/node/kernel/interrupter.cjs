/**
 * Interrupts, as the protocol thread does them.
 *
 * A main thread that waits (for a timer, a socket, a promise) reads the message `interrupt` and
 * ends its run by itself. One that computes does not: after a short grace V8 is told to terminate
 * what it executes. That has to come through an inspector session of this thread; it is connected
 * only then, since Node waits for such a session when the process exits.
 */

'use strict';

const { Session } = require('node:inspector');
const { PHASE, RUNNING, STOPPED, TERMINATING, word } = require('./shared.cjs');

/** How long the main thread may take to read a message before it counts as busy. */
const BUSY_MS = 20;
/** Terminations of one run: code that Node takes up again may need several. Init kills after that. */
const TERMINATIONS_MAX = 50;

class Interrupter {
    #port;
    #words;

    constructor(port, words) {
        this.#port = port;
        this.#words = words;
    }

    /** Ends a run that the main thread has been given. */
    interrupt(run) {
        this.#port.postMessage({ op: 'interrupt', serial: run.serial });
        if (run.terminations !== undefined) return;
        run.terminations = 0;
        setTimeout(() => this.#terminate(run, RUNNING), BUSY_MS);
    }

    /** Unless the run is no longer in `phase`: then it has ended, or is ending itself. */
    #terminate(run, phase) {
        const { serial } = run;
        if (!this.#change(serial, phase, TERMINATING)) return;
        const session = new Session();
        session.connectToMainThread();
        session.post('Runtime.terminateExecution', () => {
            // What was executed is gone and V8 executes again.
            session.disconnect();
            this.#change(serial, TERMINATING, STOPPED);
            this.#port.postMessage({ op: 'stopped', ...run.order });
            run.terminations += 1;
            if (run.terminations < TERMINATIONS_MAX) setTimeout(() => this.#terminate(run, STOPPED), BUSY_MS);
        });
        // A termination holds for the next code that runs, should nothing run now: this is it.
        this.#port.postMessage({ op: 'poke' });
    }

    #change(serial, from, to) {
        const expected = word(serial, from);
        return Atomics.compareExchange(this.#words, PHASE, expected, word(serial, to)) === expected;
    }
}

module.exports = {
    Interrupter,
};
