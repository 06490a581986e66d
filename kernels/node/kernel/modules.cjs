/**
 * Modules of cells: `require`, `import`, `module`, `__dirname`, `import.meta`, all from where the
 * context is at that moment.
 *
 * A cell is no file. It stands for one named `cell.js` in the working directory, and resolves as
 * that would: so packages that are installed meanwhile are found.
 */

'use strict';

const nodeModule = require('node:module');
const { createRequire, isBuiltin } = nodeModule;
const { pathToFileURL } = require('node:url');
const vm = require('node:vm');
const i = require('./intrinsics.cjs');
const { prepare } = require('./network.cjs');
const { IMPORTER } = require('./shared.cjs');

const { cwd } = process;
const { Script } = vm;
const runInThisContext = i.uncurry(Script.prototype.runInThisContext);
const FILE = 'cell.js';
/** Functions of node:module and node:vm for one directory are made when it is entered. */
let place = null;

function here() {
    let directory;
    try {
        directory = cwd();
    } catch {
        directory = '/'; // It has been removed.
    }
    if (place === null || place.directory !== directory) place = placeAt(directory);
    return place;
}

function placeAt(directory) {
    const filename = i.endsWith(directory, '/') ? directory + FILE : `${directory}/${FILE}`;
    return {
        __proto__: null,
        directory,
        filename,
        url: pathToFileURL(filename).href,
        require: createRequire(filename),
        importer: null,
    };
}

/** `import()` as code in that directory does it. */
function importer(at) {
    at.importer ??= runInThisContext(
        new Script(`(function ${IMPORTER}(specifier, options) { return import(specifier, options); })`, {
            filename: at.filename,
            importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
        }),
    );
    return at.importer;
}

/**
 * What `import` and `import()` of cells become. `names`: those that the module must export.
 * JSON needs no attribute.
 */
async function load(specifier, options, names) {
    const isJson = options === undefined && typeof specifier === 'string' && i.endsWith(specifier, '.json');
    const given = isJson && !isBuiltin(specifier) ? { with: { type: 'json' } } : options;
    if (mayUseNetwork(specifier)) prepare(false);
    const found = await importer(here())(specifier, given);
    if (names !== undefined) {
        for (let index = 0; index < names.length; index++) {
            if (!(names[index] in found)) {
                throw new i.SyntaxErrorClass(
                    `The requested module '${specifier}' does not provide an export named '${names[index]}'`,
                );
            }
        }
    }
    return found;
}

/** Loads something that is there already, so that Node's word on the loader is not said in a cell. */
function warmUp() {
    const { emitWarning } = process;
    process.emitWarning = () => {};
    importer(here())('node:path').finally(() => {});
    process.emitWarning = emitWarning;
}

function mayUseNetwork(id) {
    return typeof id === 'string' && (!isBuiltin(id) || i.stringIndexOf(id, 'http') !== -1);
}

/** `require`, with the properties that a module's own has. */
function makeRequire(main) {
    const require = function require(id) {
        if (mayUseNetwork(id)) prepare(false);
        return here().require(id);
    };
    require.resolve = (id, options) => here().require.resolve(id, options);
    require.resolve.paths = (id) => here().require.resolve.paths(id);
    require.cache = createRequire('/').cache;
    require.extensions = nodeModule._extensions;
    require.main = main;
    return require;
}

/** Puts the names in place that a file has; they can be declared by a cell like any other. */
function install() {
    const main = new nodeModule.Module('.', null);
    const require = makeRequire(main);
    main.require = require;
    main.loaded = true;
    accessor(main, 'filename', () => here().filename);
    accessor(main, 'path', () => here().directory);
    accessor(main, 'paths', () => nodeModule._nodeModulePaths(here().directory));
    value('require', require);
    value('module', main);
    value('exports', main.exports);
    accessor(globalThis, '__filename', () => here().filename);
    accessor(globalThis, '__dirname', () => here().directory);
    process.argv = [process.execPath];
    accessor(process.argv, 1, () => here().filename, true);
}

/** `import.meta` of a cell. */
const meta = i.freeze({
    __proto__: null,
    get url() {
        return here().url;
    },
    get filename() {
        return here().filename;
    },
    get dirname() {
        return here().directory;
    },
    get main() {
        return true;
    },
    resolve: (specifier) => resolved(specifier),
});

function resolved(specifier) {
    if (isBuiltin(specifier)) return i.startsWith(specifier, 'node:') ? specifier : `node:${specifier}`;
    if (/^(?:\.{0,2}\/|[a-z]+:)/.test(specifier)) return new URL(specifier, here().url).href;
    return pathToFileURL(here().require.resolve(specifier)).href;
}

function value(name, it) {
    i.defineProperty(globalThis, name, { __proto__: null, value: it, writable: true, configurable: true });
}

function accessor(object, name, get, enumerable = false) {
    const set = (it) => {
        i.defineProperty(object, name, {
            __proto__: null,
            value: it,
            writable: true,
            enumerable,
            configurable: true,
        });
    };
    i.defineProperty(object, name, { __proto__: null, get, set, enumerable, configurable: true });
}

module.exports = {
    load,
    warmUp,
    install,
    meta,
};
