package crownest.kernel;

import com.sun.source.util.JavacTask;
import java.io.IOException;
import java.io.Writer;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/**
 * Parses all of a cell before any of it runs: one that is no Java runs nothing. JShell itself
 * would find that out piece by piece. Types and names are not looked at, since they may come from
 * a piece before.
 */
final class Syntax {
    private static final String EXPRESSION_ALONE = "compiler.err.not.stmt";
    private static final List<String> OPTIONS = List.of("-proc:none");

    private final JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    private final StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null);

    /** What the parser objects to, in the first unit that it does not take. */
    List<Diagnostics.Objection> check(String code, List<Splitter.Unit> units) {
        Wrapped whole = new Wrapped();
        for (int i = 0; i < units.size(); i++) {
            whole.add(code, units.get(i), i);
        }
        if (parse(whole).isEmpty()) {
            return List.of();
        }
        for (int i = 0; i < units.size(); i++) {
            List<Diagnostics.Objection> objections = checkOne(code, units.get(i), i);
            if (!objections.isEmpty()) {
                return objections;
            }
        }
        return List.of();
    }

    private List<Diagnostics.Objection> checkOne(String code, Splitter.Unit unit, int number) {
        Wrapped alone = new Wrapped();
        alone.add(code, unit, number);
        List<Diagnostics.Objection> objections = parse(alone);
        if (objections.isEmpty() || unit.kind() != Splitter.Kind.OTHER) {
            return objections;
        }
        // `a < b` reads like the beginning of a declaration unless a value is expected.
        Wrapped value = new Wrapped();
        value.addExpression(code, unit);
        return parse(value).isEmpty() ? List.of() : objections;
    }

    private List<Diagnostics.Objection> parse(Wrapped wrapped) {
        DiagnosticCollector<JavaFileObject> found = new DiagnosticCollector<>();
        JavacTask task = (JavacTask) compiler.getTask(
                Writer.nullWriter(), files, found, OPTIONS, null, List.of(new Source(wrapped.text())));
        try {
            task.parse();
        } catch (IOException impossible) {
            return List.of();
        }
        List<Diagnostics.Objection> objections = new ArrayList<>();
        for (Diagnostic<? extends JavaFileObject> one : found.getDiagnostics()) {
            if (one.getKind() == Diagnostic.Kind.ERROR && !one.getCode().equals(EXPRESSION_ALONE)) {
                objections.add(new Diagnostics.Objection(
                        wrapped.origin(one.getPosition()), one.getMessage(Locale.ROOT)));
            }
        }
        return objections;
    }

    /** Units inside a class: imports before it, declarations as members, the rest in methods. */
    private static final class Wrapped {
        private final StringBuilder imports = new StringBuilder();
        private final StringBuilder members = new StringBuilder("class $C {\n");
        /** Of each piece: offset in its part, offset in the cell, length. */
        private final List<int[]> importPieces = new ArrayList<>();
        private final List<int[]> memberPieces = new ArrayList<>();

        void add(String code, Splitter.Unit unit, int number) {
            switch (unit.kind()) {
                case MAGIC -> { }
                case IMPORT -> put(imports, importPieces, code, unit, unit.closed() ? "\n" : "\n;\n");
                case TYPE, METHOD -> put(members, memberPieces, code, unit, "\n");
                default -> {
                    members.append("Object $").append(number).append("() throws Throwable {\n");
                    put(members, memberPieces, code, unit, unit.closed() ? "\n}\n" : "\n;}\n");
                }
            }
        }

        void addExpression(String code, Splitter.Unit unit) {
            members.append("Object $v =\n");
            int end = code.charAt(unit.end() - 1) == ';' ? unit.end() - 1 : unit.end();
            Splitter.Unit value = new Splitter.Unit(unit.start(), end, unit.kind(), false);
            put(members, memberPieces, code, value, "\n;\n");
        }

        private static void put(StringBuilder part, List<int[]> pieces, String code,
                Splitter.Unit unit, String after) {
            pieces.add(new int[] {part.length(), unit.start(), unit.end() - unit.start()});
            part.append(code, unit.start(), unit.end()).append(after);
        }

        String text() {
            return imports + members.toString() + "}\n";
        }

        /** The offset in the cell. What is expected after a piece is missing at its end. */
        int origin(long position) {
            int at = (int) Math.max(0, position);
            boolean isImport = at < imports.length();
            List<int[]> pieces = isImport ? importPieces : memberPieces;
            int inPart = isImport ? at : at - imports.length();
            int origin = 0;
            for (int[] piece : pieces) {
                if (inPart >= piece[0]) {
                    origin = piece[1] + Math.min(inPart - piece[0], piece[2]);
                }
            }
            return origin;
        }
    }

    private static final class Source extends SimpleJavaFileObject {
        private final String text;

        Source(String text) {
            super(URI.create("string:///Cell.java"), Kind.SOURCE);
            this.text = text;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
        }
    }
}
