/**
 * Cells before they run: TypeScript to JavaScript, shell lines, and what rewrite.cjs does.
 * Keeps the sources of the last cells, for positions in them and for documentation.
 */

'use strict';

const { Declarations } = require('./declarations.cjs');
const { decodeMappings, original } = require('./positions.cjs');
const { rewrite } = require('./rewrite.cjs');
const { cellName, scriptName } = require('./shared.cjs');
const { withShellLines } = require('./shell.cjs');

/** Cells whose sources and positions are kept. */
const CELLS_KEPT_MAX = 512;
const CELL_CHARS_KEPT_MAX = 4 * 1024 * 1024;

const SAMPLES = [
    "import a, { b as c } from 'x'; const d = 1; let { e } = d;",
    'for (const k of l) await m(`n${k}`); var i = async (j) => ({ ...j, q: [...r] });',
    "class F extends G { h() { return this.s } }\nfunction o(p = 1) { if (p) throw new Error('t'); else y = /z/g }",
    "try { u() } catch { v ??= w?.x } finally { d2++ }\nconsole.log('1' + 1)",
];

const TYPESCRIPT = {
    lang: 'ts',
    sourceType: 'module',
    sourcemap: true,
    target: 'esnext',
    // A later cell may use what this one only imports.
    typescript: { onlyRemoveTypeImports: true, allowNamespaces: true },
    decorator: { legacy: true },
    helpers: { mode: 'External' },
};

/** The last cells of the context, by the names of their scripts. */
class Cells {
    #kept = new Map();
    #chars = 0;

    add(cell) {
        this.#kept.set(cell.script, cell);
        this.#chars += cell.source.length;
        for (const [script, oldest] of this.#kept) {
            if (this.#kept.size <= CELLS_KEPT_MAX && this.#chars <= CELL_CHARS_KEPT_MAX) break;
            if (oldest === cell) break;
            this.#kept.delete(script);
            this.#chars -= oldest.source.length;
        }
    }

    get(script) {
        return this.#kept.get(script);
    }

    /** Newest first. */
    newest() {
        return [...this.#kept.values()].reverse();
    }
}

/**
 * A cell: `script` and `name` in stack traces, `source` as it came, `positions` back to it,
 * `syntax` what our parser has against it, `order` what the main thread is told.
 */
class Preparer {
    cells = new Cells();
    #declarations = new Declarations();
    #oxc = null;
    #loading = null;

    /** `other`: whose compiler it uses. */
    constructor(other = undefined) {
        if (other !== undefined) this.#oxc = other.#oxc;
    }

    /** Rewrites a text for nobody, so that cells find the parser compiled. */
    warmUp(source = '1 + 1') {
        const declarations = new Declarations();
        rewrite(source, { declarations, count: 0, serial: 0, lenient: false });
    }

    /** What can wait until no cell does, in pieces: functions, each of which may give a promise. */
    piecesLeft() {
        return [() => this.load().catch(() => {}), ...SAMPLES.map((source) => () => this.warmUp(source))];
    }

    /** Loads the compiler. */
    load() {
        this.#loading ??= import('oxc-transform').then((oxc) => {
            oxc.transformSync('warm.ts', 'enum A { B } const c = <T,>(d: T): T => d as T;', TYPESCRIPT);
            this.#oxc = oxc;
        });
        return this.#loading;
    }

    /** The cell, or a promise of it while the compiler is being loaded. Never fails. */
    prepare(source, language, count, serial) {
        const cell = {
            count,
            serial,
            language,
            source,
            name: cellName(count, language),
            script: scriptName(count, language),
            positions: { shifts: null, segments: null },
            changes: [],
            syntax: null,
        };
        this.cells.add(cell);
        if (language === 'javascript') return this.#finish(cell, (text) => ({ text, segments: null }));
        if (language !== 'typescript') {
            return this.#refuse(cell, {
                name: 'Error',
                message: `the language ${language} is not one of this context`,
            });
        }
        const compile = () => this.#finish(cell, (text) => this.#compile(text, cell.script));
        if (this.#oxc !== null) return compile();
        return this.load().then(compile, (error) =>
            this.#refuse(cell, {
                name: 'Error',
                message: `TypeScript cannot be compiled here: ${error.message}`,
            }),
        );
    }

    #compile(source, script) {
        // An object literal alone: see `parsed` in rewrite.cjs.
        const literal = /^\s*\{/.test(source) && /\}\s*$/.test(source);
        const wrapped = literal ? this.#oxc.transformSync(script, `(${source}\n)`, TYPESCRIPT) : null;
        const isLiteral = wrapped !== null && wrapped.errors.length === 0;
        const { code, map, errors } = isLiteral
            ? wrapped
            : this.#oxc.transformSync(script, source, TYPESCRIPT);
        const error = errors.find(({ severity }) => severity === 'Error');
        if (error !== undefined) throw new CompileError(error, source);
        return { text: code, segments: decodeMappings(map.mappings) };
    }

    #finish(cell, compile) {
        const { count, serial, language } = cell;
        const attempt = (source) => {
            const { text, segments } = compile(source);
            const lenient = language === 'typescript';
            const ready = rewrite(text, { declarations: this.#declarations, count, serial, lenient });
            return { ...ready, segments };
        };
        let prepared;
        let otherwise;
        try {
            prepared = attempt(cell.source);
            const shell = withShellLines(cell.source, true);
            if (shell !== null && shell.words.length > 0)
                otherwise = this.#alternative(attempt, prepared, shell);
        } catch (error) {
            const shell = withShellLines(cell.source, false);
            prepared = shell === null ? null : this.#quietly(attempt, shell.source);
            if (prepared === null) return this.#unparsed(cell, error);
        }
        cell.changes = prepared.changes;
        cell.positions = { shifts: prepared.shifts, segments: prepared.segments };
        return this.#order(cell, { code: prepared.code, otherwise });
    }

    /** A cell that is JavaScript, but perhaps meant as a shell line: `!ls -l`. */
    #alternative(attempt, prepared, { source, words }) {
        if (prepared.changes.some(([name]) => words.includes(name))) return undefined;
        const other = this.#quietly(attempt, source);
        return other === null ? undefined : { code: other.code, words };
    }

    #quietly(attempt, source) {
        try {
            return attempt(source);
        } catch {
            return null;
        }
    }

    /** What our parser refuses V8 may still accept, or refuse in better words. */
    #unparsed(cell, error) {
        if (error instanceof CompileError) return this.#refuse(cell, error.failure);
        const at = error.loc === undefined ? null : { line: error.loc.line, column: error.loc.column };
        cell.syntax = { message: String(error.message).replace(/ \(\d+:\d+\)$/, ''), at };
        return this.#order(cell, { code: cell.source });
    }

    #refuse(cell, failure) {
        return this.#order(cell, {
            code: '',
            failure: { stack: '', text: '', at: null, early: true, ...failure },
        });
    }

    /** Every field is there, so that none is looked for in what a cell has made of all objects. */
    #order(cell, { code, otherwise, failure }) {
        const { script, name, language } = cell;
        const positions = language === 'typescript' && failure === undefined ? cell.positions : undefined;
        cell.order = { script, name, code, otherwise, failure, positions };
        return cell;
    }

    /** V8 has not compiled the cell: nothing of it was declared. */
    undo(cell) {
        this.#declarations.undo(cell.changes);
        cell.changes = [];
    }

    /** In the order of their first declaration. */
    declaredNames() {
        return [...this.#declarations.names()];
    }
}

/** What oxc has against a cell. */
class CompileError extends Error {
    constructor({ message, labels, helpMessage }, source) {
        super(message);
        const at = labels.length === 0 ? null : { ...position(source, labels[0].start), cell: true };
        this.failure = {
            name: 'SyntaxError',
            message: helpMessage === null ? message : `${message}. ${helpMessage}`,
            at,
        };
    }
}

/** Line (from 1) and column (from 0) of an offset in UTF-8. */
function position(source, offset) {
    const before = Buffer.from(source).toString('utf8', 0, offset);
    return { line: before.split('\n').length, column: before.length - before.lastIndexOf('\n') - 1 };
}

module.exports = {
    Cells,
    Preparer,
};
