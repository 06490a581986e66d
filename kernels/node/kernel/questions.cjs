/**
 * Looking at the context for a query: names, one value, the variables. Runs between runs on the
 * main thread. V8 refuses expressions with side effects; getters are not called; proxies are not
 * asked. What is found goes to the protocol thread, which makes the answer of it (asker.cjs).
 */

'use strict';

const { inspect, types } = require('node:util');
const i = require('./intrinsics.cjs');
const { HELPER } = require('./shared.cjs');

const NAMES_MAX = 5_000;
const PROTOTYPES_MAX = 32;
const SOURCE_CHARS_MAX = 64 * 1024;
const PREVIEW_CHARS_MAX = 200;
const TYPE_CHARS_MAX = 100;
const DIMENSIONS_MAX = 32;
/** Arrays in an array that are compared for the shape of a table. */
const ROWS_COMPARED_MAX = 1_000;

const { isMap, isSet, isProxy, isTypedArray, isModuleNamespaceObject, isNativeError } = types;
const PREVIEW = i.freeze({
    __proto__: null,
    colors: false,
    depth: 1,
    customInspect: false,
    getters: false,
    breakLength: Infinity,
    compact: 3,
    maxArrayLength: 20,
    maxStringLength: PREVIEW_CHARS_MAX,
});
const IDENTIFIER = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;
const isMatch = i.uncurry(RegExp.prototype.test);

/** Own names of the global object before any cell. */
let builtin = i.create(null);

function rememberBuiltins() {
    const keys = i.ownKeys(globalThis);
    for (let index = 0; index < keys.length; index++) builtin[keys[index]] = true;
    builtin._exit_code = true;
}

/** What the protocol thread makes an answer of, or null when the query is not known. */
function answerTo(question, engine) {
    switch (question.query) {
        case 'names':
            return {
                names:
                    question.base === null ? globalNames(question.prefix, engine) : members(question, engine),
            };
        case 'value':
            return { value: valueOf(question, engine) };
        case 'variables':
            return variables(question, engine);
        case 'nothing':
            return { names: [], value: undefined };
        default:
            return null;
    }
}

// === names

function globalNames(prefix, engine) {
    const names = [];
    const lexical = engine.lexicalNames();
    for (let index = 0; index < lexical.length && names.length < NAMES_MAX; index++) {
        if (!i.startsWith(lexical[index], prefix)) continue;
        const { found, value } = engine.look(lexical[index]);
        if (found) i.append(names, { text: lexical[index], kind: kindOf(value) });
    }
    for (
        let object = globalThis, depth = 0;
        object !== null && depth < PROTOTYPES_MAX;
        object = i.getPrototypeOf(object), depth++
    ) {
        appendKeys(names, object, prefix, 'variable');
    }
    return names;
}

function members({ base, prefix }, engine) {
    const names = [];
    const { found, value } = engine.look(base);
    if (!found || value === undefined || value === null) return names;
    let object =
        typeof value === 'object' || typeof value === 'function' ? value : i.getPrototypeOf(Object(value));
    for (let depth = 0; object !== null && depth < PROTOTYPES_MAX && !isProxy(object); depth++) {
        appendKeys(names, object, prefix, 'property');
        object = i.getPrototypeOf(object);
    }
    return names;
}

function appendKeys(names, object, prefix, otherwise) {
    const keys = i.ownKeys(object);
    for (let index = 0; index < keys.length && names.length < NAMES_MAX; index++) {
        const key = keys[index];
        if (
            typeof key !== 'string' ||
            key === HELPER ||
            !i.startsWith(key, prefix) ||
            !isMatch(IDENTIFIER, key)
        )
            continue;
        const entry = i.getOwnPropertyDescriptor(object, key);
        const kind = entry !== undefined && i.hasOwn(entry, 'value') ? kindOf(entry.value) : otherwise;
        i.append(names, { text: key, kind: kind === 'variable' ? otherwise : kind });
    }
}

function kindOf(value) {
    if (typeof value === 'function') return isClass(value) ? 'class' : 'function';
    return typeof value === 'object' && value !== null && isModuleNamespaceObject(value)
        ? 'module'
        : 'variable';
}

function isClass(value) {
    return !isProxy(value) && i.startsWith(i.functionToString(value), 'class');
}

// === one value

function valueOf({ expression, isName }, engine) {
    const { found, value } = engine.look(expression);
    if (!found || (value === undefined && !isName)) return undefined;
    const source = sourceOf(value);
    return { type: typeOf(value), signature: signatureOf(value, source), source, preview: previewOf(value) };
}

function sourceOf(value) {
    if (typeof value !== 'function' || isProxy(value)) return '';
    const source = i.functionToString(value);
    return i.endsWith(source, '{ [native code] }') ? '' : i.stringSlice(source, 0, SOURCE_CHARS_MAX);
}

/** `class A extends B`, `async function f(a, b = 1)`, `(a, b) => …`, `join(…)`. */
function signatureOf(value, source) {
    if (typeof value !== 'function') return '';
    if (source === '')
        return `${typeOf(value)} ${dataProperty(value, 'name') ?? ''}(${dataProperty(value, 'length') > 0 ? '…' : ''})`;
    if (i.startsWith(source, 'class'))
        return i.stringSlice(source, 0, i.max(0, i.stringIndexOf(source, '{'))) || source;
    let depth = 0;
    for (let index = 0; index < source.length; index++) {
        const code = i.stringCharCodeAt(source, index);
        if (code === 40) depth += 1;
        else if (code === 41 && --depth === 0) return i.stringSlice(source, 0, index + 1);
        else if (depth === 0 && code === 61) return i.stringSlice(source, 0, index); // a => …
    }
    return source;
}

// === variables

/** `order`: names as cells have declared them first. */
function variables({ limit, order }, engine) {
    const names = existing(order, engine.lexicalNames());
    const described = [];
    let omitted = 0;
    for (let index = 0; index < names.length; index++) {
        if (described.length >= limit) {
            omitted += 1;
            continue;
        }
        const { found, value } = engine.look(names[index]);
        if (found) i.append(described, variable(names[index], value));
    }
    return { variables: described, omitted };
}

/** All names of cells that exist: declared ones in order, then those that were only assigned. */
function existing(order, lexical) {
    const exists = i.create(null);
    for (let index = 0; index < lexical.length; index++) exists[lexical[index]] = true;
    const globals = i.ownKeys(globalThis);
    for (let index = 0; index < globals.length; index++) {
        const name = globals[index];
        if (
            typeof name === 'string' &&
            builtin[name] !== true &&
            isMatch(IDENTIFIER, name) &&
            !isHoisted(name)
        )
            exists[name] = true;
    }
    const names = [];
    for (let index = 0; index < order.length; index++) {
        if (exists[order[index]] !== true) continue;
        i.append(names, order[index]);
        exists[order[index]] = false;
    }
    const rest = i.ownKeys(exists);
    for (let index = 0; index < rest.length; index++) if (exists[rest[index]]) i.append(names, rest[index]);
    return names;
}

/** The other name of a function, see declarations.cjs. */
function isHoisted(name) {
    const entry = i.getOwnPropertyDescriptor(globalThis, name);
    if (typeof entry?.value !== 'function' || isProxy(entry.value)) return false;
    const own = dataProperty(entry.value, 'name');
    return own !== name && i.startsWith(name, `${own}$`);
}

function variable(name, value) {
    const size = sizeOf(value);
    const shape = shapeOf(value);
    return {
        name,
        type: i.stringSlice(typeOf(value), 0, TYPE_CHARS_MAX),
        kind: kindOf(value),
        ...(shape === undefined ? {} : { shape }),
        ...(size === undefined ? {} : { size }),
        preview: previewOf(value),
    };
}

function typeOf(value) {
    if (value === null) return 'null';
    if (typeof value === 'function' && isClass(value)) return 'class';
    if (typeof value !== 'object' || isProxy(value)) return typeof value;
    if (i.isArray(value)) return 'Array';
    if (isModuleNamespaceObject(value)) return 'module';
    for (
        let object = value, depth = 0;
        object !== null && depth < PROTOTYPES_MAX && !isProxy(object);
        depth++
    ) {
        const constructed = dataProperty(object, 'constructor');
        const name =
            typeof constructed === 'function' && !isProxy(constructed)
                ? dataProperty(constructed, 'name')
                : undefined;
        if (typeof name === 'string' && name !== '') return name;
        object = i.getPrototypeOf(object);
    }
    return 'Object';
}

function sizeOf(value) {
    if (typeof value === 'string') return value.length;
    if (typeof value !== 'object' || value === null || isProxy(value)) return undefined;
    if (i.isArray(value)) return value.length;
    if (isTypedArray(value)) return i.typedArrayLength(value);
    if (isMap(value)) return i.mapSize(value);
    if (isSet(value)) return i.setSize(value);
    return i.getPrototypeOf(value) === i.ObjectPrototype ? i.ownKeys(value).length : undefined;
}

/** Of what has a `shape` (matrices, data frames), and of rows of one length. */
function shapeOf(value) {
    if (typeof value !== 'object' || value === null || isProxy(value)) return undefined;
    if (!i.isArray(value)) return dimensions(dataProperty(value, 'shape'));
    if (value.length === 0 || value.length > ROWS_COMPARED_MAX) return undefined;
    let columns;
    for (let index = 0; index < value.length; index++) {
        const row = dataProperty(value, index);
        if (!i.isArray(row) || isProxy(row) || (columns !== undefined && row.length !== columns))
            return undefined;
        columns = row.length;
    }
    return [value.length, columns];
}

function dimensions(shape) {
    if (!i.isArray(shape) || isProxy(shape) || shape.length === 0 || shape.length > DIMENSIONS_MAX)
        return undefined;
    const copy = [];
    for (let index = 0; index < shape.length; index++) {
        const size = dataProperty(shape, index);
        if (typeof size !== 'number' || size < 0 || size % 1 !== 0) return undefined;
        i.append(copy, size);
    }
    return copy;
}

function previewOf(value) {
    const text = isNativeError(value)
        ? `${typeOf(value)}: ${dataProperty(value, 'message') ?? ''}`
        : inspect(value, PREVIEW);
    return text.length <= PREVIEW_CHARS_MAX ? text : `${i.stringSlice(text, 0, PREVIEW_CHARS_MAX - 1)}…`;
}

/** An own property that is no getter. */
function dataProperty(object, key) {
    const entry = i.getOwnPropertyDescriptor(object, key);
    return entry === undefined ? undefined : entry.value;
}

module.exports = {
    rememberBuiltins,
    answerTo,
};
