/**
 * V8, through an inspector session on its own thread: REPL-mode evaluation of cells, and looking at
 * the context without side effects.
 */

import { Session } from 'node:inspector';
import * as i from './intrinsics.mjs';
import { EXIT_BROKEN } from './shared.mjs';
import { complain } from './streams.mjs';

const post = i.uncurry(Session.prototype.post);
const connect = i.uncurry(Session.prototype.connect);
const disconnect = i.uncurry(Session.prototype.disconnect);
const { reallyExit } = process;
const OBJECTS = 'cell';
/** For expressions of queries. */
const LOOK_MS_MAX = 500;

export class Engine {
  #session = null;
  /** Remote id of a function that keeps what it is called with. */
  #taker;
  #taken;

  constructor() {
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
    const name = '__crownest_taker';
    globalThis[name] = (value) => {
      this.#taken = value;
    };
    this.#taker = this.#call('Runtime.evaluate', { expression: name }).result.objectId;
    delete globalThis[name];
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
    forbidToJson();
    post(this.#session, method, { __proto__: null, ...parameters }, callback);
  }

  /**
   * Runs a script in REPL mode. `done` is called once with `{ value }`, `{ thrown }`,
   * `{ thrown, at }` when it was not compiled, or `{ broken }`; never, when it is terminated.
   */
  evaluate(code, script, done) {
    const expression = `${code}\n//# sourceURL=${script}`;
    let compiling = true;
    this.#post('Runtime.evaluate', { expression, replMode: true, silent: true, objectGroup: OBJECTS }, (error, response) => {
      if (error !== null) done({ broken: error.message });
      else done(this.#outcome(response, compiling));
    });
    compiling = false;
  }

  #outcome({ result, exceptionDetails }, compiling) {
    if (exceptionDetails !== undefined) {
      const { exception, lineNumber, columnNumber } = exceptionDetails;
      const thrown = exception === undefined ? exceptionDetails.text : this.#take(exception);
      return compiling ? { thrown, at: { line: lineNumber + 1, column: columnNumber } } : { thrown };
    }
    return { value: result.type === 'undefined' ? undefined : this.#take(result) };
  }

  /** The value that a remote object stands for. */
  #take({ objectId, unserializableValue, value }) {
    const argument = objectId !== undefined ? { objectId } : unserializableValue !== undefined ? { unserializableValue } : { value };
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
      const { result } = this.#call('Runtime.evaluate', { expression: `typeof ${otherwise.words[index]}`, throwOnSideEffect: true, silent: true });
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

/** A `toJSON` on every object would change what Node says to V8: nothing could run any more. */
function forbidToJson() {
  if (!i.hasOwn(i.ObjectPrototype, 'toJSON')) return;
  if (i.deleteProperty(i.ObjectPrototype, 'toJSON')) {
    complain('Object.prototype.toJSON was removed: no cell could run with it');
  } else {
    complain('the context ends: Object.prototype.toJSON cannot be removed, and no cell can run with it');
    reallyExit(EXIT_BROKEN);
  }
}
