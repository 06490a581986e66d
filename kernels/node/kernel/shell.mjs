/**
 * Shell lines: `!npm install x` at the start of a line, for a cell that is no JavaScript otherwise.
 */

import { accessSync, constants } from 'node:fs';
import { HELPER } from './shared.mjs';

const LINE = /^!\s*((?:[\w@%+:,.~-]*\/)*[\w@%+:,.~-]+)(?:\s.*)?$/;

/**
 * `{ source, words }`: the cell with its shell lines as calls, and the programs that begin those
 * which could be JavaScript as well (`!ls -l`); or null when there are none.
 */
export function withShellLines(source) {
  if (!/^!/m.test(source)) return null;
  const words = [];
  let found = false;
  const lines = source.split('\n').map((line) => {
    const [, program] = LINE.exec(line.trimEnd()) ?? [];
    if (program === undefined || !isProgram(program)) return line;
    found = true;
    if (/^[\w$]+$/.test(program)) words.push(program);
    return `await ${HELPER}.shell(${JSON.stringify(line.trimEnd().slice(1).trim())});`;
  });
  return found ? { source: lines.join('\n'), words } : null;
}

/** Built-in commands of the shell that change nothing of it, which would be gone with it. */
const BUILTINS = new Set(['echo', 'printf', 'pwd', 'test', 'type', 'ulimit', 'umask']);

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
