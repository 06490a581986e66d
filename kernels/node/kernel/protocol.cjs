/**
 * The protocol thread: reads frames from init, prepares cells, interrupts the main thread.
 *
 * Owns the control socket (the main thread writes the end of a run into it directly when nothing
 * else is on its way) and everything about source text. Never runs tenant code, so its globals are
 * intact whatever a cell does to those of the main thread. If this thread ends, the driver does.
 */

'use strict';

const { writeSync } = require('node:fs');
const { Socket } = require('node:net');
const { workerData } = require('node:worker_threads');
const { Interrupter } = require('./interrupter.cjs');
const { ANSWERED, FRAME_BYTES_MAX, PHASE, QUEUED, RUNNING, SERIAL_MAX, word } = require('./shared.cjs');
const { Preparer } = require('./preparer.cjs');
const { describe } = require('./tracebacks.cjs');
const { Asker } = require('./asker.cjs');
const { Warming } = require('./warming.cjs');

const { fd, language: defaultLanguage, port, answers, words } = workerData;

/** Ends the process at once: `process.exit` would end this thread only. */
function die(reason) {
    if (reason !== undefined) {
        try {
            writeSync(2, `crownest: the driver ends: ${reason?.stack ?? reason}\n`);
        } catch {
            // Nobody reads it.
        }
    }
    process.kill(process.pid, 'SIGKILL');
}

process.on('uncaughtException', die);
process.on('unhandledRejection', die);

const socket = new Socket({ fd, readable: true, writable: true });
const preparer = new Preparer();
const interrupter = new Interrupter(port, words);
const asker = new Asker(preparer);
const warming = new Warming(preparer, port);

/** The run that init has asked for last. */
let active = null;
let serial = 0;
let count = 0;

// === frames out

/** Sends bytes that the main thread has counted in QUEUED. */
function sendQueued(bytes) {
    socket.write(bytes, () => {
        Atomics.sub(words, QUEUED, bytes.length);
        Atomics.notify(words, QUEUED);
    });
}

function send(event) {
    const body = Buffer.from(wellFormed(JSON.stringify(event)));
    const head = Buffer.allocUnsafe(4);
    head.writeUInt32BE(body.length);
    const bytes = Buffer.concat([head, body]);
    Atomics.add(words, QUEUED, bytes.length);
    sendQueued(bytes);
}

/** JSON.stringify writes half a surrogate pair as an escape that strict readers refuse. */
function wellFormed(json) {
    if (!json.includes('\\ud')) return json;
    return json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escape) =>
        escape.startsWith('\\ud') ? '\ufffd' : escape,
    );
}

// === frames in

let chunks = [];
let chunksBytes = 0;

socket.on('data', (chunk) => {
    chunks.push(chunk);
    chunksBytes += chunk.length;
    for (let frame = nextFrame(); frame !== null; frame = nextFrame()) receive(frame);
});
socket.on('end', () => die());
socket.on('error', die);

/** The next whole frame, or null. Chunks of a long frame are joined once, when it is complete. */
function nextFrame() {
    if (chunksBytes < 4) return null;
    if (chunks[0].length < 4) join();
    const length = chunks[0].readUInt32BE(0);
    if (length > FRAME_BYTES_MAX) return die(`a frame of ${length} bytes`);
    if (chunksBytes < 4 + length) return null;
    join();
    const [whole] = chunks;
    const rest = whole.subarray(4 + length);
    chunks = rest.length > 0 ? [rest] : [];
    chunksBytes = rest.length;
    return JSON.parse(whole.toString('utf8', 4, 4 + length));
}

function join() {
    if (chunks.length > 1) chunks = [Buffer.concat(chunks)];
}

function receive(frame) {
    warming.frameCame(frame.op);
    if (frame.op === 'interrupt') {
        if (active !== null && active.order.run === frame.run) interrupt();
    } else if (frame.op === 'input_reply') {
        if (active !== null && active.order.run === frame.run) answerInput(frame.value);
    } else if (frame.op === 'execute') {
        execute(frame);
    } else if (frame.op === 'query') {
        handOver(begin(frame), asker.question(frame));
    } else if (frame.op === 'start') {
        port.postMessage({ op: 'start', cwd: frame.cwd, env: frame.env ?? {} });
    }
}

/** Makes `frame` the active run. */
function begin(frame) {
    serial = (serial % SERIAL_MAX) + 1;
    const order = { serial, run: frame.run, count, kind: frame.op };
    active = { serial, order, cell: null, handed: false, interrupted: false };
    Atomics.store(words, PHASE, word(serial, RUNNING));
    return active;
}

function execute(frame) {
    count += 1;
    const run = begin(frame);
    const language = frame.language ?? defaultLanguage;
    const fields = { cwd: frame.cwd, input: frame.input === true };
    const hand = (cell) => {
        run.cell = cell;
        handOver(run, { ...fields, ...cell.order });
    };
    const cell = preparer.prepare(frame.code, language, count, run.serial);
    if (cell instanceof Promise) cell.then(hand);
    else hand(cell);
}

/** From here on the main thread has the run, and an interrupt is its matter. */
function handOver(run, fields) {
    port.postMessage({ op: run.order.kind, ...run.order, ...fields });
    run.handed = true;
    if (run.interrupted) interrupter.interrupt(run);
}

function interrupt() {
    active.interrupted = true;
    if (active.handed) interrupter.interrupt(active);
}

function answerInput(value) {
    answers.postMessage({ serial: active.serial, value: typeof value === 'string' ? value : null });
    Atomics.store(words, ANSWERED, active.serial);
    Atomics.notify(words, ANSWERED);
}

// === from the main thread

const handlers = {
    /** A frame as it goes over the wire. */
    frame: ({ bytes }) => sendQueued(bytes),
    /** What is left of a frame that the socket did not take whole from the main thread. */
    rest: ({ bytes }) => {
        Atomics.add(words, QUEUED, bytes.length);
        sendQueued(bytes);
    },
    /** The end of a run that failed: its words are in order here, where nothing can be replaced. */
    end({ run, serial: ended, status, executed, cpu, failure }) {
        const own = active !== null && active.serial === ended;
        const cell = own ? active.cell : null;
        // What fails because it is interrupted, as a child that is waited for, is interrupted.
        if (own && active.interrupted && status === 'error') status = 'interrupted';
        // Code that was terminated may have counted a frame that it never sent.
        if (status === 'interrupted') Atomics.store(words, QUEUED, socket.writableLength);
        if (failure !== null) {
            if (failure.early && cell !== null) preparer.undo(cell);
            send({ ev: 'error', run, ...describe(failure, cell, preparer.cells) });
        }
        send({ ev: 'done', run, status, count: executed, cpu_us: cpu });
    },
    answer({ run, status, answer, executed, cpu }) {
        if (status === 'ok') {
            const told = asker.answer(answer);
            if (told === null) status = 'error';
            else send({ ev: 'answer', run, answer: told });
        }
        send({ ev: 'done', run, status, count: executed, cpu_us: cpu });
    },
    /** The main thread is ready; so is this one, or it would not hear it. */
    ready: () => {
        send({ ev: 'ready', language: 'javascript', version: process.versions.node });
        warming.begin(defaultLanguage === 'typescript');
    },
    warmed: () => warming.cellEnded(),
};

port.on('close', () => die('a cell has closed its port'));
port.on('message', (message) => handlers[message.op](message));
preparer.warmUp();
