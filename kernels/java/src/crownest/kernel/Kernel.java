package crownest.kernel;

import crownest.api.Display;
import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * One context. Three threads: the reader takes frames from init and acts on those that cannot
 * wait; the kernel thread runs one cell or query after another and talks to JShell; the tenant's
 * code has a thread of its own (UserCode).
 */
final class Kernel implements Display.Screen {
    /** More than init ever sends ahead; a peer that sends more is none. */
    private static final int REQUESTS_WAITING_MAX = 64;

    /** So long nobody asks for anything before the time is used: the first cell often comes at
     * once, and should not wait for a step that it does not need. */
    private static final int IDLE_MS = 100;

    /** Given up when a cell has left no memory to say the end of its run with. */
    private static final int FAREWELL_BYTES = 512 * 1024;

    private final Channel channel;
    private final Console out;
    private final Console err;
    private final Input input;
    private final StandardError standardError;
    private final UserCode userCode;
    private final CellControl control;
    private final String apiPath;
    private final Surroundings surroundings = new Surroundings();
    // Made by the kernel's thread, before it looks at any request.
    private Engine engine;
    private Magics magics;
    private Queries queries;
    private final BlockingQueue<Map<?, ?>> requests = new LinkedBlockingQueue<>(REQUESTS_WAITING_MAX);
    private final Runnable afterRun;

    private byte[] farewell = new byte[FAREWELL_BYTES];

    private int count;
    /** What is running; null between runs. */
    private volatile Run run;
    /** The last one; of the kernel's thread alone. */
    private Run begun;

    /** `afterRun` puts the standard descriptors right. */
    Kernel(Channel channel, Console out, Console err, String apiPath, Runnable afterRun) {
        this.channel = channel;
        this.out = out;
        this.err = err;
        this.apiPath = apiPath;
        this.afterRun = afterRun;
        input = new Input(channel, out);
        CellLoader loader = new CellLoader();
        standardError = new StandardError(err);
        userCode = new UserCode(loader, standardError, this::isInterrupted, out.lock(), err.lock(), channel);
        control = new CellControl(loader, userCode);
        System.setIn(input);
        System.setOut(out);
        System.setErr(err);
        Display.connect(this);
        Thread.setDefaultUncaughtExceptionHandler(this::showUncaught);
    }

    private void showUncaught(Thread thread, Throwable thrown) {
        if (!(thrown instanceof ThreadDeath)) {
            PrintStream target = System.err == null ? err : System.err;
            target.println("Exception in thread \"" + thread.getName() + "\" "
                    + String.join("\n", engine.error(thrown).traceback()));
        }
    }

    void sayReady() {
        Map<String, Object> ready = new LinkedHashMap<>();
        ready.put("ev", "ready");
        ready.put("language", "java");
        ready.put("version", Runtime.version().feature() + "." + Runtime.version().interim()
                + "." + Runtime.version().update());
        channel.send(ready);
    }

    // === the reader's thread ===

    /** Until init closes the socket. */
    void readFrames() throws Channel.Ended {
        while (true) {
            Map<?, ?> frame = channel.receive();
            if (!(frame.get("op") instanceof String op)) {
                throw new Channel.Ended("a frame without op");
            }
            switch (op) {
                case "start", "execute", "query" -> {
                    if (!requests.offer(frame)) {
                        throw new Channel.Ended("too many requests");
                    }
                }
                case "interrupt" -> interrupt(frame.get("run"));
                case "input_reply" -> {
                    Run current = run;
                    if (current != null && Long.valueOf(current.id).equals(frame.get("run"))) {
                        input.reply(frame.get("value") instanceof String value ? value : null);
                    }
                }
                default -> { }
            }
        }
    }

    /** An interrupt that precedes its run in the queue is found there when the run begins. */
    private void interrupt(Object id) {
        Run current = run;
        if (current == null || !Long.valueOf(current.id).equals(id)) {
            early = id;
            current = run;
            if (current == null || !Long.valueOf(current.id).equals(id)) {
                return;
            }
        }
        current.interrupted = true;
        Thread stopping = new Thread(null, control::interrupt, "interrupt");
        stopping.setDaemon(true);
        stopping.start();
    }

    private boolean isInterrupted() {
        Run current = run;
        return current != null && current.interrupted;
    }

    /** The run whose interrupt was read before the run had begun. */
    private volatile Object early;

    // === the kernel's thread ===

    /** Until the process ends. `ready` does not wait for the engine, requests do; but that of a
     * spare one waits for everything that makes its first cell faster. */
    void serveRequests(boolean isSpare) {
        engine = new Engine(control, apiPath);
        magics = new Magics(engine, userCode, surroundings);
        queries = new Queries(engine, userCode);
        WarmUp warmUp = new WarmUp();
        boolean cold = true;
        if (isSpare) {
            prepare(warmUp);
            cold = false;
            sayReady();
        }
        while (true) {
            Map<?, ?> request;
            try {
                request = cold ? requests.poll(IDLE_MS, TimeUnit.MILLISECONDS) : requests.take();
            } catch (InterruptedException nobodyMeansThisThread) {
                continue;
            }
            try {
                if (request != null) {
                    serve(request);
                } else {
                    standardError.take();
                    cold = warmUp.whileIdle(engine, count == 0);
                    standardError.giveBack();
                }
            } catch (ThreadDeath stopped) {
                // A cell that stops every thread it finds; what this one held is in no known state.
                throw stopped;
            } catch (Throwable defect) {
                // No memory, most likely: the next one may go well.
                abandon(request, defect);
            }
        }
    }

    /**
     * Says the end of a run that failed on its way there: init waits for it. Where even that fails,
     * the process ends, which ends the run as well.
     */
    private void abandon(Map<?, ?> request, Throwable defect) {
        farewell = null;
        try {
            if (request == null || !(request.get("run") instanceof Long id)) {
                err.note("the driver failed: " + defect);
                return;
            }
            Run current = begun != null && begun.id == id ? begun : new Run(id, "", count, false);
            standardError.giveBack();
            if (!current.saidError && "execute".equals(request.get("op"))) {
                out.flushLines();
                err.flushLines();
                sayError(current, ofDriver(defect));
            }
            input.end();
            run = null;
            if (!current.saidDone) {
                sayDone(current, current.interrupted ? "interrupted" : "error");
            }
        } catch (Throwable again) {
            Runtime.getRuntime().halt(Driver.EXIT_DEFECT);
        }
    }

    private void prepare(WarmUp warmUp) {
        standardError.take();
        try {
            warmUp.thoroughly(engine);
            userCode.run(() -> Bundles.event(new LinkedHashMap<>(), Bundles.of(2)));
            surroundings.prepare();
        } catch (ThreadDeath stopped) {
            throw stopped;
        } catch (Throwable failed) {
            // Slower, and no worse: whoever takes it finds what one that was just started has.
            err.note("the driver was not warmed up: " + failed);
        } finally {
            standardError.giveBack();
        }
    }

    void serve(Map<?, ?> frame) {
        String op = (String) frame.get("op");
        if (op.equals("start")) {
            start(frame);
        } else if (frame.get("run") instanceof Long id) {
            if (op.equals("execute")) {
                execute(frame, id);
            } else {
                query(frame, id);
            }
        }
    }

    private void start(Map<?, ?> frame) {
        try {
            if (frame.get("env") instanceof Map<?, ?> env) {
                surroundings.addToEnvironment(env);
            }
            if (frame.get("cwd") instanceof String cwd) {
                surroundings.enter(cwd);
            }
        } catch (Exception failed) {
            err.note("the context starts in " + surroundings.directory() + ": " + failed);
        }
        Surroundings.useNetwork();
    }

    private Run begin(long id, String code, boolean hasInput) {
        begun = new Run(id, code, count, hasInput);
        run = begun;
        if (Long.valueOf(id).equals(early)) {
            begun.interrupted = true;
        }
        early = null;
        input.begin(begun);
        standardError.take();
        return begun;
    }

    private void execute(Map<?, ?> frame, long id) {
        count++;
        Run current = begin(id, text(frame, "code"), Boolean.TRUE.equals(frame.get("input")));
        ErrorEvent error;
        String home = surroundings.directory();
        try {
            if (frame.get("cwd") instanceof String cwd) {
                surroundings.enter(cwd);
            }
            error = runCell(current);
        } catch (ThreadDeath stopped) {
            throw stopped;
        } catch (Throwable failed) {
            error = ofDriver(failed);
        }
        try {
            surroundings.enter(home);
        } catch (Exception gone) {
            err.note("the context's directory is gone: " + gone);
        }
        finish(current, error);
        settle();
    }

    private static String text(Map<?, ?> frame, String name) {
        return frame.get(name) instanceof String text ? text : "";
    }

    private ErrorEvent runCell(Run current) {
        Engine.Outcome outcome = engine.evaluate(current, magics);
        ErrorEvent error = outcome.error;
        if (error == null && outcome.hasValue) {
            error = sendResult(current, outcome.value);
        }
        for (Engine.Notice notice : outcome.notices) {
            sendNotice(current, notice);
        }
        return error;
    }

    /** The text of a value is code of the tenant: it may throw, and it may not end. */
    private ErrorEvent sendResult(Run current, Object value) {
        if (value instanceof Display.Displayed) {
            return null;
        }
        UserCode.Call call = userCode.run(() -> {
            try {
                Map<String, Object> event = new LinkedHashMap<>();
                event.put("ev", "result");
                event.put("run", current.id);
                event.put("count", current.count);
                return Bundles.event(event, Bundles.of(value));
            } catch (ThreadDeath stop) {
                throw stop;
            } catch (Throwable thrown) {
                // Here, since its text is the tenant's as well.
                return engine.error(thrown);
            }
        });
        if (call.wasStopped()) {
            return Engine.interrupted(null);
        }
        if (call.thrown != null) {
            return Failures.unnamed(call.thrown);
        }
        if (call.value instanceof ErrorEvent error) {
            return error;
        }
        channel.send((byte[]) call.value);
        return null;
    }

    private void sendNotice(Run current, Engine.Notice notice) {
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("ev", "notice");
        event.put("run", current.id);
        event.put("code", notice.code());
        event.put("message", Failures.bounded(notice.message()));
        channel.send(event);
    }

    /** What went wrong in the driver or in JShell, and is a matter of the cell all the same. */
    private static ErrorEvent ofDriver(Throwable failed) {
        if (failed instanceof OutOfMemoryError) {
            // Of the cell's making, wherever it strikes.
            return Failures.unnamed(failed);
        }
        String name = failed.getClass().getName();
        String message = String.valueOf(failed.getMessage());
        return new ErrorEvent(Failures.simple(name), Failures.bounded(message), List.of(name + ": " + message), null);
    }

    /** Everything that the run said, then `error` if it failed, then `done`. */
    private void finish(Run current, ErrorEvent error) {
        String status = error == null ? "ok" : current.interrupted ? "interrupted" : "error";
        standardError.giveBack();
        flushAll();
        if (error != null) {
            sayError(current, error);
        }
        standardError.giveBack();
        input.end();
        run = null;
        sayDone(current, status);
    }

    private void sayError(Run current, ErrorEvent error) {
        ErrorEvent named = current.interrupted ? error.withName(Engine.INTERRUPTED_NAME) : error;
        channel.send(named.frame(current.id));
        current.saidError = true;
    }

    private void sayDone(Run current, String status) {
        Map<String, Object> done = new LinkedHashMap<>();
        done.put("ev", "done");
        done.put("run", current.id);
        done.put("status", status);
        done.put("count", current.count);
        channel.send(done);
        current.saidDone = true;
    }

    /** Also streams that a cell has put in the place of ours; their flush() is the cell's code. */
    private void flushAll() {
        PrintStream nowOut = System.out;
        PrintStream nowErr = System.err;
        if (nowOut == null) {
            System.setOut(out);
        }
        if (nowErr == null) {
            System.setErr(err);
        }
        if (nowOut != null && nowOut != out || nowErr != null && nowErr != err) {
            userCode.runAlways(() -> {
                // One that has been closed, or has nowhere to write to, is of no use to anybody.
                if (nowOut != null && nowOut.checkError()) {
                    System.setOut(out);
                }
                if (nowErr != null && nowErr.checkError()) {
                    System.setErr(err);
                }
                return null;
            });
        }
        out.flushLines();
        err.flushLines();
        afterRun.run();
    }

    /** After `done`, when nobody waits. */
    private void settle() {
        standardError.take();
        try {
            engine.dropTemporaries();
            engine.refillReserve();
            if (farewell == null) {
                farewell = new byte[FAREWELL_BYTES];
            }
        } catch (Throwable failed) {
            // No memory, most likely: the next cell says so.
            return;
        } finally {
            standardError.giveBack();
        }
    }

    private void query(Map<?, ?> frame, long id) {
        Run current = begin(id, text(frame, "code"), false);
        String status = "error";
        try {
            Map<String, Object> answer = queries.answer(text(frame, "query"), frame, current);
            if (answer != null) {
                Map<String, Object> event = new LinkedHashMap<>();
                event.put("ev", "answer");
                event.put("run", id);
                event.put("answer", answer);
                channel.send(event);
                status = "ok";
            }
        } catch (ThreadDeath stopped) {
            throw stopped;
        } catch (Throwable failed) {
            status = "error";
        }
        if (current.interrupted && !status.equals("ok")) {
            status = "interrupted";
        }
        out.flushLines();
        err.flushLines();
        standardError.giveBack();
        input.end();
        run = null;
        sayDone(current, status);
    }

    // === Display.Screen, on threads of the tenant ===

    @Override
    public void show(Object value, String id, boolean update) {
        Run current = run;
        if (current == null) {
            return;
        }
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("ev", "display");
        event.put("run", current.id);
        if (id != null) {
            event.put("display_id", Texts.preview(id, Bundles.MIME_CHARS_MAX));
        }
        if (update) {
            event.put("update", true);
        }
        byte[] body = Bundles.event(event, bundle(value));
        out.flushLines();
        err.flushLines();
        channel.send(body);
    }

    private static Map<String, Object> bundle(Object value) {
        try {
            return Bundles.of(value);
        } catch (RuntimeException thrown) {
            throw thrown;
        } catch (Exception checked) {
            throw new IllegalStateException(checked);
        }
    }

    @Override
    public void clear(boolean wait) {
        Run current = run;
        if (current == null) {
            return;
        }
        out.flushLines();
        err.flushLines();
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("ev", "clear");
        event.put("run", current.id);
        event.put("wait", wait);
        channel.send(event);
    }

    @Override
    public String read(String prompt, boolean password) {
        try {
            return input.ask(prompt, password);
        } catch (java.io.InterruptedIOException interrupted) {
            throw new java.io.UncheckedIOException(interrupted);
        }
    }
}
