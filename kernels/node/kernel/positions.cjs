/**
 * From a position in the script that V8 ran back to one in the cell. Used by both threads; on the
 * main thread what follows must not depend on methods that a cell can replace.
 *
 * `positions` is `{ shifts, segments }`:
 * `shifts` – flat [line, column, removed, inserted]*, the edits of edits.cjs in order, or null;
 * `segments` – flat [line, column, source line, source column]* of a source map in order, or null.
 * Lines count from 1, columns from 0.
 */

'use strict';

/** `{ line, column }` in the cell. */
function original(positions, line, column) {
    const unshifted = unshift(positions.shifts, line, column);
    return mapped(positions.segments, line, unshifted);
}

function unshift(shifts, line, column) {
    if (shifts === null) return column;
    let moved = 0;
    for (let i = 0; i < shifts.length; i += 4) {
        if (shifts[i] !== line) {
            if (shifts[i] > line) break;
            continue;
        }
        const start = shifts[i + 1] + moved;
        if (column < start) break;
        if (column < start + shifts[i + 3]) return shifts[i + 1];
        moved += shifts[i + 3] - shifts[i + 2];
    }
    return column - moved;
}

function mapped(segments, line, column) {
    if (segments === null || segments.length === 0) return { line, column };
    let low = 0;
    let high = segments.length / 4;
    while (low < high) {
        const middle = (low + high) >> 1;
        const at = middle * 4;
        if (segments[at] < line || (segments[at] === line && segments[at + 1] <= column)) low = middle + 1;
        else high = middle;
    }
    // Code that has no source of its own belongs to what stands before it.
    const at = low === 0 ? 0 : (low - 1) * 4;
    return { line: segments[at + 2], column: segments[at + 3] };
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const VALUES = new Uint8Array(128);
for (let i = 0; i < DIGITS.length; i++) VALUES[DIGITS.charCodeAt(i)] = i;

/** The `mappings` of a source map (version 3, one source) as segments. Protocol thread only. */
function decodeMappings(mappings) {
    const segments = [];
    const state = [0, 0, 0, 0]; // generated column, source, source line, source column
    let [line, field, value, shift] = [1, 0, 0, 0];
    const endSegment = () => {
        if (field >= 4) segments.push(line, state[0], state[2] + 1, state[3]);
        field = 0;
    };
    for (let i = 0; i < mappings.length; i++) {
        const character = mappings[i];
        if (character === ',' || character === ';') {
            endSegment();
            if (character === ';') {
                line += 1;
                state[0] = 0;
            }
            continue;
        }
        const digit = VALUES[mappings.charCodeAt(i)];
        value |= (digit & 31) << shift;
        shift += 5;
        if (digit & 32) continue;
        if (field < 4) state[field] += value & 1 ? -(value >> 1) : value >> 1;
        field += 1;
        value = shift = 0;
    }
    endSegment();
    return Int32Array.from(segments);
}

module.exports = {
    original,
    decodeMappings,
};
