/**
 * The main thread: runs cells and ends them.
 *
 * Tenant code runs in this thread and can replace, break or imitate everything in it. What this
 * module owes is that a run, however odd, ends in exactly one `done` and leaves a usable context,
 * or that the process ends.
 */

'use strict';

const i = require('./intrinsics.cjs');
const { bundleOf, fields } = require('./bundle.cjs');
const { expectTermination, forgetCallbacks } = require('./callbacks.cjs');
const { Display } = require('./display.cjs');
const { repair } = require('./engine.cjs');
const { frame, jsonString } = require('./encode.cjs');
const { compileFailure, failure, failureOf } = require('./failures.cjs');
const { tellChildren } = require('./network.cjs');
const { interruptProgram } = require('./programs.cjs');
const { answerTo } = require('./questions.cjs');
const { ENDING, HELPER, IDLE, PHASE, RUNNING, STOPPED, TERMINATING, word } = require('./shared.cjs');
const { remember } = require('./stacks.cjs');
const { complain, end, mute, writeText } = require('./streams.cjs');

const { chdir, cpuUsage, cwd } = process;

class Kernel {
    #link;
    #words;
    #engine;
    #run = null;

    constructor(link, words, engine) {
        this.#link = link;
        this.#words = words;
        this.#engine = engine;
    }

    /** The run that is active, or null. */
    get run() {
        return this.#run;
    }

    /** One cell for nobody, so that the first one for somebody finds everything compiled. */
    warmUp(done) {
        this.#warm({ code: `await ${HELPER}.value(0,({ a: [1 + 1] }))`, script: 'cell-0.js' }, () => {
            failureOf(new i.ErrorClass('warm'));
            done();
        });
    }

    /** The way of a cell, for one that is nobody's. Before `start`: nothing of a tenant is there. */
    #warm({ code, script }, done) {
        const run = (this.#run = newRun({ serial: 0, run: 0, count: 0, kind: 'execute' }));
        this.#engine.evaluate(this.#engine.choose(code), script, (outcome) => {
            repair();
            frame(resultOf(run, outcome.value), doneOf(run, 'ok', cpuSince(run)));
            this.#run = null;
            done();
        });
    }

    /** Handles one message of the protocol thread. */
    receive(message) {
        switch (message.op) {
            case 'execute':
                this.#execute(message);
                break;
            case 'query':
                this.#query(message);
                break;
            case 'interrupt':
                this.#interrupt(message.serial);
                break;
            case 'stopped':
                this.#stopped(message);
                break;
            case 'start':
                start(message);
                break;
            case 'warm':
                this.#warm(message, () => this.#link.post({ op: 'warmed' }));
                break;
            default: // `poke`: it is enough that something ran
        }
    }

    // === one run

    /** Null for a run that is being terminated before it began; `stopped` follows. */
    #begin(message) {
        if (i.load(this.#words, PHASE) !== word(message.serial, RUNNING)) return null;
        this.#run = newRun(message);
        expectTermination();
        return this.#run;
    }

    /** Whether this thread may end the run. From then on nothing interrupts it. */
    #claim(run) {
        return this.#run === run && this.#change(run.serial, RUNNING);
    }

    #change(serial, from) {
        const expected = word(serial, from);
        return i.compareExchange(this.#words, PHASE, expected, word(serial, ENDING)) === expected;
    }

    /** Whether what `run` has left behind must not go on. */
    isStopped(run) {
        if (run.stopped) return true;
        const now = i.load(this.#words, PHASE);
        return now === word(run.serial, TERMINATING) || now === word(run.serial, STOPPED);
    }

    #execute(message) {
        const run = this.#begin(message);
        if (run === null) return;
        const refused = message.failure ?? enter(run, message.cwd);
        if (refused !== null) {
            if (this.#claim(run)) this.#finish(run, 'error', refused);
            return;
        }
        if (message.positions !== undefined) remember(message.script, message.name, message.positions);
        const code = this.#engine.choose(message.code, message.otherwise);
        this.#engine.evaluate(code, message.script, (outcome) => {
            try {
                this.#evaluated(run, outcome);
            } catch (error) {
                end(error);
            }
        });
    }

    /** `outcome`: see Engine.evaluate. */
    #evaluated(run, outcome) {
        repair();
        if (this.#run !== run) return;
        let failed = null;
        let result = null;
        try {
            if (outcome.broken !== undefined) failed = failure('Error', outcome.broken);
            else if (outcome.at !== undefined) failed = compileFailure(outcome.thrown, outcome.at);
            else if (i.hasOwn(outcome, 'thrown')) failed = failureOf(outcome.thrown);
            else result = resultOf(run, outcome.value);
        } catch (error) {
            failed = failureOf(error); // of showing the value
        }
        if (this.#claim(run)) this.#finish(run, failed === null ? 'ok' : 'error', failed, result);
    }

    /** Says everything that is left to say. The run has been claimed, or is stopped. */
    #finish(run, status, failed, result = null) {
        this.#run = null;
        run.value = undefined;
        run.awaited = null;
        leave(run);
        const cpu = cpuSince(run);
        i.store(this.#words, PHASE, word(run.serial, IDLE));
        if (failed !== null) {
            const { id, serial, count } = run;
            this.#link.post({
                op: 'end',
                run: id,
                serial,
                status,
                executed: count,
                cpu,
                failure: { ...failed },
            });
            return;
        }
        const done = doneOf(run, status, cpu);
        this.#link.sendLast(result === null ? frame(done) : frame(result, done));
    }

    // === interrupts

    /** This thread waits, and its run with it. */
    #interrupt(serial) {
        const run = this.#run;
        if (run !== null && run.serial === serial && this.#claim(run)) this.#abandon(run);
    }

    /** What was executed has been terminated. */
    #stopped(message) {
        if (!this.#change(message.serial, STOPPED)) return; // It is being terminated once more.
        forgetCallbacks();
        mute(false);
        this.#abandon(
            this.#run?.serial === message.serial
                ? this.#run
                : { ...message, id: message.run, programs: [], before: cpuUsage(), cameFrom: null },
        );
    }

    #abandon(run) {
        for (let index = 0; index < run.programs.length; index++) interruptProgram(run.programs[index]);
        this.#giveUp(run);
        const why = run.kind === 'query' ? null : failure('Interrupted', 'the run was interrupted');
        this.#finish(run, 'interrupted', why);
    }

    /** What is left of the run's code must not go on, and V8 need not tell how it ends. */
    #giveUp(run) {
        run.stopped = true;
        this.#engine.renew();
    }

    // === what nobody has caught

    /**
     * `how` is `exception` or `rejection`; `thrower` the run whose timer has thrown it, null for a timer
     * of no run, undefined when it was none. As in a program, it ends what is being run.
     */
    uncaught(thrown, how, thrower) {
        const label = how === 'rejection' ? 'Uncaught (in promise)' : 'Uncaught';
        const run = this.#run;
        const failed = failureOf(thrown);
        const text = i.startsWith(failed.text, 'Uncaught') ? failed.text : `${label} ${failed.text}`;
        const isOurs = run !== null && run.kind === 'execute' && (thrower === undefined || thrower === run);
        if (!isOurs) complain(text);
        else if (this.#claim(run)) {
            this.#giveUp(run);
            this.#finish(run, 'error', { ...failed, text });
        }
    }

    // === queries

    #query(message) {
        const run = this.#begin(message);
        if (run === null) return;
        let answer = null;
        mute(true);
        try {
            answer = answerTo(message, this.#engine);
        } catch {
            // Of the tenant's: a getter, a proxy. There is no answer.
        }
        mute(false);
        if (!this.#claim(run)) return;
        const { id, count } = run;
        this.#run = null;
        const cpu = cpuSince(run);
        i.store(this.#words, PHASE, word(run.serial, IDLE));
        const status = answer === null ? 'error' : 'ok';
        this.#link.post({ op: 'answer', run: id, status, answer, executed: count, cpu });
    }

    // === for display() and prompt()

    /** A `display` or `clear` event. Between runs nobody takes it, so its text is output. */
    emit(event, text, bundle) {
        const run = this.#run;
        if (bundle !== null) tellProblems(bundle);
        if (run !== null) {
            // A query shows nothing.
            if (run.kind === 'execute') this.#link.queue(`{"ev":"${event}","run":${run.id},${text}}`);
        } else if (bundle !== null && bundle.shown !== '') {
            writeText(1, `${bundle.shown}\n`);
        }
    }

    /** A line from whoever has started the run; null where nobody answers. */
    ask(prompt, password) {
        const run = this.#run;
        if (run === null || !run.input) return null;
        this.#link.queue(
            `{"ev":"input","run":${run.id},"prompt":${jsonString(prompt)},"password":${password}}`,
        );
        return this.#link.answer(run.serial);
    }
}

function newRun({ serial, run, count, kind, input }) {
    return {
        __proto__: null,
        serial,
        id: run,
        count,
        kind,
        input: input === true,
        value: undefined,
        /** It was ended from outside: what is left of its code must not go on. */
        stopped: false,
        programs: [],
        /** What its code waits for: while the run lasts, V8 must not collect it. */
        awaited: null,
        before: cpuUsage(),
        cameFrom: null,
        went: null,
    };
}

/** CPU time of the process since the run began, in microseconds. */
function cpuSince(run) {
    const { user, system } = cpuUsage(run.before);
    return user + system;
}

/** The `done` event of a run. */
function doneOf(run, status, cpu) {
    return `{"ev":"done","run":${run.id},"status":"${status}","count":${run.count},"cpu_us":${cpu}}`;
}

/** The `result` event of a run, or null when its value is none. */
function resultOf(run, evaluated) {
    const value = evaluated === undefined ? run.value : evaluated;
    if (value === undefined || value instanceof Display) return null;
    const bundle = bundleOf(value);
    tellProblems(bundle);
    return `{"ev":"result","run":${run.id},${fields(bundle)},"count":${run.count}}`;
}

function tellProblems({ problems }) {
    for (let index = 0; index < problems.length; index++) complain(problems[index]);
}

// === environment and directory

/** The context's environment and directory. */
function start({ cwd: directory, env }) {
    const names = i.ownKeys(env);
    for (let index = 0; index < names.length; index++) process.env[names[index]] = env[names[index]];
    const programs = process.execPath.slice(0, process.execPath.lastIndexOf('/'));
    const path = process.env.PATH ?? '';
    // `npm` and `node` in a cell are those of this interpreter.
    if (!`:${path}:`.includes(`:${programs}:`))
        process.env.PATH = path === '' ? programs : `${programs}:${path}`;
    tellChildren();
    try {
        chdir(directory ?? '/');
    } catch (error) {
        complain(`the context starts in ${cwd()}: ${error.message}`);
    }
}

/** For a run with its own directory. What went wrong, or null. */
function enter(run, directory) {
    if (typeof directory !== 'string' || directory === '') return null;
    try {
        run.cameFrom = current();
        chdir(directory);
        run.went = current();
        return null;
    } catch (error) {
        run.cameFrom = null;
        return failureOf(error);
    }
}

/** Back to where the context was, unless the cell went somewhere itself. */
function leave(run) {
    if (run.cameFrom === null || current() !== run.went) return;
    try {
        chdir(run.cameFrom);
    } catch {
        // It has been removed meanwhile.
    }
}

function current() {
    try {
        return cwd();
    } catch {
        return null;
    }
}

module.exports = {
    Kernel,
};
