/**
 * What code has thrown, as text. Anything can be thrown: an error with getters that throw, a proxy,
 * nothing. The protocol thread makes the `error` event of it (tracebacks.cjs).
 */

'use strict';

const { inspect, types } = require('node:util');
const i = require('./intrinsics.cjs');

const { isNativeError, isProxy } = types;
const PLAIN = i.freeze({ __proto__: null, colors: false });
/** Of each text; what an event may hold is less. */
const TEXT_CHARS_MAX = 4 * 1024 * 1024;

/** `{ name, message, stack, text, early, at }`. Runs tenant code; throws nothing. */
function failureOf(thrown) {
    if (!isError(thrown)) {
        const text = inspected(thrown);
        return failure('Uncaught', typeof thrown === 'string' ? thrown : text, '', `Uncaught ${text}`);
    }
    const message = stringProperty(thrown, 'message');
    const name = nameOf(thrown);
    const stack = stringProperty(thrown, 'stack');
    return failure(name, message, stack, inspected(thrown, stack === '' ? `${name}: ${message}` : stack));
}

/** One that the driver itself has to tell of. */
function failure(name, message, stack = '', text = `${name}: ${message}`, early = false, at = null) {
    return {
        __proto__: null,
        name: cut(name),
        message: cut(message),
        stack: cut(stack),
        text: cut(text),
        early,
        at,
    };
}

/** V8 has not compiled the cell. `at`: 1-based line, 0-based column. */
function compileFailure(thrown, at) {
    return failure(nameOf(thrown), stringProperty(thrown, 'message'), '', '', true, at);
}

function isError(thrown) {
    if (typeof thrown !== 'object' || thrown === null || isProxy(thrown)) return false;
    if (isNativeError(thrown)) return true;
    for (
        let object = thrown, depth = 0;
        object !== null && depth < 1000;
        object = i.getPrototypeOf(object), depth++
    ) {
        if (isProxy(object)) return false;
        if (object === i.ErrorPrototype) return true;
    }
    return false;
}

/** The error's own name, or that of its class when it has none of its own. */
function nameOf(error) {
    const name = stringProperty(error, 'name');
    if (name !== '' && name !== 'Error') return name;
    try {
        const constructed = error.constructor?.name;
        if (typeof constructed === 'string' && constructed !== '' && constructed !== 'Object')
            return constructed;
    } catch {
        // A getter of the tenant's.
    }
    return name === '' ? 'Error' : name;
}

function stringProperty(object, key) {
    try {
        const value = object[key];
        if (typeof value === 'string') return value;
        return value === undefined || value === null || typeof value === 'symbol' ? '' : `${value}`;
    } catch {
        return '';
    }
}

function inspected(value, otherwise = '(a value that cannot be shown)') {
    try {
        return inspect(value, PLAIN);
    } catch {
        return otherwise;
    }
}

function cut(text) {
    if (text.length <= TEXT_CHARS_MAX) return text;
    return `${i.stringSlice(text, 0, TEXT_CHARS_MAX)}… (${text.length - TEXT_CHARS_MAX} characters left out)`;
}

module.exports = {
    failureOf,
    failure,
    compileFailure,
};
