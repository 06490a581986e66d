/**
 * Entry of the JavaScript and TypeScript kernel: `node driver.mjs [javascript|typescript]` with
 * CROWNEST_KERNEL_FD in the environment. The argument is the language of cells that name none.
 *
 * Runs as the sandbox's user inside the sandbox, without any privilege. The protocol thread is
 * started first, since it takes the longest; what the main thread needs is loaded meanwhile.
 */

import { MessageChannel, Worker } from 'node:worker_threads';
import { WORDS } from './kernel/shared.mjs';

const fd = Number(process.env.CROWNEST_KERNEL_FD);
delete process.env.CROWNEST_KERNEL_FD;
const language = process.argv[2] ?? 'javascript';
const words = new Int32Array(new SharedArrayBuffer(4 * WORDS));
const control = new MessageChannel();
const answers = new MessageChannel();

const worker = new Worker(new URL('./kernel/protocol.mjs', import.meta.url), {
    name: 'protocol',
    // Source texts die young; the default would let them fill tens of megabytes first.
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
    workerData: { fd, language, words, port: control.port2, answers: answers.port2 },
    transferList: [control.port2, answers.port2],
});

const { serve } = await import('./kernel/main.mjs');
serve({ fd, words, worker, port: control.port1, answers: answers.port1 });
