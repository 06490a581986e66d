/**
 * Programs of shell lines: with the output of the context, and interrupted with their run.
 */

'use strict';

const { spawn } = require('node:child_process');
const { readFileSync } = require('node:fs');
const i = require('./intrinsics.cjs');

const SHELL = '/bin/sh';
/** Processes below one that are signalled with it. */
const PROCESSES_MAX = 1_000;
const INTERRUPTS_MAX = 3;
const AGAIN_MS = 1_000;
const { kill } = process;
const { setTimeout } = globalThis;

/** Its exit code, or the name of the signal that ended it. */
function runProgram(run, command) {
    return new i.PromiseClass((resolve, reject) => {
        const child = spawn(SHELL, ['-c', command], { stdio: ['ignore', 'inherit', 'inherit'] });
        const program = { __proto__: null, pid: child.pid, ended: child.pid === undefined };
        i.append(run.programs, program);
        child.once('error', reject);
        child.once('exit', () => {
            program.ended = true;
        });
        child.once('close', (status, signal) => resolve(status ?? signal));
    });
}

/**
 * Interrupts a program, again after a while, since a signal between fork and exec is lost, and
 * kills one that heeds none.
 */
function interruptProgram(program, times = 0) {
    if (program.ended) return;
    signalTree(program.pid, times < INTERRUPTS_MAX ? 'SIGINT' : 'SIGKILL');
    if (times < INTERRUPTS_MAX) setTimeout(interruptProgram, AGAIN_MS, program, times + 1);
}

/**
 * A shell waits for what it has started before it heeds a signal, so everything below gets it.
 * What forks before its own signal comes is found by the next look.
 */
function signalTree(pid, signal) {
    const told = [];
    for (let before = -1; before < told.length && told.length < PROCESSES_MAX;) {
        before = told.length;
        const pids = [pid];
        for (let index = 0; index < pids.length && index < PROCESSES_MAX; index++) {
            appendChildren(pids, pids[index]);
            if (!contains(told, pids[index])) tell(told, pids[index], signal);
        }
    }
}

function tell(told, pid, signal) {
    i.append(told, pid);
    try {
        kill(pid, signal);
    } catch {
        // It has ended.
    }
}

function contains(list, value) {
    for (let index = 0; index < list.length; index++) if (list[index] === value) return true;
    return false;
}

function appendChildren(pids, pid) {
    let list;
    try {
        list = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1');
    } catch {
        return;
    }
    let number = 0;
    for (let index = 0; index < list.length; index++) {
        const digit = i.stringCharCodeAt(list, index) - 48;
        if (digit >= 0 && digit <= 9) {
            number = number * 10 + digit;
        } else if (number > 0) {
            i.append(pids, number);
            number = 0;
        }
    }
}

module.exports = {
    runProgram,
    interruptProgram,
};
