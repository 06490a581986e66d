package crownest.kernel;

import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import javax.lang.model.SourceVersion;
import jdk.jshell.DeclarationSnippet;
import jdk.jshell.MethodSnippet;
import jdk.jshell.Snippet;
import jdk.jshell.SourceCodeAnalysis;
import jdk.jshell.TypeDeclSnippet;
import jdk.jshell.VarSnippet;

/**
 * Questions about the context: what a name may go on with, what it is, which variables there are.
 * JShell's own analysis answers the first two; its first use begins to index the JDK.
 */
final class Queries {
    private static final int MATCHES_MAX = 200;
    private static final int PREVIEW_CHARS_MAX = 200;
    private static final int VARIABLES_MAX = 10_000;
    private static final int SIGNATURES_MAX = 50;
    private static final String PLAIN = "text/plain";

    private final Engine engine;
    private final UserCode userCode;

    Queries(Engine engine, UserCode userCode) {
        this.engine = engine;
        this.userCode = userCode;
    }

    /** Null for a query that is not known here. */
    Map<String, Object> answer(String query, Map<?, ?> frame, Run run) {
        int cursor = Texts.index(run.code, number(frame, "cursor", Long.MAX_VALUE));
        return switch (query) {
            case "complete" -> complete(run.code, cursor);
            case "inspect" -> inspect(run.code, cursor, number(frame, "detail", 0) > 0);
            case "variables" -> variables((int) Math.min(VARIABLES_MAX, number(frame, "limit", VARIABLES_MAX)));
            default -> null;
        };
    }

    private static long number(Map<?, ?> frame, String name, long otherwise) {
        return frame.get(name) instanceof Long value ? value : otherwise;
    }

    // === the piece of a cell around the cursor ===

    /** `text` is what JShell sees: the unit at the cursor, after the variables and types that the
     * cell declares before it, in a block. `shift`: offset in the cell less that in `text`. */
    private record Piece(String text, int shift) {}

    private static Piece piece(String code, int end) {
        String before = code.substring(0, end);
        List<Splitter.Unit> units = Splitter.split(before);
        Splitter.Unit last = units.isEmpty() ? null : units.get(units.size() - 1);
        if (last != null && (last.closed() || last.kind() == Splitter.Kind.MAGIC)) {
            last = null;
        }
        int start = last == null ? end : last.start();
        if (last != null && (last.kind() == Splitter.Kind.IMPORT || last.kind() == Splitter.Kind.METHOD)) {
            return new Piece(code.substring(start, end), start);
        }
        StringBuilder block = new StringBuilder();
        for (Splitter.Unit unit : units) {
            boolean declares = unit.kind() == Splitter.Kind.OTHER || unit.kind() == Splitter.Kind.TYPE;
            if (unit != last && unit.closed() && declares) {
                block.append(block.length() == 0 ? "{ " : "").append(unit.text(code)).append('\n');
            }
        }
        int shift = start - block.length();
        return new Piece(block.append(code, start, end).toString(), shift);
    }

    private static int wordStart(String code, int at) {
        int start = at;
        while (start > 0 && Character.isJavaIdentifierPart(code.charAt(start - 1))) {
            start--;
        }
        return start;
    }

    private static int wordEnd(String code, int at) {
        int end = at;
        while (end < code.length() && Character.isJavaIdentifierPart(code.charAt(end))) {
            end++;
        }
        return end;
    }

    // === complete ===

    /** JShell's analysis, with all the names that cells count on. */
    private SourceCodeAnalysis analysis() {
        engine.importAll();
        return engine.shell().sourceCodeAnalysis();
    }

    /** JShell has no other word for it: there is no listener, and what is not public is stable
     * enough to be what its own tests wait with. */
    private static void waitForIndex(SourceCodeAnalysis analysis) {
        try {
            Method wait = analysis.getClass().getMethod("waitBackgroundTaskFinished");
            wait.setAccessible(true);
            wait.invoke(analysis);
        } catch (ReflectiveOperationException | RuntimeException another) {
            // Another JShell: the answer is without packages until the index is there.
            return;
        }
    }

    private Map<String, Object> complete(String code, int cursor) {
        Piece piece = piece(code, cursor);
        int[] anchor = {piece.text.length()};
        SourceCodeAnalysis analysis = analysis();
        List<SourceCodeAnalysis.Suggestion> found =
                analysis.completionSuggestions(piece.text, piece.text.length(), anchor);
        if (found.isEmpty()) {
            // Names of packages come from the index alone.
            waitForIndex(analysis);
            found = analysis.completionSuggestions(piece.text, piece.text.length(), anchor);
        }
        int start = Math.max(0, Math.min(cursor, anchor[0] + piece.shift));
        boolean qualified = start > 0 && code.charAt(start - 1) == '.';
        Map<String, String> kinds = new LinkedHashMap<>();
        for (boolean ofType : new boolean[] {true, false}) {
            for (SourceCodeAnalysis.Suggestion one : found) {
                if (one.matchesType() == ofType) {
                    String text = one.continuation();
                    int end = text.indexOf('(');
                    kinds.putIfAbsent(end < 0 ? text : text.substring(0, end), kind(text, qualified));
                }
            }
        }
        List<Map<String, Object>> matches = new ArrayList<>();
        for (Map.Entry<String, String> entry : kinds.entrySet()) {
            if (matches.size() < MATCHES_MAX) {
                Map<String, Object> match = new LinkedHashMap<>();
                match.put("text", entry.getKey());
                match.put("kind", entry.getValue());
                matches.add(match);
            }
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("matches", matches);
        answer.put("omitted", kinds.size() - matches.size());
        answer.put("start", Texts.points(code, start));
        answer.put("end", Texts.points(code, cursor));
        return answer;
    }

    /** JShell gives texts alone; what they are shows in how they are written. */
    private static String kind(String text, boolean qualified) {
        boolean capital = !text.isEmpty() && Character.isUpperCase(text.charAt(0));
        if (text.indexOf('(') >= 0) {
            return capital ? "class" : "function";
        }
        if (SourceVersion.isKeyword(text)) {
            return "keyword";
        }
        if (text.endsWith(".")) {
            return "module";
        }
        if (capital && !text.equals(text.toUpperCase(Locale.ROOT))) {
            return "class";
        }
        return qualified ? "property" : "variable";
    }

    // === inspect ===

    private Map<String, Object> inspect(String code, int cursor, boolean withSource) {
        int start = wordStart(code, cursor);
        int end = wordEnd(code, cursor);
        String name = code.substring(start, end);
        Set<String> lines = new LinkedHashSet<>();
        Snippet own = name.isEmpty() ? null : declared(name);
        boolean called = isCall(code, end);
        String docs = "";
        if (!name.isEmpty()) {
            Piece piece = piece(code.substring(0, end) + (called ? "(" : ""), end + (called ? 1 : 0));
            for (SourceCodeAnalysis.Documentation one : analysis()
                    .documentation(piece.text, piece.text.length(), true)) {
                if (lines.size() < SIGNATURES_MAX) {
                    lines.add(one.signature());
                    docs = docs.isEmpty() && one.javadoc() != null ? one.javadoc() : docs;
                }
            }
        }
        boolean isMember = start > 0 && code.charAt(start - 1) == '.';
        if (own != null && !isMember) {
            if (lines.isEmpty()) {
                lines.add(describe(own));
            }
            docs = docs.isEmpty() ? DocComments.of(own.source()) : docs;
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("found", !lines.isEmpty());
        StringBuilder text = new StringBuilder(String.join("\n", lines));
        if (!docs.isEmpty()) {
            text.append("\n\n").append(docs);
        }
        if (withSource && own != null && !isMember) {
            text.append("\n\n").append(own.source());
        }
        answer.put("data", lines.isEmpty() ? Map.of() : Map.of(PLAIN, Failures.bounded(text.toString())));
        return answer;
    }

    private static boolean isCall(String code, int from) {
        int at = from;
        while (at < code.length() && Character.isWhitespace(code.charAt(at))) {
            at++;
        }
        return at < code.length() && code.charAt(at) == '(';
    }

    private Snippet declared(String name) {
        Snippet found = null;
        for (Snippet snippet : names()) {
            if (((DeclarationSnippet) snippet).name().equals(name)) {
                found = snippet;
            }
        }
        return found;
    }

    private static String describe(Snippet snippet) {
        if (snippet instanceof VarSnippet variable) {
            return variable.typeName() + " " + variable.name();
        }
        if (snippet instanceof MethodSnippet method) {
            return method.name() + method.signature();
        }
        return typeWord(snippet) + " " + ((DeclarationSnippet) snippet).name();
    }

    private static String typeWord(Snippet snippet) {
        return switch (snippet.subKind()) {
            case INTERFACE_SUBKIND -> "interface";
            case ENUM_SUBKIND -> "enum";
            case RECORD_SUBKIND -> "record";
            case ANNOTATION_TYPE_SUBKIND -> "@interface";
            default -> "class";
        };
    }

    // === variables ===

    /** What cells have declared and is there, in that order. */
    private List<Snippet> names() {
        List<Snippet> names = new ArrayList<>();
        engine.shell().snippets().forEach(snippet -> {
            boolean named = snippet instanceof TypeDeclSnippet || snippet instanceof MethodSnippet
                    || snippet instanceof VarSnippet
                            && snippet.subKind() != Snippet.SubKind.TEMP_VAR_EXPRESSION_SUBKIND;
            if (named && engine.shell().status(snippet).isActive()) {
                names.add(snippet);
            }
        });
        return names;
    }

    private Map<String, Object> variables(int limit) {
        List<Snippet> names = names();
        List<Map<String, Object>> shown = new ArrayList<>();
        List<Object> values = new ArrayList<>();
        for (Snippet snippet : names.subList(0, Math.min(limit, names.size()))) {
            Map<String, Object> entry = new LinkedHashMap<>();
            entry.put("name", ((DeclarationSnippet) snippet).name());
            boolean isVariable = snippet instanceof VarSnippet;
            entry.put("type", isVariable ? ((VarSnippet) snippet).typeName()
                    : snippet instanceof MethodSnippet method ? method.signature() : typeWord(snippet));
            entry.put("kind", isVariable ? "variable" : snippet instanceof MethodSnippet ? "function" : "class");
            entry.put("preview", isVariable ? "" : Texts.preview(snippet.source(), PREVIEW_CHARS_MAX));
            values.add(isVariable && engine.shell().status(snippet) == Snippet.Status.VALID
                    ? engine.value((VarSnippet) snippet) : NOT_A_VALUE);
            shown.add(entry);
        }
        // The text of a value is code of the tenant.
        UserCode.Call call = userCode.run(() -> {
            for (int i = 0; i < shown.size(); i++) {
                if (values.get(i) != NOT_A_VALUE) {
                    ValueFacts.add(shown.get(i), values.get(i), PREVIEW_CHARS_MAX);
                }
            }
            return null;
        });
        if (call.thrown != null) {
            // Not as its cause: the text of that one is the tenant's, and this is not his thread.
            throw new IllegalStateException("the values could not be shown");
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("variables", shown);
        answer.put("omitted", names.size() - shown.size());
        return answer;
    }

    private static final Object NOT_A_VALUE = new Object();
}
