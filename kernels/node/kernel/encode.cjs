/**
 * JSON and frames, made without methods that a cell can replace (`toJSON` among them).
 */

'use strict';

const i = require('./intrinsics.cjs');
const { types } = require('node:util');

const { from: bytesFrom, byteLength: bufferByteLength } = Buffer;
const { isDate, isProxy, isBoxedPrimitive } = types;

/** Deepest nesting that readers of the protocol take. */
const JSON_DEPTH_MAX = 64;
/** Values in one JSON document of a result. */
const JSON_VALUES_MAX = 200_000;

/** Thrown by `json` for what has no JSON. */
const NO_JSON = i.freeze({ __proto__: null, reason: 'it has no JSON' });

/** JSON of a string. Half a surrogate pair becomes U+FFFD: readers refuse it as an escape too. */
function jsonString(text) {
    return i.stringify(i.isWellFormed(text) ? text : i.toWellFormed(text));
}

/**
 * JSON text of plain data: primitives, arrays and plain objects of them, dates. Everything else, a
 * getter, a cycle, a proxy throws NO_JSON. `charsMax` bounds the text.
 */
function json(value, charsMax = Infinity) {
    const budget = { __proto__: null, values: JSON_VALUES_MAX, chars: charsMax };
    return encoded(value, JSON_DEPTH_MAX, budget);
}

function encoded(value, depth, budget) {
    if (--budget.values < 0 || budget.chars < 0) throw NO_JSON;
    switch (typeof value) {
        case 'string': {
            const text = jsonString(value);
            budget.chars -= text.length;
            return text;
        }
        case 'number':
            return i.isFiniteNumber(value) ? `${value}` : 'null';
        case 'boolean':
            return value ? 'true' : 'false';
        case 'object':
            if (value === null) return 'null';
            break;
        default:
            throw NO_JSON;
    }
    if (depth === 0 || isProxy(value) || isBoxedPrimitive(value)) throw NO_JSON;
    if (isDate(value)) return i.isFiniteNumber(i.dateTime(value)) ? `"${i.dateToISO(value)}"` : 'null';
    const text = i.isArray(value) ? encodedArray(value, depth, budget) : encodedObject(value, depth, budget);
    budget.chars -= 2;
    return text;
}

function encodedArray(value, depth, budget) {
    let text = '';
    if (value.length > budget.values) throw NO_JSON; // Holes have no bytes, but take time.
    for (let index = 0; index < value.length; index++) {
        const entry = i.getOwnPropertyDescriptor(value, index);
        if (entry !== undefined && !i.hasOwn(entry, 'value')) throw NO_JSON;
        const item = entry === undefined ? undefined : entry.value;
        text += (index === 0 ? '' : ',') + (item === undefined ? 'null' : encoded(item, depth - 1, budget));
    }
    return `[${text}]`;
}

function encodedObject(value, depth, budget) {
    const prototype = i.getPrototypeOf(value);
    if (prototype !== null && prototype !== i.ObjectPrototype && i.getPrototypeOf(prototype) !== null)
        throw NO_JSON;
    if (prototype !== null && !i.hasOwn(prototype, 'hasOwnProperty')) throw NO_JSON; // an instance of a class
    const keys = i.ownKeys(value);
    let text = '';
    for (let index = 0; index < keys.length; index++) {
        const key = keys[index];
        const entry = i.getOwnPropertyDescriptor(value, key);
        if (typeof key !== 'string' || !entry.enumerable) continue;
        if (!i.hasOwn(entry, 'value')) throw NO_JSON;
        if (entry.value === undefined) continue;
        const name = jsonString(key);
        budget.chars -= name.length;
        text += `${text === '' ? '' : ','}${name}:${encoded(entry.value, depth - 1, budget)}`;
    }
    return `{${text}}`;
}

/** Bytes of one frame, or of two. The four characters in front make room for a length. */
function frame(body, second) {
    if (second === undefined) {
        const bytes = bytesFrom(`\0\0\0\0${body}`);
        setLength(bytes, 0, i.byteLengthOf(bytes) - 4);
        return bytes;
    }
    const bytes = bytesFrom(`\0\0\0\0${body}\0\0\0\0${second}`);
    const length = bufferByteLength(body);
    setLength(bytes, 0, length);
    setLength(bytes, 4 + length, i.byteLengthOf(bytes) - 8 - length);
    return bytes;
}

function setLength(bytes, at, length) {
    bytes[at] = length >>> 24;
    bytes[at + 1] = (length >>> 16) & 255;
    bytes[at + 2] = (length >>> 8) & 255;
    bytes[at + 3] = length & 255;
}

/** Bytes of a text in UTF-8. */
function byteLength(text) {
    return bufferByteLength(text);
}

module.exports = {
    JSON_DEPTH_MAX,
    NO_JSON,
    jsonString,
    json,
    frame,
    byteLength,
};
