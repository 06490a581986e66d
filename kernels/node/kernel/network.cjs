/**
 * The way out of a sandbox is the proxy that the environment names. Programs ask the environment;
 * Node's own clients have to be told, which costs tens of milliseconds: it is done when a cell
 * first needs it.
 *
 * Node 24 tells all of its clients. Before that `fetch` is told with the dispatcher of a package of
 * the driver's, and node:http and node:https by agents that read the environment, which Node 22 has;
 * on Node 20 those two stay without.
 */

'use strict';

const nodeModule = require('node:module');
const i = require('./intrinsics.cjs');

const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
const VARIABLES = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'];
const { fetch: nodeFetch } = globalThis;
const MAJOR = Number.parseInt(process.versions.node, 10);
let done = false;
let agents = false;

function hasProxy() {
    for (let index = 0; index < VARIABLES.length; index++) if (process.env[VARIABLES[index]]) return true;
    return false;
}

/** Before a cell loads what may use the network. `forFetch`: it is fetch that is about to be used. */
function prepare(forFetch) {
    if (done || !hasProxy()) return;
    const http = require('node:http');
    const tellAll = http.setGlobalProxyFromEnv;
    if (tellAll === undefined && !agents) useAgents(http);
    if (tellAll === undefined && !forFetch) return;
    done = true;
    if (tellAll !== undefined) tellAll();
    else if (globalThis[DISPATCHER] === undefined || !process.env.NODE_USE_ENV_PROXY) quietly(useAgent);
}

/** The options are those of Node's own; one that Node does not know does nothing. */
function useAgents(http) {
    agents = true;
    const https = require('node:https');
    const options = { keepAlive: true, scheduling: 'lifo', timeout: 5_000, proxyEnv: process.env };
    http.globalAgent = new http.Agent(options);
    https.globalAgent = new https.Agent(options);
    // For those who import them.
    nodeModule.syncBuiltinESMExports();
}

function useAgent() {
    const { EnvHttpProxyAgent } = require('undici');
    globalThis[DISPATCHER] = new EnvHttpProxyAgent();
}

/** Without Node's words on what is experimental. */
function quietly(act) {
    const { emitWarning } = process;
    process.emitWarning = () => {};
    try {
        act();
    } catch {
        // The package is not there: fetch finds no network, and says so.
    } finally {
        process.emitWarning = emitWarning;
    }
}

/** For programs that cells start: Node does it by itself when it is told by this variable. */
function tellChildren() {
    if (MAJOR >= 24 && hasProxy() && !process.env.NODE_USE_ENV_PROXY) {
        process.env.NODE_USE_ENV_PROXY = '1';
    }
}

function install() {
    if (typeof nodeFetch !== 'function') return;
    const fetch = function fetch(input, init = undefined) {
        prepare(true);
        return nodeFetch(input, init);
    };
    i.defineProperty(globalThis, 'fetch', {
        __proto__: null,
        value: fetch,
        writable: true,
        enumerable: true,
        configurable: true,
    });
}

module.exports = {
    prepare,
    tellChildren,
    install,
};
