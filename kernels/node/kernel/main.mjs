/**
 * Sets the main thread up: globals of cells, signals, what nobody catches; then says that it is
 * ready and leaves everything else to messages.
 */

import { EventEmitter } from 'node:events';
import * as i from './intrinsics.mjs';
import * as display from './display.mjs';
import * as modules from './modules.mjs';
import * as network from './network.mjs';
import * as scope from './scope.mjs';
import * as stacks from './stacks.mjs';
import * as streams from './streams.mjs';
import * as timers from './timers.mjs';
import { Engine } from './engine.mjs';
import { Kernel } from './kernel.mjs';
import { Link } from './link.mjs';
import { rememberBuiltins } from './questions.mjs';
import { EXIT_BROKEN } from './shared.mjs';

const SIGINT = 2;
/** How long an exit waits for init to take what a cell has displayed. */
const EXIT_DRAIN_MS = 2_000;
/** Frames of an error: enough to reach the cell through a few libraries. */
const STACK_FRAMES = 25;

const { reallyExit } = process;
const listenerCount = i.uncurry(EventEmitter.prototype.listenerCount);
const addListener = i.uncurry(EventEmitter.prototype.prependListener);

export function serve({ fd, words, worker, port, answers }) {
  const link = new Link({ fd, words, port, answers });
  const engine = new Engine();
  const kernel = new Kernel(link, words, engine);
  const activeRun = () => kernel.run;
  streams.install();
  stacks.install();
  modules.install();
  scope.install(activeRun);
  timers.install(activeRun);
  network.install();
  display.install((event, text, bundle) => kernel.emit(event, text, bundle));
  installPrompt(kernel);
  ignoreSigint();
  Error.stackTraceLimit = STACK_FRAMES;
  process.on('exit', () => link.drain(EXIT_DRAIN_MS));
  worker.on('error', (error) => fail(error));
  worker.on('exit', (code) => fail(`its protocol thread has ended with ${code}`));
  const listen = catchUncaught(kernel);
  rememberBuiltins();
  modules.warmUp();
  kernel.warmUp(() => {
    port.on('message', (message) => {
      listen();
      kernel.receive(message);
    });
    link.post({ op: 'ready' });
  });
}

/**
 * Keeps the process alive when a callback throws or nobody catches a rejection. Returns a function
 * that puts the listeners back if a cell has taken them away.
 */
function catchUncaught(kernel) {
  const listeners = [
    ['uncaughtException', (error) => caught('uncaughtException', error, 'exception')],
    ['unhandledRejection', (reason) => caught('unhandledRejection', reason, 'rejection')],
  ];
  const caught = (event, thrown, how) => {
    // A cell that listens itself takes care of it.
    if (listenerCount(process, event) > 1) return;
    kernel.uncaught(thrown, how);
  };
  const listen = () => {
    for (let index = 0; index < listeners.length; index++) {
      const event = listeners[index][0];
      if (listenerCount(process, event, listeners[index][1]) === 0) addListener(process, event, listeners[index][1]);
    }
  };
  listen();
  return listen;
}

/** `prompt(text, { password })`: a line of input, or null at its end. */
function installPrompt(kernel) {
  const prompt = (text = '', options = undefined) => kernel.ask(i.StringOf(text), options?.password === true);
  i.defineProperty(globalThis, 'prompt', { __proto__: null, value: prompt, writable: true, configurable: true });
}

/**
 * Init sends SIGINT with every interrupt; the frame before it is what counts here. The handle is
 * of its own, so that a cell that removes listeners does not bring the default back.
 */
function ignoreSigint() {
  const { noDeprecation } = process;
  process.noDeprecation = true;
  try {
    const { Signal } = process.binding('signal_wrap');
    const signal = new Signal();
    signal.onsignal = () => {};
    signal.unref();
    if (signal.start(SIGINT) === 0) return;
  } catch {
    // Another Node than those that are tested.
  } finally {
    process.noDeprecation = noDeprecation;
  }
  process.on('SIGINT', () => {});
}

function fail(reason) {
  streams.complain(`crownest: the driver ends: ${reason?.stack ?? reason}`);
  reallyExit(EXIT_BROKEN);
}
