/**
 * Syntax trees of cells: parsing, walking, names of patterns, and which names a scope declares.
 * Changes nothing; rewrite.cjs does.
 */

'use strict';

const { parse: acornParse } = require('acorn');

const OPTIONS = {
    ecmaVersion: 'latest',
    sourceType: 'script',
    allowAwaitOutsideFunction: true,
    allowImportExportEverywhere: true,
    allowHashBang: true,
};

/** The tree of a cell. Throws acorn's SyntaxError, or a RangeError for source nested too deeply. */
function parse(code) {
    return acornParse(code, OPTIONS);
}

function isFunction(node) {
    return (
        node.type === 'FunctionDeclaration' ||
        node.type === 'FunctionExpression' ||
        node.type === 'ArrowFunctionExpression'
    );
}

/** Calls `visit(child)` for the nodes right below `node`, in the order of their source. */
function eachChild(node, visit) {
    for (const key in node) {
        const value = node[key];
        if (value === null || typeof value !== 'object') continue;
        if (Array.isArray(value)) {
            for (const item of value) if (item !== null && typeof item.type === 'string') visit(item);
        } else if (typeof value.type === 'string') {
            visit(value);
        }
    }
}

/** Names that a pattern binds. */
function patternNames(pattern, names = []) {
    switch (pattern?.type) {
        case 'Identifier':
            names.push(pattern.name);
            break;
        case 'ObjectPattern':
            for (const property of pattern.properties)
                patternNames(property.value ?? property.argument, names);
            break;
        case 'ArrayPattern':
            for (const element of pattern.elements) patternNames(element, names);
            break;
        case 'AssignmentPattern':
            patternNames(pattern.left, names);
            break;
        case 'RestElement':
            patternNames(pattern.argument, names);
            break;
        default: // a hole, or a member that is assigned to
    }
    return names;
}

function declaredNames(declaration) {
    return declaration.declarations.flatMap((declarator) => patternNames(declarator.id));
}

/** Every `var` of the function that `node` belongs to: `{ node, head }`, `head` in that of a loop. */
function varDeclarations(node, found = [], parent = null) {
    if (node.type === 'VariableDeclaration' && node.kind === 'var') {
        found.push({ node, head: parent !== null && (parent.init === node || parent.left === node) });
    }
    eachChild(node, (child) => {
        if (!isFunction(child)) varDeclarations(child, found, node);
    });
    return found;
}

/** Names that `node` declares for what is below it, or null when it is no scope. */
function scopeNames(node) {
    const names = new Set();
    const add = (list) => list.forEach((name) => names.add(name));
    if (isFunction(node)) {
        node.params.forEach((parameter) => add(patternNames(parameter)));
        if (node.type === 'FunctionExpression' && node.id !== null) names.add(node.id.name);
        varDeclarations(node.body).forEach((declaration) => add(declaredNames(declaration.node)));
        return names;
    }
    const head = node.type.startsWith('For') ? [node.init ?? node.left] : [];
    const body = node.type === 'SwitchStatement' ? node.cases.flatMap((one) => one.consequent) : node.body;
    if (node.type === 'CatchClause') add(patternNames(node.param));
    else if (node.type === 'ClassExpression' && node.id !== null) names.add(node.id.name);
    else if (
        node.type !== 'BlockStatement' &&
        node.type !== 'StaticBlock' &&
        node.type !== 'SwitchStatement' &&
        head.length === 0
    )
        return null;
    for (const statement of [...head, ...(Array.isArray(body) ? body : [])]) {
        if (statement?.type === 'VariableDeclaration' && statement.kind !== 'var')
            add(declaredNames(statement));
        else if (statement?.type === 'FunctionDeclaration' || statement?.type === 'ClassDeclaration') {
            names.add(statement.id.name);
        }
    }
    return names;
}

/** What is assigned to, per kind of node that assigns: `{ target, source }`, or null. */
function assignment(node) {
    if (node.type === 'AssignmentExpression') return { target: node.left, source: node.right };
    if (node.type === 'UpdateExpression') return { target: node.argument, source: null };
    if (node.type === 'ForInStatement' || node.type === 'ForOfStatement') {
        if (node.left.type !== 'VariableDeclaration') return { target: node.left, source: node.right };
    }
    return null;
}

/**
 * Calls `found(node, source, name)` for every assignment to one of the outermost names `wanted`.
 * Names that an inner scope declares again are somebody else's.
 */
function eachAssignment(root, wanted, found, scopes = []) {
    const own = scopeNames(root);
    const inner = own === null ? scopes : [...scopes, own];
    const assigned = assignment(root);
    if (assigned !== null) {
        const name = patternNames(assigned.target).find(
            (one) => wanted.has(one) && !inner.some((names) => names.has(one)),
        );
        if (name !== undefined) found(root, assigned.source, name);
    }
    eachChild(root, (child) => eachAssignment(child, wanted, found, inner));
}

module.exports = {
    parse,
    isFunction,
    eachChild,
    patternNames,
    declaredNames,
    varDeclarations,
    eachAssignment,
};
