/**
 * What rewritten cells call (see rewrite.cjs), under one global name that no cell can declare.
 *
 * Every call brings the serial number of its run. Code of a run that has been interrupted goes on
 * when what it waited for happens; `guard` is where it stops for good.
 */

'use strict';

const { types } = require('node:util');
const i = require('./intrinsics.cjs');
const { HELPER } = require('./shared.cjs');
const { load, meta } = require('./modules.cjs');
const { runProgram } = require('./programs.cjs');

const { isPromise } = types;
const { asyncIterator, iterator: iteratorSymbol } = Symbol;

/** The run that is active, as kernel.cjs has it. */
let active = () => null;

function runOf(serial) {
    const run = active();
    return run !== null && run.serial === serial ? run : null;
}

/** A promise that nothing ever settles; whoever waits for it is garbage. */
function never() {
    return new i.PromiseClass(() => {});
}

/** `await x` at the top of a cell. */
function guard(serial, awaited) {
    const run = runOf(serial);
    if (run === null) return never();
    if ((typeof awaited !== 'object' && typeof awaited !== 'function') || awaited === null) return awaited;
    return anchored(run, guarded(run, awaited));
}

/** The cell waits for `promise`, and by that alone V8 knows the cell. */
function anchored(run, promise) {
    run.awaited = promise;
    return promise;
}

async function guarded(run, awaited) {
    let value;
    try {
        value = await awaited;
    } catch (error) {
        if (run.stopped) await never();
        throw error;
    }
    if (run.stopped) await never();
    return value;
}

/** `for await (… of x)` at the top of a cell. */
function each(serial, iterable) {
    const asynchronous = iterable[asyncIterator];
    const iterator =
        asynchronous === undefined ? iterable[iteratorSymbol]() : i.apply(asynchronous, iterable, []);
    return {
        [asyncIterator]: () => ({
            next: () => guard(serial, settled(iterator.next(), asynchronous === undefined)),
            return: async (value) =>
                iterator.return === undefined ? { done: true, value } : iterator.return(value),
        }),
    };
}

async function settled(step, isSynchronous) {
    const result = await step;
    return isSynchronous ? { done: result.done, value: await result.value } : result;
}

/** The value of the cell's last expression; a promise is waited for. */
function value(serial, it) {
    const run = runOf(serial);
    if (run === null) return never();
    if (isPromise(it)) return anchored(run, awaitValue(run, it));
    run.value = it;
    return undefined;
}

async function awaitValue(run, promise) {
    run.value = await guarded(run, promise);
}

/** What an assignment to a constant evaluates before it would happen. */
function constant() {
    throw new i.TypeErrorClass('Assignment to constant variable.');
}

/** A function that had to be hoisted under another name. */
function named(it, name) {
    i.defineProperty(it, 'name', { __proto__: null, value: name, configurable: true });
    return it;
}

/** `!command`. Its exit code is in `_exit_code`. */
function shell(command) {
    const run = active();
    return run === null ? never() : anchored(run, shellLine(run, command));
}

async function shellLine(run, command) {
    const code = await runProgram(run, command);
    if (run.stopped) await never();
    i.defineProperty(globalThis, '_exit_code', {
        __proto__: null,
        value: code,
        writable: true,
        configurable: true,
    });
}

/** What oxc makes of decorators calls this. */
const babelHelpers = {
    decorate(decorators, target, key, descriptor) {
        const isMember = arguments.length >= 3;
        let found = isMember ? (descriptor ?? Object.getOwnPropertyDescriptor(target, key)) : target;
        const given = found;
        for (let index = decorators.length - 1; index >= 0; index--) {
            const decorator = decorators[index];
            found = (isMember ? decorator(target, key, found) : decorator(found)) ?? found;
        }
        // `null` says: a method, whose descriptor is put back; `undefined`: a field, which has none.
        if (isMember && found !== undefined && descriptor === null) Object.defineProperty(target, key, found);
        return found ?? given;
    },
    decorateParam: (index, decorator) => (target, key) => decorator(target, key, index),
    decorateMetadata: (key, data) => globalThis.Reflect?.metadata?.(key, data) ?? (() => {}),
};

/** `activeRun` tells the run that is active; `take` is for engine.cjs. */
function install(activeRun, take) {
    active = activeRun;
    const helper = i.freeze({
        __proto__: null,
        guard,
        each,
        value,
        constant,
        named,
        shell,
        load,
        meta,
        take,
    });
    i.defineProperty(globalThis, HELPER, { __proto__: null, value: helper });
    i.defineProperty(globalThis, 'babelHelpers', {
        __proto__: null,
        value: babelHelpers,
        writable: true,
        configurable: true,
    });
}

module.exports = {
    install,
};
