/**
 * Queries, as the protocol thread does them: what of the code is asked for, and the answer in the
 * protocol's terms. The values are looked at on the main thread (questions.cjs).
 */

'use strict';

const { readdirSync } = require('node:fs');
const { builtinModules } = require('node:module');
const { dirname, join, resolve } = require('node:path');
const { tokenizer } = require('acorn');

const MATCHES_MAX = 200;
const VARIABLES_MAX = 1_000;
const NAMES_MAX = 10_000;
/** How far back an expression is looked for. */
const CODE_CHARS_MAX = 64 * 1024;
const MODULE_PREFIX = /(?:\brequire\s*\(\s*|\bimport\s*\(\s*|\bfrom\s+|\bimport\s+)(['"])([^'"\n]*)$/;

const KEYWORDS = (
    'async await break case catch class const continue debugger default delete do else export extends false finally ' +
    'for function if import in instanceof let new null of return static super switch this throw true try typeof var ' +
    'void while with yield'
).split(' ');

class Asker {
    #preparer;
    #asked = null;

    constructor(preparer) {
        this.#preparer = preparer;
    }

    /** What the main thread is asked, as fields of its message. */
    question({ query, code = '', cursor = 0, detail = 0, limit = 100 }) {
        const text = typeof code === 'string' ? code : '';
        const at = utf16Index(text, Number(cursor) || 0);
        this.#asked = { query, text, at, detail };
        if (query === 'complete') return this.#complete(text.slice(Math.max(0, at - CODE_CHARS_MAX), at));
        if (query === 'inspect') return this.#inspect(text, at);
        if (query === 'variables') {
            const order = this.#preparer.declaredNames().slice(0, NAMES_MAX);
            return {
                query,
                order,
                limit: Math.min(VARIABLES_MAX, Math.max(0, Math.floor(Number(limit)) || 0)),
            };
        }
        return { query: null };
    }

    /** The protocol's answer, or null when there is none. */
    answer(found) {
        if (found === null) return null;
        const asked = this.#asked;
        if (asked.query === 'complete') return this.#completion(asked, found);
        if (asked.query === 'inspect') return this.#inspection(asked, found);
        return found;
    }

    // === complete

    #complete(before) {
        const [, , specifier] = MODULE_PREFIX.exec(before) ?? [];
        if (specifier !== undefined) {
            const slash =
                specifier.startsWith('.') || specifier.startsWith('/') ? specifier.lastIndexOf('/') + 1 : 0;
            this.#asked.prefix = specifier.slice(slash);
            this.#asked.modules = slash > 0 ? files(specifier.slice(0, slash)) : modules();
            return { query: 'nothing' };
        }
        const { base, prefix } = chain(before);
        this.#asked.prefix = prefix;
        if (base === undefined) return { query: 'nothing' };
        this.#asked.isName = base === null;
        return { query: 'names', base, prefix };
    }

    #completion({ text, at, prefix, modules: files, isName }, { names }) {
        const keywords = isName ? KEYWORDS.map((word) => ({ text: word, kind: 'keyword' })) : [];
        const seen = new Set();
        const matches = [...(files ?? names), ...keywords].filter(({ text: name }) => {
            const fresh =
                name.startsWith(prefix) && !seen.has(name) && (prefix !== '' || !name.startsWith('_'));
            seen.add(name);
            return fresh;
        });
        const start = codePoints(text, at - prefix.length);
        const omitted = Math.max(0, matches.length - MATCHES_MAX);
        return {
            matches: matches.slice(0, MATCHES_MAX),
            start,
            end: codePoints(text, at),
            ...(omitted > 0 ? { omitted } : {}),
        };
    }

    // === inspect

    #inspect(text, at) {
        let end = at;
        while (end < text.length && /[\w$\u0080-\uffff]/.test(text[end])) end += 1;
        // On an opening parenthesis or right behind a name it is the name before it that is meant.
        const { base, prefix } = chain(text.slice(Math.max(0, end - CODE_CHARS_MAX), end));
        if (prefix === '' || base === undefined) return { query: 'nothing' };
        this.#asked.name = prefix;
        return {
            query: 'value',
            expression: base === null ? prefix : `(${base}).${prefix}`,
            isName: base === null,
        };
    }

    #inspection({ detail, name }, found) {
        if (found.value === undefined) return { found: false, data: {} };
        const { type, signature, source, preview } = found.value;
        const comment = source === '' ? '' : this.#comment(name);
        const parts = [signature || `${type}: ${preview}`, comment];
        if (detail > 0 && source !== '') parts.push(source);
        return { found: true, data: { 'text/plain': parts.filter((part) => part !== '').join('\n\n') } };
    }

    /** The JSDoc comment before what a cell has last defined under that name. */
    #comment(name) {
        const definition = new RegExp(
            `/\\*\\*((?:(?!\\*/)[\\s\\S])*)\\*/\\s*` +
                `(?:(?:export|default|async|abstract|declare|function\\*?|class|const|let|var)\\s+)+` +
                `${name.replace(/\$/g, '\\$&')}(?![\\w$])`,
        );
        for (const cell of this.#preparer.cells.newest()) {
            const [, comment] = definition.exec(cell.source) ?? [];
            if (comment === undefined) continue;
            const lines = comment.split('\n').map((line) => line.replace(/^\s*\*? ?/, '').trimEnd());
            return lines.join('\n').trim();
        }
        return '';
    }
}

// === text

function utf16Index(text, codePoint) {
    let at = 0;
    for (let i = 0; i < codePoint && at < text.length; i++) at += text.codePointAt(at) > 0xffff ? 2 : 1;
    return at;
}

function codePoints(text, utf16) {
    let count = 0;
    for (let at = 0; at < utf16; count++) at += text.codePointAt(at) > 0xffff ? 2 : 1;
    return count;
}

/**
 * The member chain at the end of `code`: `{ base, prefix }`; `base` is the expression before the
 * last dot, null when the name stands alone, undefined when it cannot be evaluated without a call.
 */
function chain(code) {
    const tokens = [];
    try {
        for (const token of tokenizer(code, { ecmaVersion: 'latest', allowHashBang: true }))
            tokens.push(token);
    } catch {
        // A text or template that has no end yet: what stands before it counts.
    }
    let at = tokens.length - 1;
    let prefix = '';
    const last = tokens[at];
    if (last !== undefined && last.end === code.length && /^[\p{ID_Start}$_]/u.test(code.slice(last.start))) {
        prefix = code.slice(last.start);
        at -= 1;
    } else if (last === undefined || last.end < code.trimEnd().length) {
        return { base: null, prefix: /[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.exec(code)?.[0] ?? '' };
    }
    if (!isDot(tokens[at])) return { base: null, prefix };
    const end = tokens[at].start;
    const start = beginning(tokens, at - 1);
    return { base: start === null ? undefined : code.slice(start, end), prefix };
}

function isDot(token) {
    return token !== undefined && (token.type.label === '.' || token.type.label === '?.');
}

/** Where the expression begins whose last token is at `at`; names, members and indexes only. */
function beginning(tokens, at) {
    for (;;) {
        const token = tokens[at];
        if (token === undefined) return null;
        if (token.type.label === ']') {
            let depth = 0;
            for (; at >= 0; at--) {
                const { label } = tokens[at].type;
                if (label === ']') depth += 1;
                else if (label === '[' && --depth === 0) break;
            }
            const before = tokens[at - 1]?.type.label;
            if (before !== 'name' && before !== ']' && before !== 'this') return tokens[at]?.start ?? null;
            at -= 1;
            continue;
        }
        if (!/^(?:name|this|string|\}|\))$/.test(token.type.label)) return null;
        if (token.type.label === '}' || token.type.label === ')') return null;
        if (!isDot(tokens[at - 1])) return token.start;
        at -= 2;
    }
}

// === modules

function modules() {
    const found = builtinModules
        .filter((name) => !name.startsWith('_'))
        .map((text) => ({ text, kind: 'module' }));
    for (let directory = process.cwd(); ; directory = dirname(directory)) {
        for (const name of list(join(directory, 'node_modules'))) {
            if (name.name.startsWith('.')) continue;
            if (!name.name.startsWith('@')) found.push({ text: name.name, kind: 'module' });
            else
                list(join(directory, 'node_modules', name.name)).forEach((one) =>
                    found.push({ text: `${name.name}/${one.name}`, kind: 'module' }),
                );
        }
        if (directory === dirname(directory)) return found;
    }
}

function files(directory) {
    return list(resolve(directory)).map((entry) => ({
        text: entry.name + (entry.isDirectory() ? '/' : ''),
        kind: 'file',
    }));
}

function list(directory) {
    try {
        return readdirSync(directory, { withFileTypes: true });
    } catch {
        return [];
    }
}

module.exports = {
    Asker,
};
