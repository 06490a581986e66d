package crownest.kernel;

import java.util.ArrayList;
import java.util.List;
import jdk.jshell.DeclarationSnippet;
import jdk.jshell.JShell;
import jdk.jshell.Snippet;

/** What the compiler objects to, as an `error` event: message, line, the line's text, a caret. */
final class Diagnostics {
    /** As the kernels of Jupyter call it; no class of Java has the name. */
    static final String ERROR_NAME = "CompilationError";
    private static final int SHOWN_MAX = 20;
    private static final int SOURCE_LINE_CHARS_MAX = 400;

    private Diagnostics() {}

    /** One objection; the offset is one in the cell. */
    record Objection(int offset, String message) {
        Objection {
            message = withoutWrapper(message);
        }
    }

    /** javac names the class that JShell puts around a snippet; JShell takes the name out, and a
     * line that says nothing remains. */
    private static String withoutWrapper(String message) {
        int line = message.lastIndexOf('\n');
        boolean empty = line >= 0 && message.substring(line).strip().equals("location: class");
        return empty ? message.substring(0, line) : message;
    }

    static ErrorEvent event(String code, int cell, List<Objection> objections) {
        List<String> lines = new ArrayList<>();
        for (int i = 0; i < objections.size(); i++) {
            if (i == SHOWN_MAX) {
                lines.add((objections.size() - SHOWN_MAX) + " more errors");
                break;
            }
            show(lines, code, cell, objections.get(i));
        }
        Objection first = objections.get(0);
        return new ErrorEvent(ERROR_NAME, Failures.bounded(first.message),
                Failures.bounded(lines), 1 + Cells.linesBefore(code, first.offset));
    }

    private static void show(List<String> lines, String code, int cell, Objection objection) {
        int offset = Math.max(0, Math.min(objection.offset, code.length()));
        int line = 1 + Cells.linesBefore(code, offset);
        String[] message = objection.message.split("\r\n|\r|\n");
        lines.add(Cells.name(cell) + ":" + line + ": error: " + message[0]);
        int from = lineStart(code, offset);
        String text = code.substring(from, lineEnd(code, offset));
        int column = offset - from;
        if (text.length() <= SOURCE_LINE_CHARS_MAX) {
            lines.add(text);
            lines.add(caret(text, column));
        }
        lines.addAll(List.of(message).subList(1, message.length));
    }

    private static String caret(String text, int column) {
        StringBuilder caret = new StringBuilder();
        for (int i = 0; i < column; i++) {
            caret.append(text.charAt(i) == '\t' ? '\t' : ' ');
        }
        return caret.append('^').toString();
    }

    private static int lineStart(String code, int offset) {
        int i = offset;
        while (i > 0 && code.charAt(i - 1) != '\n' && code.charAt(i - 1) != '\r') {
            i--;
        }
        return i;
    }

    private static int lineEnd(String code, int offset) {
        int i = offset;
        while (i < code.length() && code.charAt(i) != '\n' && code.charAt(i) != '\r') {
            i++;
        }
        return i;
    }

    /** What JShell knows of a declaration that needs another one, which is not there yet. */
    static String unresolved(JShell shell, Snippet snippet) {
        StringBuilder text = new StringBuilder();
        text.append(snippet.kind() == Snippet.Kind.METHOD ? "method " : snippet.kind() == Snippet.Kind.VAR
                ? "variable " : "type ");
        text.append(snippet instanceof DeclarationSnippet declared ? declared.name() : "");
        text.append(" cannot be used until these are declared: ");
        text.append(String.join(", ", missing(shell, snippet)));
        return text.toString();
    }

    private static List<String> missing(JShell shell, Snippet snippet) {
        if (!(snippet instanceof DeclarationSnippet declared)) {
            return List.of();
        }
        return shell.unresolvedDependencies(declared).toList();
    }
}
