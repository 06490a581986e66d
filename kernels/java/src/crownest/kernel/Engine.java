package crownest.kernel;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.IntUnaryOperator;
import java.util.function.Supplier;
import jdk.jshell.DeclarationSnippet;
import jdk.jshell.Diag;
import jdk.jshell.JShell;
import jdk.jshell.Snippet;
import jdk.jshell.SnippetEvent;
import jdk.jshell.VarSnippet;
import jdk.jshell.spi.ExecutionControl;
import jdk.jshell.spi.ExecutionControlProvider;
import jdk.jshell.spi.ExecutionEnv;

/**
 * The context's JShell: evaluates cells, piece by piece. Owns the snippets; what they print, show
 * and throw is for others to pass on.
 */
final class Engine {
    /** A run of statements that is given to JShell as one: a compiler run each is 10 ms. */
    private static final int MERGED_CHARS_MAX = 32 * 1024;
    private static final int MERGED_UNITS_MAX = 200;
    /** What a compiler run takes, and a full collection beside it, when a cell has left nothing:
     * without it `all = null;` could not be compiled either. */
    private static final int RESERVE_BYTES = 4 * 1024 * 1024;
    private static final String VALUE_NAME = "$value$";
    /** Where a comment that ends the expression has ended. */
    private static final String VALUE_END = "\n);";
    private static final String BLOCK_START = "{ ";
    private static final String BLOCK_END = "\n}";
    private static final int CAUSES_MAX = 16;
    /** What ends an interrupted run, whatever its code made of it. */
    static final String INTERRUPTED_NAME = "InterruptedException";
    /**
     * Names that every context has: those that JShell has by default, and ours. They wait until the
     * context is idle, or one of them is missed: the first cell of a new context is faster by what
     * they cost. One piece for several, since JShell puts the text of an import as it is into all
     * that follows.
     */
    private static final String[] IMPORTS = {
        "import java.util.*; import static crownest.api.Display.*;",
        "import java.util.stream.*; import java.util.function.*;",
        "import java.io.*; import java.math.*; import java.nio.file.*;",
        "import java.util.concurrent.*; import java.util.regex.*; import java.net.*;",
    };

    private final CellControl control;
    private final Cells cells = new Cells();
    private final String apiPath;
    private Syntax syntax;
    private final JShell shell;
    private byte[] reserve = new byte[RESERVE_BYTES];
    private final List<Snippet> droppable = new ArrayList<>();
    private int snippetCount;
    private int imported;
    /** Where the piece that is being evaluated stands. */
    private int cell;
    private int linesBefore;

    Engine(CellControl control, String apiPath) {
        this.control = control;
        this.apiPath = apiPath;
        // What JShell and its compiler begin with; the driver's own jar is none of it.
        System.setProperty("java.class.path", apiPath);
        shell = JShell.builder()
                .executionEngine(new Provider(control), Map.of())
                .idGenerator((snippet, number) -> newId())
                .build();
    }

    /** Hands JShell the one execution control there is. */
    private record Provider(CellControl control) implements ExecutionControlProvider {
        @Override
        public String name() {
            return "crownest";
        }

        @Override
        public ExecutionControl generate(ExecutionEnv env, Map<String, String> parameters) {
            return control;
        }
    }

    private String newId() {
        String id = String.valueOf(++snippetCount);
        if (cell > 0) {
            cells.put(id, cell, linesBefore);
        }
        return id;
    }

    /** A part of what cells count on. False when all of it is there. */
    boolean importMore() {
        return importUpTo(imported + 1);
    }

    /** All of what cells count on. False when it was there. */
    boolean importAll() {
        return importUpTo(IMPORTS.length);
    }

    private boolean importUpTo(int end) {
        if (imported == IMPORTS.length) {
            return false;
        }
        String text = String.join(" ", Arrays.asList(IMPORTS).subList(imported, end));
        int outer = cell;
        cell = 0;
        shell.eval(text);
        cell = outer;
        imported = end;
        return true;
    }

    Syntax syntax() {
        if (syntax == null) {
            syntax = new Syntax();
        }
        return syntax;
    }

    JShell shell() {
        return shell;
    }

    // === a cell ===

    /** What became of a cell that was not run to its end by its own exceptions. */
    static final class Outcome {
        ErrorEvent error;
        boolean hasValue;
        Object value;
        final List<Notice> notices = new ArrayList<>();
    }

    /** `code` is for programs, `message` for people. */
    record Notice(String code, String message) {}

    /** Runs a magic; null, or what went wrong. */
    interface Magics {
        ErrorEvent run(String line, Run run, int lineInCell);
    }

    Outcome evaluate(Run run, Magics magics) {
        Outcome outcome = new Outcome();
        String code = run.code;
        cell = run.count;
        List<Splitter.Unit> units = Splitter.split(code);
        if (units.size() > 1) {
            control.forgetLast();
            List<Diagnostics.Objection> objections = withReserve(() -> syntax().check(code, units));
            if (!objections.isEmpty()) {
                outcome.error = Diagnostics.event(code, cell, objections);
                return outcome;
            }
        }
        List<Snippet> unresolved = new ArrayList<>();
        for (int i = 0; i < units.size() && outcome.error == null; ) {
            if (run.interrupted) {
                outcome.error = interrupted(1 + Cells.linesBefore(code, units.get(i).start()));
                break;
            }
            int end = mergeEnd(units, i);
            if (end - i > 1 && evaluateMerged(code, units, i, end, outcome, unresolved)) {
                i = end;
                continue;
            }
            Splitter.Unit unit = units.get(i++);
            if (unit.kind() == Splitter.Kind.MAGIC) {
                outcome.error = magics.run(unit.text(code), run, 1 + Cells.linesBefore(code, unit.start()));
            } else {
                boolean isLast = i == units.size();
                evaluateOne(code, unit, isLast, outcome, unresolved);
            }
        }
        for (Snippet snippet : unresolved) {
            if (shell.status(snippet).isActive() && shell.status(snippet) != Snippet.Status.VALID) {
                outcome.notices.add(new Notice("unresolved_reference", Diagnostics.unresolved(shell, snippet)));
            }
        }
        return outcome;
    }

    /** Of what the text of a value threw. JShell is not asked: no snippet of a cell was running. */
    ErrorEvent error(Throwable thrown) {
        return Failures.plain(thrown, cells);
    }

    /** Before `line`, or in the text of a value. */
    static ErrorEvent interrupted(Integer line) {
        String message = "the run was interrupted";
        String text = "java.lang.InterruptedException: " + message;
        return new ErrorEvent(INTERRUPTED_NAME, text, List.of(text), line);
    }

    private static int mergeEnd(List<Splitter.Unit> units, int from) {
        int end = from;
        while (end < units.size() && end - from < MERGED_UNITS_MAX
                && units.get(end).kind() == Splitter.Kind.STATEMENT && units.get(end).closed()
                && units.get(end).end() - units.get(from).start() <= MERGED_CHARS_MAX) {
            end++;
        }
        return end;
    }

    /** False if the compiler does not take them as one block; then nothing has run. */
    private boolean evaluateMerged(String code, List<Splitter.Unit> units, int from, int end,
            Outcome outcome, List<Snippet> unresolved) {
        int start = units.get(from).start();
        String block = BLOCK_START + code.substring(start, units.get(end - 1).end()) + BLOCK_END;
        linesBefore = Cells.linesBefore(code, start);
        List<SnippetEvent> events = evaluate(block);
        if (isRejected(events)) {
            return false;
        }
        collect(events, code, at -> start - BLOCK_START.length() + at, outcome, unresolved);
        return true;
    }

    private List<SnippetEvent> evaluate(String text) {
        control.forgetLast();
        try {
            return withReserve(() -> evaluateOrImport(text));
        } catch (RuntimeException | Error crashed) {
            renewCompiler();
            throw crashed;
        }
    }

    /** What is not accepted, or waits for a declaration, may only miss an import. */
    private List<SnippetEvent> evaluateOrImport(String text) {
        List<SnippetEvent> events = shell.eval(text);
        // Nothing of it has run. A declaration comes to life with the imports, but a variable
        // would do so without its value.
        return !isComplete(events) && importAll() ? shell.eval(text) : events;
    }

    /** Once more, with what is kept for this, if `work` needs memory and none of the cell's code
     * has run in it. */
    private <T> T withReserve(Supplier<T> work) {
        try {
            return work.get();
        } catch (RuntimeException | Error crashed) {
            if (!isOutOfMemory(crashed) || reserve == null || control.last() != null) {
                throw crashed;
            }
            reserve = null;
            renewCompiler();
            return work.get();
        }
    }

    /** The compiler hands on what it fails of as the cause of an exception of its own. */
    private static boolean isOutOfMemory(Throwable crashed) {
        Throwable at = crashed;
        for (int i = 0; at != null && i < CAUSES_MAX; i++) {
            if (at instanceof OutOfMemoryError) {
                return true;
            }
            at = at.getCause();
        }
        return false;
    }

    /**
     * A compiler that has crashed (a cell that is nested too deep, no memory) leaves a state that
     * JShell would go on with, and in which nothing can be declared. A longer class path is the
     * one occasion on which JShell makes a new one.
     */
    private void renewCompiler() {
        syntax = null;
        shell.addToClasspath(apiPath);
    }

    private static boolean isRejected(List<SnippetEvent> events) {
        for (SnippetEvent event : events) {
            if (event.causeSnippet() == null && event.status() == Snippet.Status.REJECTED) {
                return true;
            }
        }
        return false;
    }

    private static boolean isComplete(List<SnippetEvent> events) {
        for (SnippetEvent event : events) {
            if (event.causeSnippet() == null && event.status() != Snippet.Status.VALID) {
                return false;
            }
        }
        return true;
    }

    private void evaluateOne(String code, Splitter.Unit unit, boolean isLast, Outcome outcome,
            List<Snippet> unresolved) {
        linesBefore = Cells.linesBefore(code, unit.start());
        // What may go without its semicolon at the end of a cell, as in JShell.
        boolean isOpen = !unit.closed()
                && (unit.kind() == Splitter.Kind.IMPORT || unit.kind() == Splitter.Kind.STATEMENT);
        String source = unit.text(code);
        Records records = unit.kind() == Splitter.Kind.TYPE ? Records.of(source) : null;
        boolean wanted = isLast && unit.kind() == Splitter.Kind.OTHER;
        List<SnippetEvent> events = wanted && !unit.closed() ? evaluateValue(source) : null;
        boolean isValue = events != null;
        if (events == null) {
            events = evaluate(records != null ? records.text() : isOpen ? source + "\n;" : source);
            isValue = isValue(events);
        }
        collect(events, code, at -> unit.start() + (records != null ? records.origin(at) : at),
                outcome, unresolved);
        if (wanted && outcome.error == null && isValue && control.last() != null) {
            outcome.hasValue = true;
            outcome.value = control.last().value;
        }
        control.forgetLast();
    }

    /**
     * An expression as the value of a variable of ours: three compiler runs. JShell takes five,
     * since it asks twice what type a variable for it has to have. Null if it is no expression, or
     * one that may be worth something else there; then nothing of it has run.
     */
    private List<SnippetEvent> evaluateValue(String source) {
        // Whose cases are converted to the type that is expected: 1.0 would become 1.
        if (source.contains("switch")) {
            return null;
        }
        String name = VALUE_NAME + snippetCount;
        List<SnippetEvent> events = evaluate("Object " + name + " = (" + source + VALUE_END);
        boolean isComplete = isComplete(events);
        for (SnippetEvent event : events) {
            if (event.causeSnippet() == null && isComplete) {
                droppable.add(event.snippet());
            } else if (event.causeSnippet() == null && event.status().isActive()) {
                shell.drop(event.snippet());
            }
        }
        return isComplete && !events.isEmpty() ? events : null;
    }

    private static boolean isValue(List<SnippetEvent> events) {
        for (SnippetEvent event : events) {
            if (event.causeSnippet() == null) {
                return switch (event.snippet().subKind()) {
                    case VAR_VALUE_SUBKIND, OTHER_EXPRESSION_SUBKIND, TEMP_VAR_EXPRESSION_SUBKIND,
                            ASSIGNMENT_SUBKIND -> true;
                    default -> false;
                };
            }
        }
        return false;
    }

    /** `origin`: from an offset in what JShell was given to one in the cell. */
    private void collect(List<SnippetEvent> events, String code, IntUnaryOperator origin,
            Outcome outcome, List<Snippet> unresolved) {
        for (SnippetEvent event : events) {
            Snippet snippet = event.snippet();
            if (snippet.subKind() == Snippet.SubKind.TEMP_VAR_EXPRESSION_SUBKIND) {
                droppable.add(snippet);
            }
            if (event.causeSnippet() != null) {
                noteReset(event, outcome);
            } else if (event.exception() != null) {
                ErrorEvent error = Failures.event(event.exception(), cells, cell, shell);
                // One that was stopped before its first line has no frame to tell where.
                boolean isAtStart = error.line() == null && control.last() != null && control.last().wasStopped();
                outcome.error = isAtStart ? error.withLine(1 + linesBefore) : error;
            } else if (event.status() == Snippet.Status.REJECTED) {
                outcome.error = Diagnostics.event(code, cell, objections(snippet, origin));
            } else if (event.status() != Snippet.Status.VALID && event.status().isActive()) {
                if (isTooLarge(snippet)) {
                    outcome.error = Diagnostics.event(code, cell, objections(snippet, origin));
                    shell.drop(snippet);
                    renewCompiler();
                } else {
                    unresolved.add(snippet);
                }
            }
        }
        if (events.isEmpty() && outcome.error == null) {
            outcome.error = Diagnostics.event(code, cell,
                    List.of(new Diagnostics.Objection(origin.applyAsInt(0), "comment without an end")));
        }
        noteFailure(outcome);
    }

    /** Whether a class file cannot hold it (64 KiB of code, or of text): JShell takes that for
     * something that is still to be declared, and what it compiles afterwards fails the same way. */
    private boolean isTooLarge(Snippet snippet) {
        return !(snippet instanceof DeclarationSnippet declared)
                || shell.unresolvedDependencies(declared).findAny().isEmpty();
    }

    /** What kept a piece from running, though it was compiled. */
    private void noteFailure(Outcome outcome) {
        String failure = control.takeFailure();
        if (failure != null && outcome.error == null) {
            outcome.error = new ErrorEvent(Failures.ERROR_NAME, failure, List.of(failure), null);
        }
    }

    /** A variable of a type that was declared anew begins again without a value. */
    private static void noteReset(SnippetEvent event, Outcome outcome) {
        if (event.snippet() instanceof VarSnippet variable && event.isSignatureChange()
                && event.previousStatus() == Snippet.Status.VALID) {
            outcome.notices.add(new Notice("state_not_kept",
                    "the type of " + variable.name() + " was declared anew: its value is gone"));
        }
    }

    private List<Diagnostics.Objection> objections(Snippet snippet, IntUnaryOperator origin) {
        List<Diagnostics.Objection> objections = new ArrayList<>();
        shell.diagnostics(snippet).filter(Diag::isError).forEach(diag -> objections.add(
                new Diagnostics.Objection(
                        origin.applyAsInt((int) diag.getPosition()), diag.getMessage(Locale.ROOT))));
        if (objections.isEmpty()) {
            objections.add(new Diagnostics.Objection(origin.applyAsInt(0), "this is too large for a class file"));
        }
        return objections;
    }

    // === between cells ===

    /**
     * JShell keeps the value of every expression in a variable of its own ($1, $2 …). Nobody is
     * told their names, so they would only hold memory, and one more import for each later piece.
     */
    void dropTemporaries() {
        for (Snippet snippet : droppable) {
            if (shell.status(snippet).isActive()) {
                shell.drop(snippet);
            }
        }
        droppable.clear();
    }

    /** Keeps memory for the compiler again, if that was used. */
    void refillReserve() {
        if (reserve == null) {
            reserve = new byte[RESERVE_BYTES];
        }
    }

    /** Evaluates `code` for nobody: it leaves no name and no value. */
    void rehearse(String code) {
        cell = 0;
        List<Snippet> declared = new ArrayList<>();
        for (Splitter.Unit unit : Splitter.split(code)) {
            String source = unit.text(code);
            List<SnippetEvent> value =
                    unit.kind() == Splitter.Kind.OTHER && !unit.closed() ? evaluateValue(source) : null;
            for (SnippetEvent event : value != null ? value : shell.eval(source)) {
                declared.add(event.snippet());
            }
        }
        droppable.clear();
        for (Snippet snippet : declared) {
            if (shell.status(snippet).isActive()) {
                shell.drop(snippet);
            }
        }
        control.forgetLast();
    }

    /** Jars and directories, for the compiler and for the loader. */
    void addToClasspath(String path) {
        shell.addToClasspath(path);
    }

    /** The live value of a variable, without asking it anything. */
    Object value(VarSnippet variable) {
        shell.varValue(variable);
        return control.takeVariable();
    }
}
