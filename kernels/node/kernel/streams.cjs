/**
 * process.stdout, process.stderr and console of the main thread.
 *
 * Node's own streams for a pipe make it non-blocking, for its other users too, and keep what it
 * does not take: output would be lost at the end and come late before it. These write at once and
 * return when everything is in the pipe.
 */

'use strict';

const { Console } = require('node:console');
const { writeSync } = require('node:fs');
const { Writable } = require('node:stream');
const i = require('./intrinsics.cjs');
const { EXIT_BROKEN } = require('./shared.cjs');

const { from: bytesFrom, isBuffer } = Buffer;
const { nextTick, reallyExit } = process;
const { isView } = ArrayBuffer;
const pause = new Int32Array(new SharedArrayBuffer(4));
/** Between two attempts at a pipe that somebody has made non-blocking. Node has no poll(2). */
const RETRY_MS = 1;

/** True while a query runs: what it prints belongs to nobody. */
let muted = false;

function mute(on) {
    muted = on;
}

/** Writes all of `bytes`. Throws what the system says, when the descriptor is closed for example. */
function writeAll(fd, bytes) {
    const length = i.byteLengthOf(bytes);
    let sent = 0;
    while (sent < length) {
        try {
            sent += writeSync(fd, bytes, sent, length - sent);
        } catch (error) {
            if (error.code !== 'EAGAIN' && error.code !== 'EINTR') throw error;
            i.wait(pause, 0, 0, RETRY_MS);
        }
    }
}

function writeText(fd, text) {
    try {
        writeAll(fd, bytesFrom(text));
    } catch {
        // A cell has closed it.
    }
}

/** For messages of the driver's own. */
function complain(text) {
    writeText(2, `${text}\n`);
}

/** The driver cannot go on: a cell has broken what it is made of, or it has a defect. */
function end(reason) {
    let text = 'something';
    try {
        text = `${reason?.stack ?? reason}`;
    } catch {
        // A cell's own.
    }
    complain(`crownest: the context ends: ${text}`);
    reallyExit(EXIT_BROKEN);
}

class Output extends Writable {
    constructor(fd) {
        super({ decodeStrings: false });
        i.defineProperty(this, 'fd', { __proto__: null, value: fd, enumerable: true });
        this._type = 'pipe';
        this._isStdio = true;
    }

    write(chunk, encoding, callback) {
        if (typeof encoding === 'function') {
            callback = encoding;
            encoding = undefined;
        }
        if (typeof chunk !== 'string' && !isView(chunk)) return super.write(chunk, encoding, callback);
        let failed = null;
        if (!muted) {
            try {
                writeAll(this.fd, bytesOf(chunk, encoding));
            } catch (error) {
                failed = error;
            }
        }
        if (typeof callback === 'function') nextTick(callback, failed);
        return true;
    }

    _write(chunk, encoding, callback) {
        this.write(chunk, encoding);
        callback();
    }

    _destroy(_error, callback) {
        callback(null); // The descriptor stays open: it is that of the whole context.
    }
}

function bytesOf(chunk, encoding) {
    if (typeof chunk === 'string') return bytesFrom(chunk, encoding === 'buffer' ? undefined : encoding);
    if (isBuffer(chunk)) return chunk;
    return bytesFrom(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

/** Puts the streams and a console that writes to them in place. */
function install() {
    const stdout = new Output(1);
    const stderr = new Output(2);
    const set = (object, key, value) =>
        i.defineProperty(object, key, {
            __proto__: null,
            value,
            writable: true,
            enumerable: key !== 'console',
            configurable: true,
        });
    set(process, 'stdout', stdout);
    set(process, 'stderr', stderr);
    // Node's own console also tells the inspector, which keeps the arguments of a thousand calls.
    set(globalThis, 'console', new Console({ stdout, stderr }));
}

module.exports = {
    mute,
    writeAll,
    writeText,
    complain,
    end,
    install,
};
