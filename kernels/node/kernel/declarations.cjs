/**
 * What the cells of a context have declared, and how a name is declared again.
 *
 * V8's REPL mode lets `let` and `class` be declared again in a later cell, and `var` and
 * `function` again, but no name change from one pair to the other, nor `const` to anything. So each
 * name keeps the place that its first declaration gave it: in the scope of scripts ('lexical') or
 * on the global object ('object'). A later declaration of the other kind becomes an assignment.
 * `const` is declared as `let`; assignments to it are found in the source and throw as they should.
 */

'use strict';

const { declaredNames, eachAssignment, varDeclarations } = require('./syntax.cjs');
const { HELPER } = require('./shared.cjs');

class Declarations {
    /** name → { place: 'lexical' | 'object', constant } */
    #names = new Map();

    /** Takes back what a cell declared that V8 refused to compile. */
    undo(changes) {
        for (const [name, before] of changes.reverse()) {
            if (before === undefined) this.#names.delete(name);
            else this.#names.set(name, before);
        }
    }

    /** All names that cells have declared. */
    names() {
        return this.#names.keys();
    }

    /** Rewrites the declarations of one cell into `edits`. */
    forCell(edits, count) {
        return new CellDeclarations(this.#names, edits, count);
    }
}

class CellDeclarations {
    /** For `Declarations.undo`. */
    changes = [];
    #known;
    #edits;
    #count;
    #prologue = [];
    #renamed = new Set();

    constructor(known, edits, count) {
        this.#known = known;
        this.#edits = edits;
        this.#count = count;
    }

    #place(name) {
        return this.#known.get(name)?.place;
    }

    #record(name, place, constant = false) {
        const before = this.#known.get(name);
        this.changes.push([name, before]);
        this.#known.set(name, { place: before?.place ?? place, constant });
    }

    /**
     * What to put around bindings of these names: `let …;` where that is possible, else an
     * assignment. New names of an assignment become variables of the global object.
     */
    binding(names, constant) {
        const assigns = names.some((name) => this.#place(name) === 'object');
        if (assigns) this.#declareNew(names);
        names.forEach((name) => this.#record(name, assigns ? 'object' : 'lexical', constant));
        return assigns ? { before: ';(', after: ');' } : { before: 'let ', after: ';' };
    }

    #declareNew(names) {
        const fresh = names.filter((name) => this.#place(name) === undefined);
        if (fresh.length > 0) this.#prologue.push(`var ${fresh.join(',')};`);
    }

    /** `let` and `const` at the top of the cell. */
    lexical(node) {
        const { before } = this.binding(declaredNames(node), node.kind === 'const');
        if (before !== 'let ') this.#assign(node, '=undefined');
        else if (node.kind === 'const') this.#edits.replace(node.start, node.start + 'const'.length, 'let');
    }

    class(node) {
        const { name } = node.id;
        if (this.#place(name) === 'object') this.#edits.wrap(node.start, node.end, `;${name}=`, ';');
        this.#record(name, 'lexical');
    }

    /** A function whose name has its place among the lexical ones is hoisted under another name. */
    function(node) {
        const { name } = node.id;
        if (this.#place(name) === 'lexical') {
            const hoisted = `${name}$${this.#count}`;
            this.#edits.replace(node.id.start, node.id.end, hoisted);
            if (!this.#renamed.has(name))
                this.#prologue.push(`${name}=${HELPER}.named(${hoisted},"${name}");`);
            this.#renamed.add(name);
        }
        this.#record(name, 'object');
    }

    /** Every `var` of the cell, in blocks and heads of loops too. */
    variables(root) {
        for (const { node, head } of varDeclarations(root)) {
            const names = declaredNames(node);
            if (names.some((name) => this.#place(name) === 'lexical')) {
                this.#declareNew(names);
                if (head) this.#edits.remove(node.start, node.declarations[0].start);
                else this.#assign(node, '');
            }
            names.forEach((name) => this.#record(name, 'object'));
        }
    }

    /** A declaration becomes an assignment, a statement of its own whatever stands before it. */
    #assign(node, withoutValue) {
        const { declarations } = node;
        const keyword = [node.start, declarations[0].start];
        this.#edits.replace(...keyword, `;${this.#edits.breaks(...keyword)}`);
        declarations.forEach(({ start, end, init }, index) => {
            const close = index === declarations.length - 1 ? ');' : ')';
            this.#edits.wrap(start, end, '(', init === null ? withoutValue + close : close);
        });
    }

    /** Assignments to constants throw when they happen. Call when all declarations are known. */
    guardConstants(root) {
        const constants = new Set();
        for (const [name, { constant }] of this.#known) {
            if (constant && this.#edits.text.includes(name)) constants.add(name);
        }
        if (constants.size === 0) return;
        eachAssignment(root, constants, (node, source, name) => {
            const call = `${HELPER}.constant(`;
            if (source === null) {
                this.#edits.replace(node.start, node.end, `(${name}=${call}${name}))`);
            } else {
                this.#edits.wrap(source.start, source.end, `${call}(`, '))');
            }
        });
    }

    /** What has to stand before the first statement. */
    prologue() {
        return this.#prologue.join('');
    }
}

module.exports = {
    Declarations,
};
