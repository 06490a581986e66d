/**
 * Shell lines: `!npm install x` at the start of a line, for a cell that is no JavaScript otherwise.
 */

'use strict';

const { accessSync, constants } = require('node:fs');
const { HELPER } = require('./shared.cjs');
const { parse } = require('./syntax.cjs');

const LINE = /^!\s*((?:[\w@%+:,.~-]*\/)*[\w@%+:,.~-]+)(?:\s.*)?$/;

/**
 * `{ source, words }`: the cell with its shell lines as calls, and the programs that begin those
 * which could be JavaScript as well (`!ls -l`); or null when there are none. In a cell that is
 * JavaScript only a statement at the top can have been meant so.
 */
function withShellLines(source, isJavaScript) {
    if (!/^!/m.test(source)) return null;
    const starts = isJavaScript ? statementStarts(source) : null;
    const words = [];
    let found = false;
    let offset = 0;
    const lines = source.split('\n').map((line) => {
        const at = offset;
        offset += line.length + 1;
        const [, program] = LINE.exec(line.trimEnd()) ?? [];
        if (program === undefined || !isProgram(program) || starts?.has(at) === false) return line;
        found = true;
        if (/^[\w$]+$/.test(program)) words.push(program);
        return `await ${HELPER}.shell(${JSON.stringify(line.trimEnd().slice(1).trim())});`;
    });
    return found ? { source: lines.join('\n'), words } : null;
}

/** Offsets at which statements at the top begin; none of what only TypeScript can read. */
function statementStarts(source) {
    try {
        return new Set(parse(source).body.map((statement) => statement.start));
    } catch {
        return new Set();
    }
}

/** Built-in commands of the shell that change nothing of it, which would be gone with it. */
const BUILTINS = new Set(['echo', 'exit', 'printf', 'pwd', 'test', 'type', 'ulimit', 'umask']);

function isProgram(word) {
    if (word.includes('/') || BUILTINS.has(word)) return true;
    return (process.env.PATH ?? '').split(':').some((directory) => {
        try {
            accessSync(`${directory}/${word}`, constants.X_OK);
            return true;
        } catch {
            return false;
        }
    });
}

module.exports = {
    withShellLines,
};
