/**
 * Errors as init is told of them: name, message, lines without frames of the driver, and the line
 * in the cell. Works on text that the main thread has made of an error, which may say anything.
 */

'use strict';

const { stripVTControlCharacters } = require('node:util');
const { original } = require('./positions.cjs');
const { HELPER, IMPORTER } = require('./shared.cjs');

const NAME_CHARS_MAX = 200;
const MESSAGE_CHARS_MAX = 256 * 1024;
const TRACEBACK_CHARS_MAX = 1024 * 1024;
const LINE_CHARS_MAX = 4096;

const OURS = `${__dirname}/`;
const SCRIPT_POSITION = /\bcell-\d+(?:\.ts)?\.js:\d+:\d+/g;
const IS_FRAME = /^\s+at /;
/** V8's words for source that is a module's. Our parser knows better what is wrong. */
const ABOUT_MODULES =
    /import statement outside|import\.meta|token 'export'|token 'import'|await is only valid/;

/** The fields of an `error` event. `cell` is that of the run, or null; `cells` are those kept. */
function describe(failure, cell, cells) {
    const name = cut(plain(failure.name), NAME_CHARS_MAX);
    if (failure.early) return early(name, failure, cell);
    const message = cut(plain(failure.message), MESSAGE_CHARS_MAX);
    const place = (text) => located(text, cells);
    const line = cell === null ? undefined : lineIn(cell.name, place(plain(failure.stack)));
    const traceback = bounded(place(plain(failure.text)).split('\n').filter(isOfTheUser));
    return { name, message, traceback, ...(line === undefined ? {} : { line }) };
}

/** An error in the cell's text: nothing has run. */
function early(name, failure, cell) {
    let message = plain(failure.message);
    let { at } = failure;
    if (cell?.syntax && ABOUT_MODULES.test(message)) ({ message, at } = cell.syntax);
    else if (at !== null && !at.cell && cell !== null) at = original(cell.positions, at.line, at.column);
    message = cut(message, MESSAGE_CHARS_MAX);
    const title = message === '' ? name : `${name}: ${message}`;
    if (at === null || cell === null) return { name, message, traceback: bounded(title.split('\n')) };
    const source = cell.source.split('\n')[at.line - 1] ?? '';
    const mark = source.length > LINE_CHARS_MAX ? [] : [plain(source), `${' '.repeat(at.column)}^`];
    const traceback = [`${cell.name}:${at.line}`, ...mark, '', ...title.split('\n')];
    return { name, message, traceback: bounded(traceback), line: at.line };
}

/** V8 names a function without a name by the call that it is given to. */
const OUR_CALLS = new RegExp(`\\b${HELPER}\\.(?:value|guard|each)\\.?`, 'g');

/** Positions in scripts become positions in cells. */
function located(text, cells) {
    return text.replace(OUR_CALLS, '').replace(SCRIPT_POSITION, (position) => {
        const [script, line, column] = position.split(':');
        const cell = cells.get(script);
        if (cell === undefined) return position;
        const at = original(cell.positions, Number(line), Number(column) - 1);
        return `${cell.name}:${at.line}:${at.column + 1}`;
    });
}

/** The innermost frame that lies in the cell. */
function lineIn(name, stack) {
    const frame = stack.split('\n').find((one) => IS_FRAME.test(one) && one.includes(`${name}:`));
    const found = frame?.match(/:(\d+):\d+/g);
    if (found === null || found === undefined) return undefined;
    const at = frame.indexOf(`${name}:`) + name.length + 1;
    const line = Number.parseInt(frame.slice(at), 10);
    return Number.isSafeInteger(line) && line > 0 ? line : undefined;
}

/** Frames of the driver and of what Node does inside are nobody's business. */
function isOfTheUser(line) {
    if (!IS_FRAME.test(line)) return true;
    return (
        !line.includes(OURS) && !line.includes(IMPORTER) && !/\(?node:(?:internal\/|inspector:)/.test(line)
    );
}

function plain(text) {
    return stripVTControlCharacters(String(text)).replaceAll('\x1b', '');
}

function cut(text, limit) {
    if (text.length <= limit) return text;
    return `${text.slice(0, limit)}… (${text.length - limit} characters left out)`;
}

function bounded(lines) {
    const kept = [];
    let chars = 0;
    for (const line of lines) {
        const one = cut(line.replace(/\r$/, ''), LINE_CHARS_MAX);
        chars += one.length + 1;
        if (chars > TRACEBACK_CHARS_MAX) {
            kept.push(`… (${lines.length - kept.length} lines left out)`);
            break;
        }
        kept.push(one);
    }
    return kept;
}

module.exports = {
    describe,
};
