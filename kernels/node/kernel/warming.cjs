/**
 * What the protocol thread does while nobody wants anything: it loads what a first cell need not have
 * waited for, and sends cells for nobody through both threads, so that those for somebody find
 * everything loaded and compiled.
 *
 * Cells for nobody run only before `start`, so never beside code of a tenant. They leave nothing: a
 * Preparer of their own has their names, and the main thread (`Kernel.warm`) sends nothing of them.
 */

'use strict';

const { Preparer } = require('./preparer.cjs');

/** For how long no frame must have come. */
const QUIET_MS = 50;
/** Cells for nobody; none declares anything, for that would stay. V8 begins to compile what has been called some tens of times. */
const CELLS_MAX = 60;
const CELLS = [
    ['javascript', '1 + 1'],
    ['typescript', '(1 as number) + 1'],
    ['javascript', '({ a: [1, "b"] })'],
];

class Warming {
    #preparer;
    #port;
    #pieces = [];
    /** Fires when no frame has come for a while. */
    #quiet = null;
    #isQuiet = false;
    #started = false;
    #sent = 0;
    /** Prepares the cells for nobody. */
    #own = null;

    constructor(preparer, port) {
        this.#preparer = preparer;
        this.#port = port;
    }

    /** The driver is ready. A context for TypeScript loads its compiler at once. */
    begin(isForTypeScript) {
        this.#pieces = this.#preparer.piecesLeft();
        if (isForTypeScript) this.#pieces.shift()();
        this.#pieces.push(() => this.#sendCells());
        this.#quiet = setTimeout(() => {
            this.#isQuiet = true;
            this.#next();
        }, QUIET_MS).unref();
    }

    /** A frame goes before what is left of all this. */
    frameCame(op) {
        if (op === 'start') this.#started = true;
        this.#isQuiet = false;
        if (this.#pieces.length > 0) this.#quiet?.refresh();
    }

    #next() {
        const piece = this.#isQuiet ? this.#pieces.shift() : undefined;
        if (piece !== undefined) Promise.resolve(piece()).then(() => setImmediate(() => this.#next()));
    }

    #sendCells() {
        this.#own = new Preparer(this.#preparer);
        this.cellEnded();
    }

    /** The main thread has run a cell for nobody. */
    cellEnded() {
        if (this.#started || this.#own === null || this.#sent === CELLS_MAX) {
            this.#own = null;
            return;
        }
        const [language, source] = CELLS[this.#sent % CELLS.length];
        this.#sent += 1;
        const cell = this.#own.prepare(source, language, 0, 0);
        if (cell instanceof Promise) return; // There is no compiler.
        this.#port.postMessage({ op: 'warm', ...cell.order });
    }
}

module.exports = { Warming };
