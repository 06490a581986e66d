/**
 * What both threads of the driver agree on: the words of their shared memory, and limits.
 *
 * The main thread runs tenant code; the protocol thread (protocol.cjs) speaks with init. Who may
 * end a run is decided by one compare-and-swap on PHASE, so that an interrupt and the run's own
 * end never both happen.
 */

'use strict';

/** Words of the shared Int32Array. */
const PHASE = 0; // serial number of the run and its phase, see `word`
const QUEUED = 1; // bytes of frames that the protocol thread has been given and not yet sent
const ANSWERED = 2; // serial number of the last answered `input`
const WORDS = 4;

/** Phases of a run. */
const IDLE = 0;
const RUNNING = 1;
/** The main thread ends it. */
const ENDING = 2;
/** The protocol thread is terminating what the main thread executes; the run must not be touched. */
const TERMINATING = 3;
/** It has been terminated. The main thread may end it, or it is terminated once more. */
const STOPPED = 4;

/** Serial numbers count runs within the driver and wrap around. */
const SERIAL_MAX = (1 << 27) - 1;

/** Value of PHASE for a run in a phase. */
function word(serial, phase) {
    return (serial << 3) | phase | 0;
}

/** Longest frame of the protocol, in either direction. */
const FRAME_BYTES_MAX = 12 * 1024 * 1024;
/** Frames that wait for init to read them; a cell that displays more waits. */
const QUEUED_BYTES_MAX = 16 * 1024 * 1024;
/** Exit code of a driver that found itself broken. */
const EXIT_BROKEN = 70;

/** Names of cells in stack traces. What oxc made of a TypeScript cell has a name of its own, so
 * that positions in it are never taken for positions in the cell. */
function cellName(count, language) {
    return language === 'typescript' ? `cell-${count}.ts` : `cell-${count}.js`;
}
function scriptName(count, language) {
    return language === 'typescript' ? `cell-${count}.ts.js` : `cell-${count}.js`;
}

/** The global through which rewritten cells reach the driver. */
const HELPER = '__crownest';
/** The function that imports for cells: it has to lie in their directory, and is not theirs. */
const IMPORTER = '__crownest_import';

module.exports = {
    PHASE,
    QUEUED,
    ANSWERED,
    WORDS,
    IDLE,
    RUNNING,
    ENDING,
    TERMINATING,
    STOPPED,
    SERIAL_MAX,
    word,
    FRAME_BYTES_MAX,
    QUEUED_BYTES_MAX,
    EXIT_BROKEN,
    cellName,
    scriptName,
    HELPER,
    IMPORTER,
};
