/**
 * Sets the main thread up: globals of cells, signals, what nobody catches; then says that it is
 * ready and leaves everything else to messages.
 */

'use strict';

const { EventEmitter } = require('node:events');
const i = require('./intrinsics.cjs');
const callbacks = require('./callbacks.cjs');
const display = require('./display.cjs');
const modules = require('./modules.cjs');
const network = require('./network.cjs');
const scope = require('./scope.cjs');
const stacks = require('./stacks.cjs');
const streams = require('./streams.cjs');
const { end } = require('./streams.cjs');
const timers = require('./timers.cjs');
const { Engine } = require('./engine.cjs');
const { Kernel } = require('./kernel.cjs');
const { Link } = require('./link.cjs');
const { rememberBuiltins } = require('./questions.cjs');

/** How long an exit waits for init to take what a cell has displayed. */
const EXIT_DRAIN_MS = 2_000;
/** Frames of an error: enough to reach the cell through a few libraries. */
const STACK_FRAMES = 25;

const listenerCount = i.uncurry(EventEmitter.prototype.listenerCount);
const addListener = i.uncurry(EventEmitter.prototype.prependListener);

function serve({ fd, words, worker, port, answers }) {
    const link = new Link({ fd, words, port, answers });
    const activeRun = () => kernel.run;
    let take = () => {};
    scope.install(activeRun, (value) => take(value));
    const engine = new Engine((taker) => {
        take = taker;
    });
    const kernel = new Kernel(link, words, engine);
    callbacks.install();
    streams.install();
    stacks.install();
    modules.install();
    timers.install(kernel);
    network.install();
    display.install((event, text, bundle) => kernel.emit(event, text, bundle));
    installPrompt(kernel);
    Error.stackTraceLimit = STACK_FRAMES;
    process.on('exit', () => link.drain(EXIT_DRAIN_MS));
    worker.on('error', end);
    worker.on('exit', (code) => end(`its protocol thread has ended with ${code}`));
    const listen = listenForLife(kernel);
    listen();
    rememberBuiltins();
    modules.warmUp();
    kernel.warmUp(() => {
        port.on('message', (message) => {
            try {
                listen();
                kernel.receive(message);
            } catch (error) {
                end(error); // A cell has broken what this thread is made of.
            }
        });
        port.on('close', () => end('a cell has closed its port'));
        link.post({ op: 'ready' });
    });
}

/**
 * Keeps the process alive when a callback throws, when nobody catches a rejection, and when init
 * sends SIGINT, as it does with every interrupt: the frame before it is what counts here. Returns a
 * function that puts the listeners back if a cell has thrown all of them away.
 */
function listenForLife(kernel) {
    const caught = (event, thrown, how) => {
        const thrower = timers.takeThrower();
        // A cell that listens itself takes care of it.
        if (listenerCount(process, event) === 1) kernel.uncaught(thrown, how, thrower);
    };
    const listeners = {
        __proto__: null,
        uncaughtException: (error) => caught('uncaughtException', error, 'exception'),
        unhandledRejection: (reason) => caught('unhandledRejection', reason, 'rejection'),
        SIGINT: () => {},
    };
    const listen = (event) => {
        const listener = listeners[event];
        if (listener !== undefined && listenerCount(process, event, listener) === 0)
            addListener(process, event, listener);
    };
    // Before Node's own, which stops to listen to a signal when its last listener has gone.
    addListener(process, 'removeListener', listen);
    return () => {
        listen('uncaughtException');
        listen('unhandledRejection');
        listen('SIGINT');
    };
}

/** `prompt(text, { password })`: a line of input, or null at its end. */
function installPrompt(kernel) {
    const prompt = (text = '', options = undefined) =>
        kernel.ask(i.StringOf(text), options?.password === true);
    i.defineProperty(globalThis, 'prompt', {
        __proto__: null,
        value: prompt,
        writable: true,
        configurable: true,
    });
}

module.exports = {
    serve,
};
