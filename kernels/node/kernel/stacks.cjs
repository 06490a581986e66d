/**
 * Stack traces as cells see them: without the driver below the cell, and with positions in
 * TypeScript cells instead of in what was compiled from them. V8 asks when a stack is looked at.
 */

'use strict';

const i = require('./intrinsics.cjs');
const { original } = require('./positions.cjs');
const { IMPORTER } = require('./shared.cjs');

/** Cells whose positions are kept. */
const CELLS_KEPT_MAX = 512;
const callSiteToString = siteMethod('toString');

/** Script name → { name, positions }. */
const cells = i.create(null);
/** Their script names, the next to go at `oldest`. */
const kept = [];
let oldest = 0;
const OURS = `${__dirname}/`;

/** Runs before any cell: methods of call sites are on no prototype that could be asked otherwise. */
function siteMethod(name) {
    const before = Error.prepareStackTrace;
    Error.prepareStackTrace = (_error, sites) => sites;
    const [site] = new Error().stack;
    Error.prepareStackTrace = before;
    return i.uncurry(i.getPrototypeOf(site)[name]);
}

/** A TypeScript cell is about to run. */
function remember(script, name, positions) {
    cells[script] = { __proto__: null, name, positions };
    if (kept.length < CELLS_KEPT_MAX) {
        i.append(kept, script);
        return;
    }
    delete cells[kept[oldest]];
    kept[oldest] = script;
    oldest = (oldest + 1) % CELLS_KEPT_MAX;
}

/** Before any cell; one may put something else there, as libraries do. */
function install() {
    Error.prepareStackTrace = function prepareStackTrace(error, sites) {
        let text;
        try {
            text = i.errorToString(error);
        } catch {
            text = 'Error';
        }
        for (let index = 0; index < sites.length; index++) {
            const frame = callSiteToString(sites[index]);
            if (i.stringIndexOf(frame, OURS) !== -1 || i.stringIndexOf(frame, IMPORTER) !== -1) continue;
            if (i.stringIndexOf(frame, 'Session.post (node:inspector') !== -1) break;
            text += `\n    at ${located(frame)}`;
        }
        return text;
    };
}

/** `f (cell-3.ts.js:5:7)` with its position in the cell. */
function located(frame) {
    const mark = i.stringIndexOf(frame, '.ts.js:');
    if (mark === -1) return frame;
    const start = i.stringLastIndexOf(frame, 'cell-', mark);
    const end = mark + '.ts.js'.length;
    const cell = start === -1 ? undefined : cells[i.stringSlice(frame, start, end)];
    if (cell === undefined) return frame;
    const line = number(frame, end + 1);
    const column = number(frame, line.end + 1);
    if (line.value === 0 || column.value === 0) return frame;
    const at = original(cell.positions, line.value, column.value - 1);
    return `${i.stringSlice(frame, 0, start)}${cell.name}:${at.line}:${at.column + 1}${i.stringSlice(frame, column.end)}`;
}

function number(text, from) {
    let value = 0;
    let end = from;
    for (; end < text.length; end++) {
        const digit = i.stringCharCodeAt(text, end) - 48;
        if (digit < 0 || digit > 9) break;
        value = value * 10 + digit;
    }
    return { value, end };
}

module.exports = {
    remember,
    install,
};
