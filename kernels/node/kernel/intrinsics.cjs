/**
 * What the driver's main thread needs of JavaScript, taken before any cell can replace it.
 *
 * The modules of the main thread call these instead of methods, and use no syntax that goes through
 * a replaceable method: no `for…of`, no spread, no destructuring of arrays. Objects that are looked
 * into by name have no prototype.
 */

'use strict';

const { bind, call } = Function.prototype;

/** A method as a function that takes `this` first. */
const uncurry = bind.bind(call);

const {
    apply,
    construct,
    defineProperty,
    deleteProperty,
    getOwnPropertyDescriptor,
    getPrototypeOf,
    ownKeys,
    setPrototypeOf,
} = Reflect;
const { create, freeze, is } = Object;
const { isArray } = Array;
const { compareExchange, load, notify, store, wait } = Atomics;
const atomicAdd = Atomics.add;
const { stringify } = JSON;
const { isFinite: isFiniteNumber } = Number;
const { min, max } = Math;
const StringOf = String;
const ErrorClass = Error;
const TypeErrorClass = TypeError;
const SyntaxErrorClass = SyntaxError;
const PromiseClass = Promise;
const WeakSetClass = WeakSet;
const ObjectPrototype = Object.prototype;
const ArrayPrototype = Array.prototype;
const ErrorPrototype = Error.prototype;
const JUPYTER_DISPLAY = Symbol.for('Jupyter.display');

const hasOwn = uncurry(ObjectPrototype.hasOwnProperty);
const functionToString = uncurry(Function.prototype.toString);
const stringSlice = uncurry(String.prototype.slice);
const stringIndexOf = uncurry(String.prototype.indexOf);
const stringLastIndexOf = uncurry(String.prototype.lastIndexOf);
const stringCharCodeAt = uncurry(String.prototype.charCodeAt);
const isWellFormed = uncurry(String.prototype.isWellFormed);
const toWellFormed = uncurry(String.prototype.toWellFormed);
const endsWith = uncurry(String.prototype.endsWith);
const startsWith = uncurry(String.prototype.startsWith);
const dateToISO = uncurry(Date.prototype.toISOString);
const dateTime = uncurry(Date.prototype.getTime);
const weakSetAdd = uncurry(WeakSet.prototype.add);
const weakSetHas = uncurry(WeakSet.prototype.has);
const mapSize = uncurry(getOwnPropertyDescriptor(Map.prototype, 'size').get);
const setSize = uncurry(getOwnPropertyDescriptor(Set.prototype, 'size').get);
const typedArrayPrototype = getPrototypeOf(Uint8Array.prototype);
const typedArrayLength = uncurry(getOwnPropertyDescriptor(typedArrayPrototype, 'length').get);
const byteLengthOf = uncurry(getOwnPropertyDescriptor(typedArrayPrototype, 'byteLength').get);
const subarray = uncurry(Uint8Array.prototype.subarray);

/** Appends to an array of ours, whatever Array.prototype has become. */
function append(list, value) {
    defineProperty(list, list.length, {
        __proto__: null,
        value,
        writable: true,
        enumerable: true,
        configurable: true,
    });
}
const errorToString = uncurry(Error.prototype.toString);

module.exports = {
    uncurry,
    atomicAdd,
    StringOf,
    ErrorClass,
    TypeErrorClass,
    SyntaxErrorClass,
    PromiseClass,
    WeakSetClass,
    ObjectPrototype,
    ArrayPrototype,
    ErrorPrototype,
    JUPYTER_DISPLAY,
    hasOwn,
    functionToString,
    stringSlice,
    stringIndexOf,
    stringLastIndexOf,
    stringCharCodeAt,
    isWellFormed,
    toWellFormed,
    endsWith,
    startsWith,
    dateToISO,
    dateTime,
    weakSetAdd,
    weakSetHas,
    mapSize,
    setSize,
    typedArrayLength,
    byteLengthOf,
    subarray,
    append,
    errorToString,
    apply,
    construct,
    defineProperty,
    deleteProperty,
    getOwnPropertyDescriptor,
    getPrototypeOf,
    ownKeys,
    setPrototypeOf,
    create,
    freeze,
    is,
    isArray,
    compareExchange,
    load,
    notify,
    store,
    wait,
    stringify,
    isFiniteNumber,
    min,
    max,
};
