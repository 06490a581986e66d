package crownest.kernel;

import java.util.concurrent.Callable;
import java.util.function.BooleanSupplier;

/**
 * The thread on which code of the tenant runs: cells, their toString(), their flush(). One at a
 * time; the caller waits. Owns stopping it, which JShell and the rest of the driver must not feel:
 * a thread that had to be stopped is thrown away, and the next call gets a new one.
 */
final class UserCode {
    static final String THREAD_NAME = "cell";
    /** What code that waits, or looks at Thread.interrupted(), has to come to an end by itself. */
    static final int INTERRUPT_GRACE_MS = 50;
    /** How often code that catches everything is stopped again, and how far apart. */
    static final int STOPS_MAX = 30;
    static final int STOP_PAUSE_MS = 50;
    /** A loop whose body catches everything is left only by a stop that strikes between two
     * rounds, while it is busy with the one before: from the second time on there are many. */
    static final int STOPS_AT_ONCE_MAX = 256;

    private final ClassLoader loader;
    private final Object[] outputLocks;
    private final StandardError standardError;
    private final BooleanSupplier cancelled;
    private final Object lock = new Object();
    private Worker worker;
    private Call call;

    /** Whether a cell runs on this thread, and not on one that a cell has started. */
    static boolean isCurrentThread() {
        return Thread.currentThread() instanceof Worker;
    }

    /** `cancelled`: whether the run has been interrupted already, while something was compiled.
     * `outputLocks`: nobody is stopped who holds one of these. */
    UserCode(ClassLoader loader, StandardError standardError, BooleanSupplier cancelled, Object... outputLocks) {
        this.standardError = standardError;
        this.loader = loader;
        this.cancelled = cancelled;
        this.outputLocks = outputLocks;
    }

    /** What became of one call. */
    static final class Call {
        private final Callable<?> code;
        private final boolean always;
        private boolean armed;
        private boolean finished;
        private boolean stopped;
        private StackTraceElement[] where;
        Object value;
        Throwable thrown;

        private Call(Callable<?> code, boolean always) {
            this.code = code;
            this.always = always;
        }

        /** Whether it ended because it was stopped, and not by itself after a first request. */
        boolean wasStopped() {
            return stopped && thrown instanceof ThreadDeath;
        }

        /** Where it was when it was stopped; the exception of a stop knows nothing of that. */
        StackTraceElement[] where() {
            return where;
        }
    }

    /** Runs `code` and waits for its end. Never throws what it throws. */
    Call run(Callable<?> code) {
        return run(new Call(code, false));
    }

    /** As run(), after an interrupt too: what has to be done at the end of every run. */
    Call runAlways(Callable<?> code) {
        return run(new Call(code, true));
    }

    private Call run(Call mine) {
        standardError.giveBack();
        try {
            return runThere(mine);
        } finally {
            standardError.take();
        }
    }

    private Call runThere(Call mine) {
        synchronized (lock) {
            if (worker == null || !worker.isAlive()) {
                worker = new Worker(loader);
                worker.start();
            }
            call = mine;
            lock.notifyAll();
            while (!mine.finished) {
                waitQuietly();
            }
            call = null;
            if (mine.stopped) {
                worker = null;
            }
        }
        return mine;
    }

    private void waitQuietly() {
        try {
            lock.wait();
        } catch (InterruptedException nobodyMeansThisThread) {
            // A cell that interrupts every thread it finds: the wait goes on.
            return;
        }
    }

    /**
     * Ends the call that is running: by Thread.interrupt(), then by `stop` as often as it takes.
     * Returns when it has ended or cannot be ended.
     */
    void interrupt(Stopper stop) {
        Call target;
        Thread thread;
        synchronized (lock) {
            target = call;
            thread = worker;
            if (target == null || target.finished) {
                return;
            }
            thread.interrupt();
            await(target, INTERRUPT_GRACE_MS);
        }
        for (int i = 0; i < STOPS_MAX && !isFinished(target); i++) {
            for (int n = 0; n < Math.min(STOPS_AT_ONCE_MAX, 1 << 2 * i) && !isFinished(target); n++) {
                holding(0, () -> stopOnce(target, thread, stop));
            }
            synchronized (lock) {
                await(target, STOP_PAUSE_MS);
            }
        }
    }

    /** How a thread is stopped on this version of Java. */
    interface Stopper {
        void stop(Thread thread);
    }

    private boolean isFinished(Call target) {
        synchronized (lock) {
            return target.finished;
        }
    }

    private void stopOnce(Call target, Thread thread, Stopper stop) {
        synchronized (lock) {
            if (!target.armed) {
                return;
            }
            target.stopped = true;
            if (target.where == null) {
                target.where = thread.getStackTrace();
            }
            stop.stop(thread);
        }
    }

    private void holding(int index, Runnable action) {
        if (index == outputLocks.length) {
            action.run();
            return;
        }
        synchronized (outputLocks[index]) {
            holding(index + 1, action);
        }
    }

    private void await(Call target, long milliseconds) {
        long end = System.nanoTime() + milliseconds * 1_000_000;
        long rest = milliseconds;
        while (!target.finished && rest > 0) {
            try {
                lock.wait(rest);
            } catch (InterruptedException nobodyMeansThisThread) {
                return;
            }
            rest = (end - System.nanoTime()) / 1_000_000;
        }
    }

    private final class Worker extends Thread {
        Worker(ClassLoader loader) {
            super(null, null, THREAD_NAME);
            setDaemon(true);
            setContextClassLoader(loader);
        }

        @Override
        public void run() {
            try {
                serveAll();
            } finally {
                leave();
            }
        }

        /** Whatever ends this thread, a caller does not wait for it. */
        private void leave() {
            synchronized (lock) {
                if (worker == this && call != null) {
                    call.finished = true;
                }
                lock.notifyAll();
            }
        }

        private void serveAll() {
            while (true) {
                Call next = take();
                if (next == null) {
                    return;
                }
                // A stop may strike anywhere up to finish(), which is the last place that one can
                // come from, so at most twice in a row.
                try {
                    serve(next);
                } catch (Throwable late) {
                    next.thrown = late;
                }
                try {
                    finish(next);
                } catch (Throwable late) {
                    finish(next);
                }
                if (next.stopped) {
                    return;
                }
            }
        }

        private Call take() {
            synchronized (lock) {
                while (worker == this && (call == null || call.finished)) {
                    waitQuietly();
                }
                if (worker != this) {
                    return null;
                }
                // From the interrupt of the call before, which came too late for it.
                Thread.interrupted();
                // A cell may have set another one, for itself.
                setContextClassLoader(loader);
                call.armed = true;
                return call;
            }
        }

        private void serve(Call next) {
            try {
                // An interrupt from here on finds this call, one from before is seen here.
                if (!next.always && cancelled.getAsBoolean()) {
                    next.stopped = true;
                    next.where = new StackTraceElement[0];
                    throw new ThreadDeath();
                }
                next.value = next.code.call();
            } catch (Throwable thrown) {
                next.thrown = thrown;
            }
        }

        private void finish(Call next) {
            synchronized (lock) {
                next.armed = false;
                next.finished = true;
                lock.notifyAll();
            }
        }
    }
}
