/**
 * V8, through an inspector session on its own thread: REPL-mode evaluation of cells, and looking at
 * the context without side effects.
 */

'use strict';

const { Session } = require('node:inspector');
const { types } = require('node:util');
const i = require('./intrinsics.cjs');
const { HELPER } = require('./shared.cjs');
const { complain, end } = require('./streams.cjs');

const post = i.uncurry(Session.prototype.post);
const connect = i.uncurry(Session.prototype.connect);
const disconnect = i.uncurry(Session.prototype.disconnect);
const { isNativeError } = types;
const OBJECTS = 'cell';
/** For expressions of queries. */
const LOOK_MS_MAX = 500;

class Engine {
    #session = null;
    /** Remote id of the helper's `take`, a function that keeps what it is called with. */
    #taker;
    #taken;

    /** `connectTaker` is told where `take` puts values. */
    constructor(connectTaker) {
        connectTaker((value) => {
            this.#taken = value;
        });
        this.renew();
    }

    /**
     * A new session. The old one may still wait for a cell that was given up: it would say so when
     * V8 collects the cell's promise, and then, in the middle of a collection, nothing may be called.
     * The names that cells have declared are V8's, not the session's.
     */
    renew() {
        if (this.#session !== null) disconnect(this.#session);
        this.#session = new Session();
        connect(this.#session);
        this.#taker = this.#call('Runtime.evaluate', { expression: `${HELPER}.take` }).result.objectId;
    }

    /** A command that V8 answers at once. */
    #call(method, parameters) {
        let answer;
        this.#post(method, parameters, (error, response) => {
            answer = error === null ? response : { error };
        });
        return answer ?? { error: { message: `${method} was not answered` } };
    }

    #post(method, parameters, callback) {
        repair();
        post(this.#session, method, { __proto__: null, ...parameters }, callback);
    }

    /**
     * Runs a script in REPL mode. `done` is called once with `{ value }`, `{ thrown }`,
     * `{ thrown, at }` when it was not compiled, or `{ broken }`; never, when it is terminated.
     */
    evaluate(code, script, done) {
        const expression = `${code}\n//# sourceURL=${script}`;
        let compiling = true;
        this.#post(
            'Runtime.evaluate',
            { expression, replMode: true, silent: true, objectGroup: OBJECTS },
            (error, response) => {
                if (error !== null) done({ __proto__: null, broken: error.message });
                else done(this.#outcome(response, compiling));
            },
        );
        compiling = false;
    }

    #outcome({ result, exceptionDetails }, compiling) {
        if (exceptionDetails !== undefined) {
            const { exception, lineNumber, columnNumber } = exceptionDetails;
            const thrown = exception === undefined ? exceptionDetails.text : this.#take(exception);
            if (!compiling) return { __proto__: null, thrown };
            // What is too deep for the parser has the position of whoever called it.
            const at = isSyntaxError(thrown) ? { line: lineNumber + 1, column: columnNumber } : null;
            return { __proto__: null, thrown, at };
        }
        return { __proto__: null, value: result.type === 'undefined' ? undefined : this.#take(result) };
    }

    /** The value that a remote object stands for. */
    #take({ objectId, unserializableValue, value }) {
        const argument =
            objectId !== undefined
                ? { objectId }
                : unserializableValue !== undefined
                  ? { unserializableValue }
                  : { value };
        this.#call('Runtime.callFunctionOn', {
            objectId: this.#taker,
            functionDeclaration: 'function (value) { this(value); }',
            arguments: [argument],
            silent: true,
        });
        if (objectId !== undefined) this.#call('Runtime.releaseObjectGroup', { objectGroup: OBJECTS });
        const taken = this.#taken;
        this.#taken = undefined;
        return taken;
    }

    /** Which of two readings of a cell: as shell lines, unless a word that begins one is a name. */
    choose(code, otherwise) {
        if (otherwise === undefined) return code;
        for (let index = 0; index < otherwise.words.length; index++) {
            const { result } = this.#call('Runtime.evaluate', {
                expression: `typeof ${otherwise.words[index]}`,
                throwOnSideEffect: true,
                silent: true,
            });
            if (result === undefined || result.value !== 'undefined') return code;
        }
        return otherwise.code;
    }

    /** The value of an expression without side effects: `{ found, value }`. */
    look(expression) {
        const { result, exceptionDetails } = this.#call('Runtime.evaluate', {
            expression,
            throwOnSideEffect: true,
            silent: true,
            timeout: LOOK_MS_MAX,
            objectGroup: OBJECTS,
        });
        if (result === undefined || exceptionDetails !== undefined) return { found: false, value: undefined };
        return { found: true, value: result.type === 'undefined' ? undefined : this.#take(result) };
    }

    /** Names that cells have declared with let, const and class, in order. */
    lexicalNames() {
        return this.#call('Runtime.globalLexicalScopeNames', {}).names ?? [];
    }
}

function isSyntaxError(thrown) {
    return isNativeError(thrown) && i.getPrototypeOf(thrown) === i.SyntaxErrorClass.prototype;
}

/**
 * What Node and V8 need to run a cell at all, whatever it was before. Libraries do not touch it;
 * a cell that does has it put back, or has ended its context.
 */
const NEEDED = [
    ['Object.prototype.toJSON', i.ObjectPrototype, 'toJSON'],
    ['Object.prototype.params', i.ObjectPrototype, 'params'],
    ['Promise.prototype.constructor', i.PromiseClass.prototype, 'constructor'],
    ['Promise[Symbol.species]', i.PromiseClass, Symbol.species],
].map(([name, object, key]) => ({ __proto__: null, name, object, key, was: entryOf(object, key) }));

/** A property as it is, without what a descriptor inherits; null when there is none. */
function entryOf(object, key) {
    const entry = i.getOwnPropertyDescriptor(object, key);
    if (entry === undefined) return null;
    i.setPrototypeOf(entry, null);
    return entry;
}

function repair() {
    for (let index = 0; index < NEEDED.length; index++) {
        const { name, object, key, was } = NEEDED[index];
        const entry = entryOf(object, key);
        if (
            was === null
                ? entry === null
                : entry !== null && entry.value === was.value && entry.get === was.get
        )
            continue;
        const done = was === null ? i.deleteProperty(object, key) : i.defineProperty(object, key, was);
        if (!done) end(`${name} is not what it was, and no cell can run`);
        complain(`${name} was put back: no cell could run without`);
    }
    // Accessors in the place of elements break every array that Node makes.
    const first = i.ownKeys(i.ArrayPrototype)[0];
    if (first !== 'length') removeElements();
}

function removeElements() {
    const keys = i.ownKeys(i.ArrayPrototype);
    for (let index = 0; keys[index] !== 'length'; index++) {
        if (!i.deleteProperty(i.ArrayPrototype, keys[index]))
            end('Array.prototype has elements that cannot be removed');
    }
    complain('elements of Array.prototype were removed: no cell could run with them');
}

module.exports = {
    Engine,
    repair,
};
