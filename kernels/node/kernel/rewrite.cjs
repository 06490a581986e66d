/**
 * From the JavaScript of a cell to the script that V8 runs in REPL mode.
 *
 * V8 has top-level await and keeps the scope; what it lacks is written in: `import` and `export`,
 * the value of the last expression, names declared again as something else, and an `await` that
 * does not go on after its run has been interrupted. Lines stay where they are.
 */

'use strict';

const { Edits } = require('./edits.cjs');
const { HELPER } = require('./shared.cjs');
const { eachChild, isFunction, parse } = require('./syntax.cjs');

const NEEDS_WALK = /\b(?:await|import)\b/;

/**
 * `{ code, shifts, changes }`; `changes` is for `declarations.undo`. `lenient`: a name that a module
 * does not export is undefined, as a type is. Throws what acorn throws.
 */
function rewrite(source, { declarations, count, serial, lenient }) {
    const { text, tree } = parsed(source);
    const edits = new Edits(text);
    const own = declarations.forCell(edits, count);
    const cell = { edits, own, serial, lenient, enums: new Set() };
    try {
        if (/\bvar\b/.test(text)) own.variables(tree);
        tree.body.forEach((statement, index) => topLevel(cell, statement, index === tree.body.length - 1));
        if (NEEDS_WALK.test(text)) awaits(cell, tree, true);
        own.guardConstants(tree);
    } catch (error) {
        declarations.undo(own.changes);
        throw error;
    }
    const prologue = own.prologue();
    if (prologue !== '') edits.insertFirst(...afterDirectives(text, tree.body, prologue));
    const { code, shifts } = edits.apply();
    // What V8 makes the value of a loop or a block is not that of a last expression.
    return { code: `${code}\n;void 0`, shifts, changes: own.changes };
}

/** Where `prologue` can stand, and how. */
function afterDirectives(text, body, prologue) {
    const first = body.findIndex((statement) => statement.directive === undefined);
    if (first > 0) return [body[first - 1].end, `;${prologue}`];
    return [text.startsWith('#!') ? text.indexOf('\n') + 1 : 0, prologue];
}

/** An object literal alone is a value, as in every console, not a block with labels. */
function parsed(source) {
    if (/^\s*\{/.test(source) && /\}\s*$/.test(source)) {
        try {
            const text = `(${source}\n)`;
            const tree = parse(text);
            if (tree.body.length === 1 && tree.body[0].expression?.type === 'ObjectExpression')
                return { text, tree };
        } catch {
            // It is a block.
        }
    }
    return { text: source, tree: parse(source) };
}

function topLevel(cell, statement, last) {
    const { edits, own } = cell;
    switch (statement.type) {
        case 'VariableDeclaration':
            if (statement.kind === 'let' || statement.kind === 'const') own.lexical(statement);
            else if (cell.lenient) enumeration(cell, statement);
            break;
        case 'ClassDeclaration':
            own.class(statement);
            break;
        case 'FunctionDeclaration':
            own.function(statement);
            break;
        case 'ImportDeclaration':
            imports(cell, statement);
            break;
        case 'ExportNamedDeclaration':
        case 'ExportDefaultDeclaration':
        case 'ExportAllDeclaration':
            exports(cell, statement, last);
            break;
        case 'ExpressionStatement':
            if (last) value(cell, statement.expression);
            break;
        default:
    }
}

/**
 * TypeScript's `enum`, compiled: `var E = function (E) { … }(E || {})`. Within a cell a second one
 * adds to the first; one of an earlier cell is declared anew.
 */
function enumeration({ edits, enums }, { declarations: [{ id, init }] }) {
    const [given] =
        init?.type === 'CallExpression' && init.callee.type === 'FunctionExpression' ? init.arguments : [];
    if (given?.type !== 'LogicalExpression' || given.left.name !== id.name) return;
    if (!enums.has(id.name)) edits.replace(given.start, given.end, '{}');
    enums.add(id.name);
}

/** The value of the cell. The inner parentheses are for `a, b`. */
function value({ edits, serial }, expression) {
    edits.wrap(expression.start, expression.end, `await ${HELPER}.value(${serial},(`, '))');
}

// === import and export

/** The expression that loads a module. One of `names` that it does not export is an error. */
function load({ edits, serial, lenient }, statement, names) {
    const attributes = (statement.attributes ?? []).map(
        ({ key, value: text }) => `${JSON.stringify(key.name ?? key.value)}:${JSON.stringify(text.value)}`,
    );
    const options = attributes.length > 0 ? `{with:{${attributes.join()}}}` : 'undefined';
    const wanted = lenient || names.length === 0 ? '' : `,${JSON.stringify(names)}`;
    const breaks = edits.breaks(statement.start, statement.end);
    return `await ${HELPER}.guard(${serial},${HELPER}.load(${statement.source.raw},${options}${wanted}))${breaks}`;
}

function imports(cell, statement) {
    const { specifiers } = statement;
    const namespace = specifiers.find(({ type }) => type === 'ImportNamespaceSpecifier')?.local.name;
    const named = specifiers.filter(({ type }) => type !== 'ImportNamespaceSpecifier');
    const names = named.map(({ imported }) =>
        imported === undefined ? 'default' : (imported.name ?? imported.value),
    );
    const pattern = `{${named.map(({ local }, index) => `${JSON.stringify(names[index])}:${local.name}`).join()}}`;
    const call = load(cell, statement, names);
    let text = `${call};`;
    if (specifiers.length > 0) {
        const { before, after } = cell.own.binding(
            specifiers.map(({ local }) => local.name),
            true,
        );
        const bindings = namespace === undefined ? [`${pattern}=${call}`] : [`${namespace}=${call}`];
        if (namespace !== undefined && named.length > 0) bindings.push(`${pattern}=${namespace}`);
        text = before + bindings.join() + after;
    }
    cell.edits.replace(statement.start, statement.end, text);
}

/** A cell exports to nobody: what is exported is declared. */
function exports(cell, statement, last) {
    const { edits } = cell;
    const inner = statement.declaration;
    if (statement.source) {
        edits.replace(statement.start, statement.end, `${load(cell, statement, [])};`);
    } else if (!inner) {
        edits.remove(statement.start, statement.end);
    } else if (inner.type.endsWith('Declaration') && inner.id !== null) {
        edits.remove(statement.start, inner.start);
        topLevel(cell, inner, false);
    } else {
        // `export default` of something without a name.
        edits.replace(statement.start, inner.start, `;${edits.breaks(statement.start, inner.start)}`);
        edits.wrap(inner.start, inner.end, '(', ');');
        if (last) value(cell, inner);
    }
}

// === await, import(), import.meta

/** `top` is false inside of functions, whose awaits are their own. */
function awaits(cell, node, top) {
    const { edits, serial } = cell;
    if (node.type === 'AwaitExpression' && top) {
        edits.wrap(node.argument.start, node.argument.end, `${HELPER}.guard(${serial},(`, '))');
    } else if (node.type === 'ForOfStatement' && node.await && top) {
        edits.wrap(node.right.start, node.right.end, `${HELPER}.each(${serial},(`, '))');
    } else if (node.type === 'ImportExpression') {
        edits.replace(node.start, node.start + 'import'.length, `${HELPER}.load`);
    } else if (node.type === 'MetaProperty' && node.meta.name === 'import') {
        edits.replace(node.start, node.end, `${HELPER}.meta`);
    }
    eachChild(node, (child) => awaits(cell, child, top && !isFunction(child)));
}

module.exports = {
    rewrite,
};
