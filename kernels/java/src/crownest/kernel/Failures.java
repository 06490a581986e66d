package crownest.kernel;

import java.util.ArrayList;
import java.util.List;
import jdk.jshell.EvalException;
import jdk.jshell.JShell;
import jdk.jshell.JShellException;
import jdk.jshell.UnresolvedReferenceException;
import jdk.jshell.spi.ExecutionControl.ResolutionException;
import jdk.jshell.spi.ExecutionControl.RunException;
import jdk.jshell.spi.ExecutionControl.UserException;
import jdk.jshell.spi.SPIResolutionException;

/**
 * Exceptions of cells: on the tenant's thread they become what JShell takes, with names and texts
 * that are bounded; JShell translates the lines of their frames and gives an EvalException; that
 * becomes the `error` event. Every part of an exception belongs to the tenant and may throw.
 */
final class Failures {
    // Below what the server takes, so that the mark of what is left out arrives as well.
    static final int MESSAGE_BYTES_MAX = 63 * 1024;
    static final int TRACEBACK_LINES_MAX = 400;
    static final int TRACEBACK_LINE_CHARS_MAX = 2 * 1024 - 1;
    /** What every failure of running code is called, as the kernels of Jupyter call it: the name of
     * what JShell throws. The class of the exception begins the message. */
    static final String ERROR_NAME = "EvalException";
    private static final int CAUSES_MAX = 16;
    private static final int FRAMES_MAX = 2048;
    private static final String SNIPPET_PREFIX = "REPL.$JShell$";
    private static final String SNIPPET_METHOD = "do_it$";
    private static final String INTERRUPTED = "java.lang.InterruptedException";
    private static final String[] OWN_FRAMES = {
        "crownest.kernel.", "jdk.internal.reflect.", "java.lang.reflect.Method",
    };

    private Failures() {}

    // === from exceptions to what JShell takes ===

    /** On the tenant's thread. */
    static RunException describe(Throwable thrown) {
        return describe(thrown, 0);
    }

    private static RunException describe(Throwable thrown, int depth) {
        if (thrown instanceof SPIResolutionException unresolved) {
            return new ResolutionException(unresolved.id(), unresolved.getStackTrace());
        }
        RunException described = new UserException(message(thrown), name(thrown.getClass()), frames(thrown));
        Throwable cause = depth < CAUSES_MAX ? cause(thrown) : null;
        if (cause != null) {
            described.initCause(describe(cause, depth + 1));
        }
        return described;
    }

    private static String message(Throwable thrown) {
        try {
            String message = bounded(thrown.getLocalizedMessage());
            return message == null ? null : withoutWrappers(message);
        } catch (Exception broken) {
            return "(the message could not be shown: " + name(broken.getClass()) + ")";
        }
    }

    private static Throwable cause(Throwable thrown) {
        try {
            Throwable cause = thrown.getCause();
            return cause == thrown ? null : cause;
        } catch (Exception broken) {
            return null;
        }
    }

    private static StackTraceElement[] frames(Throwable thrown) {
        try {
            List<StackTraceElement> kept = new ArrayList<>();
            for (StackTraceElement frame : thrown.getStackTrace()) {
                if (frame != null && kept.size() < FRAMES_MAX) {
                    kept.add(frame);
                }
            }
            return kept.toArray(new StackTraceElement[0]);
        } catch (Exception broken) {
            return new StackTraceElement[0];
        }
    }

    /** For a call that was stopped: where it was. */
    static UserException stopped(StackTraceElement[] where) {
        return new UserException("the run was interrupted", INTERRUPTED, where);
    }

    /** For what went wrong while an exception was described: a second error, no text of the first. */
    static UserException undescribed(Throwable thrown) {
        return new UserException(null, name(thrown.getClass()), new StackTraceElement[0]);
    }

    /** Likewise, as an event. */
    static ErrorEvent unnamed(Throwable thrown) {
        String name = name(thrown.getClass());
        return new ErrorEvent(ERROR_NAME, name, List.of(name), null);
    }

    /** As the tenant wrote it: without the class that JShell puts around a snippet. */
    static String name(Class<?> type) {
        return sourceName(type.getName());
    }

    static String sourceName(String binary) {
        if (binary.startsWith(SNIPPET_PREFIX)) {
            int inner = binary.indexOf('$', SNIPPET_PREFIX.length());
            binary = inner < 0 ? "" : binary.substring(inner + 1);
        }
        return binary.replace('$', '.');
    }

    /** A message of the JVM may name the class that JShell puts around a snippet. */
    private static String withoutWrappers(String message) {
        int at = message.indexOf(SNIPPET_PREFIX);
        if (at < 0) {
            return message;
        }
        StringBuilder text = new StringBuilder();
        int from = 0;
        while (at >= 0) {
            int end = at + SNIPPET_PREFIX.length();
            while (end < message.length() && Character.isLetterOrDigit(message.charAt(end))) {
                end++;
            }
            if (end < message.length() && message.charAt(end) == '$') {
                end++;
            }
            text.append(message, from, at);
            from = end;
            at = message.indexOf(SNIPPET_PREFIX, from);
        }
        return text.append(message, from, message.length()).toString();
    }

    // === from JShell's exceptions to events ===

    /** Where a snippet stands in the cells: `Cells` knows. */
    interface Places {
        /** `null` for no snippet of a cell. */
        Cells.Place place(String snippetId);
    }

    static ErrorEvent event(Exception failure, Places places, int cell, JShell shell) {
        if (failure instanceof EvalException thrown) {
            return thrown(thrown, places, cell);
        }
        if (failure instanceof UnresolvedReferenceException unresolved) {
            return unresolved(unresolved, places, cell, shell);
        }
        return plain(failure, places);
    }

    /** Without JShell, which alone knows the lines of snippets. */
    static ErrorEvent plain(Throwable thrown, Places places) {
        String name = name(thrown.getClass());
        String message = message(thrown);
        List<String> lines = new ArrayList<>();
        Throwable at = thrown;
        for (int i = 0; at != null && i < CAUSES_MAX; i++) {
            lines.addAll(head(i == 0 ? "" : "Caused by: ", name(at.getClass()), message(at)));
            addFrames(lines, frames(at), places);
            at = cause(at);
        }
        return new ErrorEvent(ERROR_NAME, headline(name, message), bounded(lines), null);
    }

    private static ErrorEvent thrown(EvalException thrown, Places places, int cell) {
        String name = thrown.getExceptionClassName();
        List<String> lines = new ArrayList<>();
        lines.addAll(head("", name, thrown.getMessage()));
        addFrames(lines, thrown.getStackTrace(), places);
        Integer line = lineIn(cell, thrown.getStackTrace(), places);
        Throwable cause = thrown.getCause();
        for (int i = 0; cause instanceof JShellException && i < CAUSES_MAX; i++) {
            String causeName = cause instanceof EvalException eval
                    ? eval.getExceptionClassName() : cause.getClass().getName();
            lines.addAll(head("Caused by: ", causeName, cause.getMessage()));
            addFrames(lines, cause.getStackTrace(), places);
            if (line == null) {
                line = lineIn(cell, cause.getStackTrace(), places);
            }
            cause = cause.getCause();
        }
        return new ErrorEvent(ERROR_NAME, headline(name, thrown.getMessage()), bounded(lines), line);
    }

    private static ErrorEvent unresolved(
            UnresolvedReferenceException failure, Places places, int cell, JShell shell) {
        String message = Diagnostics.unresolved(shell, failure.getSnippet());
        List<String> lines = new ArrayList<>(head("", "UnresolvedReferenceException", message));
        addFrames(lines, failure.getStackTrace(), places);
        return new ErrorEvent("UnresolvedReferenceException", message, bounded(lines),
                lineIn(cell, failure.getStackTrace(), places));
    }

    private static List<String> head(String before, String name, String message) {
        return List.of((before + headline(name, message)).split("\r\n|\r|\n"));
    }

    /** As Throwable.toString() has it. */
    private static String headline(String name, String message) {
        return message == null ? name : name + ": " + message;
    }

    private static void addFrames(List<String> lines, StackTraceElement[] frames, Places places) {
        int end = frames.length;
        while (end > 0 && isOwn(frames[end - 1].getClassName())) {
            end--;
        }
        for (int i = 0; i < end; i++) {
            lines.add("    at " + frame(frames[i], places));
        }
    }

    private static boolean isOwn(String className) {
        for (String own : OWN_FRAMES) {
            if (className.startsWith(own)) {
                return true;
            }
        }
        return className.equals("java.lang.Thread");
    }

    private static String frame(StackTraceElement frame, Places places) {
        Cells.Place place = placeOf(frame, places);
        if (place != null) {
            return cellFrame(frame) + "(" + place.cellName() + ":" + place.line(frame.getLineNumber()) + ")";
        }
        // JShell alone knows the lines, and was not asked.
        return frame.getClassName().startsWith(SNIPPET_PREFIX) ? cellFrame(frame) + "(a cell)" : frame.toString();
    }

    private static String cellFrame(StackTraceElement frame) {
        String type = sourceName(frame.getClassName());
        String method = frame.getMethodName();
        if (method.startsWith("lambda$")) {
            method = "lambda";
        } else if (method.equals(SNIPPET_METHOD)) {
            method = "";
        }
        return type.isEmpty() ? method : method.isEmpty() ? type : type + "." + method;
    }

    private static Cells.Place placeOf(StackTraceElement frame, Places places) {
        String file = frame.getFileName();
        return file != null && file.startsWith("#") ? places.place(file.substring(1)) : null;
    }

    private static Integer lineIn(int cell, StackTraceElement[] frames, Places places) {
        for (StackTraceElement frame : frames) {
            Cells.Place place = placeOf(frame, places);
            if (place != null && place.cell() == cell) {
                return place.line(frame.getLineNumber());
            }
        }
        return null;
    }

    /** `java.util.Map.Entry` to `Entry`: what is shown first; the traceback has the whole. */
    static String simple(String name) {
        return name.substring(name.lastIndexOf('.') + 1);
    }

    // === bounds ===

    static String bounded(String text) {
        if (text == null || text.length() <= MESSAGE_BYTES_MAX / Texts.CHAR_BYTES_MAX) {
            return text;
        }
        String kept = Texts.prefix(text, MESSAGE_BYTES_MAX);
        int leftOut = text.length() - kept.length();
        return leftOut == 0 ? text : kept + "… (" + leftOut + " characters more)";
    }

    static List<String> bounded(List<String> lines) {
        List<String> kept = new ArrayList<>();
        int half = TRACEBACK_LINES_MAX / 2;
        boolean tooMany = lines.size() > TRACEBACK_LINES_MAX;
        for (int i = 0; i < lines.size(); i++) {
            if (tooMany && i == half) {
                int leftOut = lines.size() - 2 * half;
                kept.add("    … " + leftOut + " lines left out …");
                i += leftOut;
            }
            String line = lines.get(i);
            kept.add(line.length() <= TRACEBACK_LINE_CHARS_MAX
                    ? line : line.substring(0, TRACEBACK_LINE_CHARS_MAX) + "…");
        }
        return kept;
    }
}
