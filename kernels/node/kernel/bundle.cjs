/**
 * Values to MIME bundles, as JSON text for `result` and `display` events.
 *
 * Everything in a bundle comes from tenant code: types, sizes and depth are checked, since one
 * invalid frame ends the context.
 */

'use strict';

const { inspect, types } = require('node:util');
const i = require('./intrinsics.cjs');
const { byteLength, json, jsonString, NO_JSON } = require('./encode.cjs');

const ENTRY_BYTES_MAX = 8 * 1024 * 1024;
/** Below the frame's limit by what the envelope and metadata may take. */
const BUNDLE_BYTES_MAX = 11 * 1024 * 1024;
const ENTRIES_MAX = 64;
const MIME_CHARS_MAX = 200;
const METADATA_BYTES_MAX = 64 * 1024;

const { from: bytesFrom } = Buffer;
const bytesToString = i.uncurry(Buffer.prototype.toString);
const { isAnyArrayBuffer, isProxy, isUint8Array, isPromise } = types;
const PLAIN = i.freeze({ __proto__: null, colors: false });

/** A bundle being made. `problems` are texts for stderr. */
function newBundle() {
    return { __proto__: null, mimes: [], texts: [], omitted: [], metadata: '', problems: [], shown: '' };
}

/** text/plain: a string is itself. What a value's own inspection throws is told instead of it. */
function plainText(value) {
    return typeof value === 'string' ? value : inspect(value, PLAIN);
}

/** The bundle of a value. Runs tenant code: inspection and representations of the value's class. */
function bundleOf(value) {
    const bundle = newBundle();
    const own = ownRepresentations(value, bundle);
    if (own !== undefined) addAll(bundle, own);
    if (!includes(bundle.mimes, 'text/plain')) add(bundle, 'text/plain', plainText(value));
    if (own === undefined && typeof value === 'object' && value !== null)
        addJson(bundle, 'application/json', value, true);
    return bundle;
}

/** What `value[Symbol.for('Jupyter.display')]()` gives: an object of MIME types. */
function ownRepresentations(value, bundle) {
    if ((typeof value !== 'object' && typeof value !== 'function') || value === null || isProxy(value))
        return undefined;
    const method = value[i.JUPYTER_DISPLAY];
    if (typeof method !== 'function') return undefined;
    const given = i.apply(method, value, []);
    if (typeof given === 'object' && given !== null && !isPromise(given)) return given;
    i.append(bundle.problems, "Symbol.for('Jupyter.display') gave no object of MIME types");
    return undefined;
}

/** Adds every entry of an object by MIME type. */
function addAll(bundle, entries) {
    const keys = i.ownKeys(entries);
    for (let index = 0; index < keys.length && index < ENTRIES_MAX; index++) {
        if (typeof keys[index] === 'string' && entries[keys[index]] !== undefined) {
            add(bundle, keys[index], entries[keys[index]]);
        }
    }
}

/** Adds one entry: JSON for types that end in `json`, else text, or bytes as base64. */
function add(bundle, mime, value) {
    if (mime.length === 0 || mime.length > MIME_CHARS_MAX) return;
    if (i.endsWith(mime, 'json')) {
        addJson(bundle, mime, value, false);
    } else if (isUint8Array(value) || isAnyArrayBuffer(value)) {
        const bytes = isUint8Array(value) ? value : bytesFrom(value);
        addText(
            bundle,
            mime,
            bytesToString(
                bytesFrom(bytes.buffer, bytes.byteOffset, i.byteLengthOf(bytes)),
                isBinary(mime) ? 'base64' : 'utf8',
            ),
        );
    } else if (typeof value !== 'string') {
        leaveOut(bundle, mime, `it is of type ${typeof value}`);
    } else if (isBinary(mime) && !isBase64(value)) {
        leaveOut(bundle, mime, 'it is not base64');
    } else {
        addText(bundle, mime, isBinary(mime) ? bytesToString(bytesFrom(value, 'base64'), 'base64') : value);
    }
}

function addJson(bundle, mime, value, quietly) {
    try {
        const text = json(value, 2 * ENTRY_BYTES_MAX);
        const bytes = byteLength(text);
        if (bytes > ENTRY_BYTES_MAX) omit(bundle, mime, bytes);
        else put(bundle, mime, text);
    } catch (error) {
        if (error !== NO_JSON) throw error;
        if (!quietly) leaveOut(bundle, mime, 'it is no plain data, or nested too deeply');
    }
}

function addText(bundle, mime, text) {
    if (mime === 'text/plain') bundle.shown = text;
    const bytes = byteLength(text);
    if (bytes > ENTRY_BYTES_MAX) omit(bundle, mime, bytes);
    else put(bundle, mime, jsonString(text));
}

function put(bundle, mime, text) {
    i.append(bundle.mimes, mime);
    i.append(bundle.texts, text);
}

function omit(bundle, mime, bytes) {
    i.append(bundle.omitted, `{"mime":${jsonString(mime)},"bytes":${bytes}}`);
}

function leaveOut(bundle, mime, why) {
    i.append(bundle.problems, `${mime} was left out of an output: ${why}`);
}

/** Metadata by the caller of display(). */
function setMetadata(bundle, metadata) {
    if (metadata === undefined || metadata === null) return;
    try {
        const text = json({ __proto__: null, ...metadata, crownest: undefined }, METADATA_BYTES_MAX);
        if (text !== '{}' && i.startsWith(text, '{')) bundle.metadata = i.stringSlice(text, 1, -1);
    } catch (error) {
        if (error !== NO_JSON) throw error;
        i.append(bundle.problems, 'metadata of an output was left out: it is no plain data');
    }
}

function includes(list, text) {
    for (let index = 0; index < list.length; index++) if (list[index] === text) return true;
    return false;
}

function isBinary(mime) {
    if (mime === 'application/pdf' || mime === 'application/octet-stream') return true;
    if (mime === 'image/svg+xml') return false;
    return i.startsWith(mime, 'image/') || i.startsWith(mime, 'audio/') || i.startsWith(mime, 'video/');
}

/** Decoding takes everything and stops at what it does not know: so count what it took. */
function isBase64(text) {
    let digits = 0;
    let end = false;
    for (let index = 0; index < text.length; index++) {
        const code = i.stringCharCodeAt(text, index);
        if (code === 10 || code === 13 || code === 32 || code === 9) continue;
        if (code === 61) {
            end = true;
            continue;
        }
        const known =
            (code >= 48 && code <= 57) ||
            (code >= 65 && code <= 90) ||
            (code >= 97 && code <= 122) ||
            code === 43 ||
            code === 47;
        if (!known || end) return false;
        digits += 1;
    }
    return digits > 0 && digits % 4 !== 1;
}

/** `"data":{…},"metadata":{…}`, with what is too large for a frame left out and named. */
function fields(bundle) {
    let size = 0;
    for (let index = 0; index < bundle.texts.length; index++) size += byteLength(bundle.texts[index]);
    while (size > BUNDLE_BYTES_MAX) size -= omitLargest(bundle);
    let data = '';
    for (let index = 0; index < bundle.mimes.length; index++) {
        const text = bundle.texts[index];
        if (text !== null) data += `${data === '' ? '' : ','}${jsonString(bundle.mimes[index])}:${text}`;
    }
    let { metadata } = bundle;
    if (bundle.omitted.length > 0) {
        let omitted = bundle.omitted[0];
        for (let index = 1; index < bundle.omitted.length; index++) omitted += `,${bundle.omitted[index]}`;
        metadata += `${metadata === '' ? '' : ','}"crownest":{"omitted":[${omitted}]}`;
    }
    return `"data":{${data}},"metadata":{${metadata}}`;
}

function omitLargest(bundle) {
    let largest = 0;
    let bytes = -1;
    for (let index = 0; index < bundle.texts.length; index++) {
        const size = bundle.texts[index] === null ? -1 : byteLength(bundle.texts[index]);
        if (size > bytes) {
            largest = index;
            bytes = size;
        }
    }
    omit(bundle, bundle.mimes[largest], bytes);
    bundle.texts[largest] = null;
    return bytes;
}

module.exports = {
    newBundle,
    plainText,
    bundleOf,
    addAll,
    add,
    setMetadata,
    fields,
};
