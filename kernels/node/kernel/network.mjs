/**
 * The way out of a sandbox is the proxy that the environment names. Programs ask the environment;
 * Node's own clients have to be told, which costs tens of milliseconds: it is done when a cell
 * first needs it.
 *
 * Node 24 tells all of its clients. Before that only `fetch` can be told, with the dispatcher of
 * a package of the driver's; node:http and node:https stay without.
 */

import { createRequire } from 'node:module';
import * as i from './intrinsics.mjs';

const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
const VARIABLES = ['http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'];
const require = createRequire(import.meta.url);
const { fetch: nodeFetch } = globalThis;
const MAJOR = Number.parseInt(process.versions.node, 10);
let done = false;

function hasProxy() {
    for (let index = 0; index < VARIABLES.length; index++) if (process.env[VARIABLES[index]]) return true;
    return false;
}

/** Before a cell loads what may use the network. `forFetch`: it is fetch that is about to be used. */
export function prepare(forFetch) {
    if (done || !hasProxy()) return;
    const http = require('node:http');
    const tellAll = http.setGlobalProxyFromEnv;
    if (tellAll === undefined && !forFetch) return;
    done = true;
    if (tellAll !== undefined) tellAll();
    else if (globalThis[DISPATCHER] === undefined || !process.env.NODE_USE_ENV_PROXY) quietly(useAgent);
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
export function tellChildren() {
    if (MAJOR >= 24 && hasProxy() && !process.env.NODE_USE_ENV_PROXY) {
        process.env.NODE_USE_ENV_PROXY = '1';
    }
}

export function install() {
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
