/**
 * What Node keeps of the callbacks that it is in the middle of (async_hooks).
 *
 * A termination unwinds through Node's own code and skips what closes a callback. Node finds that
 * its stack of callbacks is not as it should be, and aborts the process. It need not look: that is
 * `--no-force-async-hooks-checks`, and for Node 20 and 22, where AsyncLocalStorage turns the check
 * on again, a field that their binding shows. Node 24 shows no binding and needs none.
 */

'use strict';

let fields = null;
let check = 0;
let clearStack = () => {};

/** Before any cell. */
function install() {
    const { noDeprecation } = process;
    process.noDeprecation = true;
    try {
        const { async_hook_fields: found, constants, clearAsyncIdStack } = process.binding('async_wrap');
        check = constants.kCheck;
        clearStack = clearAsyncIdStack;
        fields = found;
    } catch {
        // Node 24.
    } finally {
        process.noDeprecation = noDeprecation;
    }
}

/** Before code that may be terminated. */
function expectTermination() {
    if (fields !== null) fields[check] = 0;
}

/** After a termination: no callback is under way. */
function forgetCallbacks() {
    clearStack();
}

module.exports = {
    install,
    expectTermination,
    forgetCallbacks,
};
