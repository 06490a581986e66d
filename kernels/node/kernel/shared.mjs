/**
 * What both threads of the driver agree on: the words of their shared memory, and limits.
 *
 * The main thread runs tenant code; the protocol thread (protocol.mjs) speaks with init. Who may
 * end a run is decided by one compare-and-swap on PHASE, so that an interrupt and the run's own
 * end never both happen.
 */

/** Words of the shared Int32Array. */
export const PHASE = 0; // serial number of the run and its phase, see `word`
export const QUEUED = 1; // bytes of frames that the protocol thread has been given and not yet sent
export const ANSWERED = 2; // serial number of the last answered `input`
export const WORDS = 4;

/** Phases of a run. */
export const IDLE = 0;
export const RUNNING = 1;
/** The main thread ends it. */
export const ENDING = 2;
/** The protocol thread is terminating what the main thread executes; the run must not be touched. */
export const TERMINATING = 3;
/** It has been terminated. The main thread may end it, or it is terminated once more. */
export const STOPPED = 4;

/** Serial numbers count runs within the driver and wrap around. */
export const SERIAL_MAX = (1 << 27) - 1;

/** Value of PHASE for a run in a phase. */
export function word(serial, phase) {
    return (serial << 3) | phase | 0;
}

/** Longest frame of the protocol, in either direction. */
export const FRAME_BYTES_MAX = 12 * 1024 * 1024;
/** Frames that wait for init to read them; a cell that displays more waits. */
export const QUEUED_BYTES_MAX = 16 * 1024 * 1024;
/** Exit code of a driver that found itself broken. */
export const EXIT_BROKEN = 70;

/** Names of cells in stack traces. What oxc made of a TypeScript cell has a name of its own, so
 * that positions in it are never taken for positions in the cell. */
export function cellName(count, language) {
    return language === 'typescript' ? `cell-${count}.ts` : `cell-${count}.js`;
}
export function scriptName(count, language) {
    return language === 'typescript' ? `cell-${count}.ts.js` : `cell-${count}.js`;
}

/** The global through which rewritten cells reach the driver. */
export const HELPER = '__crownest';
/** The function that imports for cells: it has to lie in their directory, and is not theirs. */
export const IMPORTER = '__crownest_import';
