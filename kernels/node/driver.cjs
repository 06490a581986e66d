/**
 * Entry of the JavaScript and TypeScript kernel: `node driver.cjs [javascript|typescript]` with
 * CROWNEST_KERNEL_FD in the environment. The argument is the language of cells that name none.
 *
 * Runs as the sandbox's user inside the sandbox, without any privilege. The protocol thread is
 * started first, since it takes the longest; what the main thread needs is loaded meanwhile.
 *
 * The driver is CommonJS because Node's loader of ES modules takes a millisecond for each file.
 */

'use strict';

const { MessageChannel, Worker } = require('node:worker_threads');
const { WORDS } = require('./kernel/shared.cjs');

const fd = Number(process.env.CROWNEST_KERNEL_FD);
delete process.env.CROWNEST_KERNEL_FD;
const language = process.argv[2] ?? 'javascript';
const words = new Int32Array(new SharedArrayBuffer(4 * WORDS));
const control = new MessageChannel();
const answers = new MessageChannel();

const worker = new Worker(`${__dirname}/kernel/protocol.cjs`, {
    name: 'protocol',
    // Source texts die young; the default would let them fill tens of megabytes first.
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
    workerData: { fd, language, words, port: control.port2, answers: answers.port2 },
    transferList: [control.port2, answers.port2],
});

const { serve } = require('./kernel/main.cjs');
hideModules();
serve({ fd, words, worker, port: control.port1, answers: answers.port1 });

/** Cells find no module of the driver where those of a program are: theirs begin with their own. */
function hideModules() {
    const { _cache: modules, _pathCache: paths } = module.constructor;
    for (const table of [modules, paths]) for (const name of Object.keys(table)) delete table[name];
    delete process.mainModule;
}
