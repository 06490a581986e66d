/**
 * Tables for `display.table`: rows of objects, of arrays, or columns by name, as the document
 * `application/vnd.crownest.table+json` (docs/tables.md).
 */

'use strict';

const { inspect, types } = require('node:util');
const i = require('./intrinsics.cjs');

const VERSION = 1;
const ROWS_MAX = 200;
const COLUMNS_MAX = 500;
const CELLS_MAX = 20_000;
const CELL_CHARS_MAX = 2_000;
const NAME_CHARS_MAX = 500;
const { isDate, isProxy } = types;
const { isSafeInteger } = Number;
const { floor } = Math;
const SHORT = i.freeze({
    __proto__: null,
    colors: false,
    depth: 2,
    breakLength: Infinity,
    compact: 3,
    customInspect: false,
});

/** The document, or null for what is no table. `names`: the columns and their order. */
function table(rows, names) {
    const list = rowList(rows);
    if (list === null) return null;
    const columns = i.isArray(names) ? names : columnNames(list);
    const wide = i.min(columns.length, COLUMNS_MAX);
    const shown = i.min(list.length, ROWS_MAX, i.max(1, floor(CELLS_MAX / i.max(1, wide))));
    const described = [];
    const cells = [];
    const counts = { cut: 0 };
    for (let row = 0; row < shown; row++) i.append(cells, []);
    for (let index = 0; index < wide; index++) {
        const values = [];
        for (let row = 0; row < shown; row++) i.append(values, property(list[row], columns[index]));
        const column = typed(values, counts);
        i.append(described, { name: cut(i.StringOf(columns[index]), NAME_CHARS_MAX), ...column.described });
        for (let row = 0; row < shown; row++) i.append(cells[row], column.cells[row]);
    }
    const omitted = {};
    if (list.length > shown) omitted.rows = list.length - shown;
    if (columns.length > wide) omitted.columns = columns.length - wide;
    if (counts.cut > 0) omitted.cut_cells = counts.cut;
    return {
        version: VERSION,
        library: 'javascript',
        kind: 'table',
        columns: described,
        rows: cells,
        row_count: list.length,
        column_count: columns.length,
        ...(i.ownKeys(omitted).length === 0 ? {} : { omitted }),
    };
}

/** An array of rows, made of columns by name where it has to be. */
function rowList(rows) {
    if (typeof rows !== 'object' || rows === null || isProxy(rows)) return null;
    if (i.isArray(rows)) return rows;
    const names = i.ownKeys(rows);
    const list = [];
    for (let index = 0; index < names.length; index++) {
        const column = property(rows, names[index]);
        if (!i.isArray(column)) return null;
        for (let row = 0; row < column.length; row++) {
            if (list.length <= row) i.append(list, {});
            list[row][names[index]] = column[row];
        }
    }
    return list;
}

/** Keys of the rows in the order in which they first occur; numbers of columns for arrays. */
function columnNames(list) {
    const seen = i.create(null);
    const names = [];
    for (let row = 0; row < i.min(list.length, ROWS_MAX); row++) {
        const it = list[row];
        if (typeof it !== 'object' || it === null || isProxy(it)) continue;
        const keys = i.ownKeys(it);
        for (let index = 0; index < keys.length; index++) {
            const key = keys[index];
            if (typeof key !== 'string' || seen[key] === true || (i.isArray(it) && key === 'length'))
                continue;
            seen[key] = true;
            i.append(names, key);
        }
    }
    return names;
}

function property(object, key) {
    if (typeof object !== 'object' || object === null || isProxy(object)) return undefined;
    const entry = i.getOwnPropertyDescriptor(object, key);
    return entry === undefined ? undefined : entry.value;
}

/** The cells of a column as JSON, and what it is of. */
function typed(values, counts) {
    let type = 'null';
    let nullable = false;
    for (let index = 0; index < values.length; index++) {
        const kind = kindOf(values[index]);
        if (kind === 'null') nullable = true;
        else if (type === 'null' || (type === 'integer' && kind === 'float')) type = kind;
        else if (type !== kind && !(type === 'float' && kind === 'integer')) type = 'mixed';
    }
    const exact = type !== 'integer' || !hasBigint(values);
    const cells = [];
    for (let index = 0; index < values.length; index++) {
        i.append(cells, cell(values[index], exact, counts));
    }
    const described = { dtype: DTYPES[type] ?? 'object', type, nullable };
    if (!exact) described.encoding = 'string';
    return { described, cells };
}

const DTYPES = {
    __proto__: null,
    boolean: 'boolean',
    integer: 'number',
    float: 'number',
    string: 'string',
    datetime: 'Date',
    null: 'undefined',
};

function kindOf(value) {
    switch (typeof value) {
        case 'boolean':
        case 'string':
            return typeof value;
        case 'number':
            return isSafeInteger(value) ? 'integer' : 'float';
        case 'bigint':
            return 'integer';
        case 'undefined':
            return 'null';
        default:
            if (value === null) return 'null';
            return typeof value === 'object' && isDate(value) ? 'datetime' : 'object';
    }
}

function hasBigint(values) {
    for (let index = 0; index < values.length; index++) if (typeof values[index] === 'bigint') return true;
    return false;
}

function cell(value, exact, counts) {
    switch (typeof value) {
        case 'undefined':
            return null;
        case 'bigint':
            return `${value}`;
        case 'number':
            if (!exact) return `${value}`;
            return i.isFiniteNumber(value) ? value : `${value}`;
        case 'boolean':
            return value;
        case 'string':
            break;
        default:
            if (value === null) return null;
            if (typeof value === 'object' && isDate(value))
                return i.isFiniteNumber(i.dateTime(value)) ? i.dateToISO(value) : null;
            value = inspect(value, SHORT);
    }
    if (value.length > CELL_CHARS_MAX) counts.cut += 1;
    return cut(value, CELL_CHARS_MAX);
}

function cut(text, charsMax) {
    return text.length <= charsMax ? text : `${i.stringSlice(text, 0, charsMax - 1)}…`;
}

module.exports = {
    table,
};
