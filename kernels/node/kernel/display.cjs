/**
 * The global `display`: shows values while a cell runs, in as many forms as they have.
 *
 *   display(value, { id, update, raw, metadata })
 *   display.html(text), .svg, .markdown, .latex, .javascript, .png(bytes or base64), .jpeg, .pdf,
 *   display.json(data), .chart(data), .table(rows, { columns }), .mime({ type: content })
 *   display.update(id, value), display.clear({ wait })
 *
 * With `id` (a string, or true for a new one) the answer is a handle that can `update` the output.
 */

'use strict';

const i = require('./intrinsics.cjs');
const { add, addAll, bundleOf, fields, newBundle, plainText, setMetadata } = require('./bundle.cjs');
const { jsonString } = require('./encode.cjs');
const { table } = require('./table.cjs');

const ID_CHARS_MAX = 200;

/** Methods of `display` for one type each. */
const TYPES = {
    __proto__: null,
    html: 'text/html',
    markdown: 'text/markdown',
    latex: 'text/latex',
    svg: 'image/svg+xml',
    png: 'image/png',
    jpeg: 'image/jpeg',
    gif: 'image/gif',
    pdf: 'application/pdf',
    javascript: 'application/javascript',
    json: 'application/json',
    chart: 'application/vnd.crownest.chart+json',
};

/** An output that can be replaced. Not shown itself when it is the value of a cell. */
class Display {
    constructor(id) {
        this.id = id;
    }

    update(value, options) {
        return show(value, { ...options, id: this.id, update: true });
    }
}

/** Made-up ids: different in every driver. */
const ids = `${process.pid}-${process.hrtime.bigint()}`;
let made = 0;

/** Sends one event of the run that is active, as the JSON text of its fields after `run`. */
let emit = () => {};

function publish(bundle, options) {
    const { update = false, metadata } = options ?? {};
    let { id } = options ?? {};
    if (id === true) {
        made += 1;
        id = `${ids}-${made}`;
    }
    setMetadata(bundle, metadata);
    let event = fields(bundle);
    if (id !== undefined && id !== null) {
        id = i.stringSlice(i.StringOf(id), 0, ID_CHARS_MAX);
        event += `,"display_id":${jsonString(id)}`;
    }
    if (update) event += ',"update":true';
    emit('display', event, bundle);
    return id === undefined || id === null ? undefined : new Display(id);
}

function show(value, options) {
    if (options?.raw) {
        const bundle = newBundle();
        if (typeof value === 'object' && value !== null) addAll(bundle, value);
        return publish(bundle, options);
    }
    return publish(bundleOf(value), options);
}

/** Makes `display` a global. */
function install(sender) {
    emit = sender;
    function display(value, options) {
        return show(value, options);
    }
    const method = (name, call) =>
        i.defineProperty(display, name, { __proto__: null, value: call, writable: true, configurable: true });
    const names = i.ownKeys(TYPES);
    for (let index = 0; index < names.length; index++) {
        const mime = TYPES[names[index]];
        method(names[index], (content, options) => {
            const bundle = newBundle();
            add(bundle, mime, content);
            return publish(bundle, options);
        });
    }
    method('text', (content, options) => publish(textOnly(content), options));
    method('mime', (entries, options) => show(entries, { ...options, raw: true }));
    method('table', (rows, options) => {
        const bundle = newBundle();
        const made = table(rows, options?.columns);
        add(bundle, 'text/plain', plainText(rows));
        if (made !== null) add(bundle, 'application/vnd.crownest.table+json', made);
        return publish(bundle, options);
    });
    method('update', (id, value, options) => show(value, { ...options, id, update: true }));
    method('clear', (options) => emit('clear', `"wait":${options?.wait === true || options === true}`, null));
    i.defineProperty(globalThis, 'display', {
        __proto__: null,
        value: display,
        writable: true,
        configurable: true,
    });
}

function textOnly(content) {
    const bundle = newBundle();
    add(bundle, 'text/plain', typeof content === 'string' ? content : plainText(content));
    return bundle;
}

module.exports = {
    Display,
    install,
};
