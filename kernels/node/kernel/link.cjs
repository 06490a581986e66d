/**
 * The main thread's way to init and to the protocol thread.
 *
 * The end of a run goes straight into the control socket, which saves one change of threads; all
 * else, and what the socket does not take at once, goes through the protocol thread. Frames never
 * overtake each other: the short way is open only while QUEUED is 0.
 */

'use strict';

const { writeSync } = require('node:fs');
const { receiveMessageOnPort } = require('node:worker_threads');
const i = require('./intrinsics.cjs');
const { frame } = require('./encode.cjs');
const { end } = require('./streams.cjs');
const { ANSWERED, QUEUED, QUEUED_BYTES_MAX } = require('./shared.cjs');

const now = performance.now.bind(performance);
const postMessage = i.uncurry(MessagePort.prototype.postMessage);

class Link {
    #fd;
    #port;
    #answers;
    #words;

    constructor({ fd, port, answers, words }) {
        this.#fd = fd;
        this.#port = port;
        this.#answers = answers;
        this.#words = words;
    }

    /** A message to the protocol thread. */
    post(message) {
        postMessage(this.#port, message);
    }

    /** A frame from within a cell, which may be terminated at any point. Waits while too many wait. */
    queue(body) {
        for (
            let waiting = i.load(this.#words, QUEUED);
            waiting > QUEUED_BYTES_MAX;
            waiting = i.load(this.#words, QUEUED)
        ) {
            i.wait(this.#words, QUEUED, waiting);
        }
        const bytes = frame(body);
        i.atomicAdd(this.#words, QUEUED, i.byteLengthOf(bytes));
        this.post({ __proto__: null, op: 'frame', bytes });
    }

    /** Frames of a run that has ended: nothing interrupts this. */
    sendLast(bytes) {
        if (i.load(this.#words, QUEUED) !== 0) {
            i.atomicAdd(this.#words, QUEUED, i.byteLengthOf(bytes));
            this.post({ __proto__: null, op: 'frame', bytes });
            return;
        }
        let sent = 0;
        try {
            sent = writeSync(this.#fd, bytes);
        } catch (error) {
            if (error.code !== 'EAGAIN') end(`the control socket: ${error.message}`);
        }
        if (sent < i.byteLengthOf(bytes))
            this.post({ __proto__: null, op: 'rest', bytes: i.subarray(bytes, sent) });
    }

    /** Waits for the answer to an `input` of the run; null at the end of the file. */
    answer(serial) {
        for (
            let seen = i.load(this.#words, ANSWERED);
            seen !== serial;
            seen = i.load(this.#words, ANSWERED)
        ) {
            i.wait(this.#words, ANSWERED, seen);
        }
        i.store(this.#words, ANSWERED, 0);
        for (;;) {
            const received = receiveMessageOnPort(this.#answers);
            if (received === undefined) return null;
            // One that came after its run had been interrupted is nobody's.
            if (received.message.serial === serial) return received.message.value;
        }
    }

    /** Before the process exits: what was queued reaches init, if init reads within `ms`. */
    drain(ms) {
        const until = now() + ms;
        for (
            let waiting = i.load(this.#words, QUEUED);
            waiting !== 0;
            waiting = i.load(this.#words, QUEUED)
        ) {
            if (i.wait(this.#words, QUEUED, waiting, until - now()) === 'timed-out') return;
        }
    }
}

module.exports = {
    Link,
};
