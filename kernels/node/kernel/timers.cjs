/**
 * Timers and ticks know the run that has set them.
 *
 * Code that waits in a loop of its own (`async function` with `await sleep(…)`) cannot be stopped
 * from outside; when its run has been interrupted, its timers no longer fire. The same holds for a
 * loop of `process.nextTick`, which Node would take up again. And what a timer of an earlier run
 * throws is not an error of the run that is active now.
 */

'use strict';

const timersPromises = require('node:timers/promises');
const timers = require('node:timers');
const { syncBuiltinESMExports } = require('node:module');
const { promisify } = require('node:util');
const { expectTermination } = require('./callbacks.cjs');
const i = require('./intrinsics.cjs');

const { clearTimeout } = timers;

/** The kernel: which run is active, and which must not go on. */
let kernel = { run: null, isStopped: () => false };
/** The run of the timer whose callback has just thrown. */
let thrower;

/** That run, once; undefined when it was no timer, null when nobody's. */
function takeThrower() {
    const run = thrower;
    thrower = undefined;
    return run;
}

/** `callback` for a timer that the active run sets. */
function bound(callback) {
    if (typeof callback !== 'function') return callback; // Node refuses it.
    const { run } = kernel;
    return function () {
        if (run !== null && kernel.isStopped(run)) {
            if (this !== undefined) clearTimeout(this); // It may be an interval.
            return;
        }
        expectTermination();
        try {
            i.apply(callback, this, arguments);
        } catch (error) {
            thrower = run;
            throw error;
        }
    };
}

function wrapped(original) {
    const timer = function (callback) {
        arguments[0] = bound(callback);
        return i.apply(original, this, arguments);
    };
    i.defineProperty(timer, 'name', { __proto__: null, value: original.name });
    return timer;
}

/** `await setTimeout(…)` of node:timers/promises, which uses no global. */
function wrappedPromise(original) {
    const timer = function () {
        return stopping(i.apply(original, this, arguments), kernel.run);
    };
    i.defineProperty(timer, 'name', { __proto__: null, value: original.name });
    return timer;
}

async function stopping(promise, run) {
    const value = await promise;
    if (run !== null && kernel.isStopped(run)) await new i.PromiseClass(() => {});
    return value;
}

function install(activeKernel) {
    kernel = activeKernel;
    const names = ['setTimeout', 'setInterval', 'setImmediate'];
    for (let index = 0; index < names.length; index++) {
        const name = names[index];
        const timer = wrapped(timers[name]);
        if (name !== 'setInterval') {
            const promise = wrappedPromise(timersPromises[name]);
            timersPromises[name] = promise;
            i.defineProperty(timer, promisify.custom, { __proto__: null, value: promise });
        }
        timers[name] = timer;
        globalThis[name] = timer;
    }
    process.nextTick = wrapped(process.nextTick);
    syncBuiltinESMExports();
}

module.exports = {
    takeThrower,
    install,
};
