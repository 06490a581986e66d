/**
 * What the driver's main thread needs of JavaScript, taken before any cell can replace it.
 *
 * The modules of the main thread call these instead of methods, and use no syntax that goes through
 * a replaceable method: no `for…of`, no spread, no destructuring of arrays. Objects that are looked
 * into by name have no prototype.
 */

const { bind, call } = Function.prototype;

/** A method as a function that takes `this` first. */
export const uncurry = bind.bind(call);

export const {
    apply,
    construct,
    defineProperty,
    deleteProperty,
    getOwnPropertyDescriptor,
    getPrototypeOf,
    ownKeys,
    setPrototypeOf,
} = Reflect;
export const { create, freeze, is } = Object;
export const { isArray } = Array;
export const { compareExchange, load, notify, store, wait } = Atomics;
export const atomicAdd = Atomics.add;
export const { stringify } = JSON;
export const { isFinite: isFiniteNumber } = Number;
export const { min, max } = Math;
export const StringOf = String;
export const ErrorClass = Error;
export const TypeErrorClass = TypeError;
export const SyntaxErrorClass = SyntaxError;
export const PromiseClass = Promise;
export const WeakSetClass = WeakSet;
export const ObjectPrototype = Object.prototype;
export const ArrayPrototype = Array.prototype;
export const ErrorPrototype = Error.prototype;
export const JUPYTER_DISPLAY = Symbol.for('Jupyter.display');

export const hasOwn = uncurry(ObjectPrototype.hasOwnProperty);
export const functionToString = uncurry(Function.prototype.toString);
export const stringSlice = uncurry(String.prototype.slice);
export const stringIndexOf = uncurry(String.prototype.indexOf);
export const stringLastIndexOf = uncurry(String.prototype.lastIndexOf);
export const stringCharCodeAt = uncurry(String.prototype.charCodeAt);
export const isWellFormed = uncurry(String.prototype.isWellFormed);
export const toWellFormed = uncurry(String.prototype.toWellFormed);
export const endsWith = uncurry(String.prototype.endsWith);
export const startsWith = uncurry(String.prototype.startsWith);
export const dateToISO = uncurry(Date.prototype.toISOString);
export const dateTime = uncurry(Date.prototype.getTime);
export const weakSetAdd = uncurry(WeakSet.prototype.add);
export const weakSetHas = uncurry(WeakSet.prototype.has);
export const mapSize = uncurry(getOwnPropertyDescriptor(Map.prototype, 'size').get);
export const setSize = uncurry(getOwnPropertyDescriptor(Set.prototype, 'size').get);
const typedArrayPrototype = getPrototypeOf(Uint8Array.prototype);
export const typedArrayLength = uncurry(getOwnPropertyDescriptor(typedArrayPrototype, 'length').get);
export const byteLengthOf = uncurry(getOwnPropertyDescriptor(typedArrayPrototype, 'byteLength').get);
export const subarray = uncurry(Uint8Array.prototype.subarray);

/** Appends to an array of ours, whatever Array.prototype has become. */
export function append(list, value) {
    defineProperty(list, list.length, {
        __proto__: null,
        value,
        writable: true,
        enumerable: true,
        configurable: true,
    });
}
export const errorToString = uncurry(Error.prototype.toString);
