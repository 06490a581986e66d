package crownest.kernel;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/**
 * Cuts a cell into the pieces that JShell takes one at a time: imports, declarations, statements,
 * expressions, and lines of magics. Looks at tokens and brackets, not at meaning; whether a piece
 * is right Java is for the compiler to say.
 *
 * <p>JShell has such an analysis itself, but its first call starts to index every class of the
 * JDK in the background, which costs half a second of processor time that the first cell needs.
 */
final class Splitter {
    private static final Set<String> MODIFIERS = Set.of(
            "public", "protected", "private", "static", "abstract", "final", "native",
            "synchronized", "transient", "volatile", "strictfp", "default", "sealed");
    private static final Set<String> TYPE_WORDS = Set.of("class", "interface", "enum");
    private static final Set<String> WITH_HEAD =
            Set.of("if", "for", "while", "switch", "synchronized");
    private static final Set<String> STATEMENT_WORDS = Set.of(
            "if", "for", "while", "switch", "synchronized", "do", "try", "throw", "return",
            "break", "continue", "assert");

    private final Tokens tokens;
    private final List<Unit> units = new ArrayList<>();

    private Splitter(String code) {
        tokens = new Tokens(code);
    }

    /** What a unit is, as far as its first tokens tell. */
    enum Kind {
        MAGIC, IMPORT, TYPE, METHOD,
        /** A statement with a keyword, or an expression that Java takes as one, with its end. */
        STATEMENT,
        /** A variable, or an expression that is no statement or has no end. */
        OTHER,
    }

    /** `start` and `end` are offsets in the cell; `closed`: by a semicolon or a brace. */
    record Unit(int start, int end, Kind kind, boolean closed) {
        String text(String code) {
            return code.substring(start, end);
        }
    }

    static List<Unit> split(String code) {
        Splitter splitter = new Splitter(code);
        while (splitter.tokens.hasNext()) {
            splitter.unit();
        }
        return splitter.units;
    }

    private void unit() {
        if (tokens.takeIf(';')) {
            return;
        }
        int start = tokens.start();
        int documented = tokens.documentedStart();
        if (tokens.isMagic()) {
            tokens.next();
            units.add(new Unit(start, tokens.end(), Kind.MAGIC, true));
            return;
        }
        Kind kind = classify();
        boolean declares = kind == Kind.TYPE || kind == Kind.METHOD;
        units.add(new Unit(declares ? documented : start, tokens.end(), kind, tokens.lastIs(';') || tokens.lastIs('}')));
    }

    private Kind classify() {
        skipModifiers();
        if (tokens.isWord("import")) {
            tokens.skipTo(';');
            return Kind.IMPORT;
        }
        if (isTypeDeclaration()) {
            skipTypeDeclaration();
            return Kind.TYPE;
        }
        if (tokens.is('{') || tokens.isWordOf(STATEMENT_WORDS) || isLabel()) {
            skipStatement();
            return Kind.STATEMENT;
        }
        return skipOther();
    }

    // === declarations ===

    private void skipModifiers() {
        while (tokens.hasNext()) {
            if (tokens.is('@') && !tokens.peekWord("interface")) {
                tokens.skipAnnotation();
            } else if (tokens.isWord("non") && tokens.peekIs('-')) {
                tokens.next();
                tokens.next();
                tokens.next();
            } else if (tokens.isWordOf(MODIFIERS)
                    && !(tokens.isWord("synchronized") && tokens.peekIs('('))
                    && !(tokens.isWord("sealed") && !tokens.peekIsWord())) {
                tokens.next();
            } else {
                return;
            }
        }
    }

    private boolean isTypeDeclaration() {
        return tokens.isWordOf(TYPE_WORDS) || tokens.is('@') && tokens.peekWord("interface")
                || tokens.isRecordHead();
    }

    private void skipTypeDeclaration() {
        while (tokens.hasNext() && !tokens.is('{') && !tokens.is(';')) {
            tokens.skipOne();
        }
        tokens.skipOne();
    }

    /** A method up to the end of its body; anything else up to its semicolon. */
    private Kind skipOther() {
        Shape shape = new Shape();
        while (tokens.hasNext()) {
            if (tokens.is(';')) {
                tokens.next();
                return shape.isStatement() ? Kind.STATEMENT : Kind.OTHER;
            }
            if (tokens.is('{') && shape.isMethodHead()) {
                tokens.skipBalanced();
                return Kind.METHOD;
            }
            if (tokens.isClosing()) {
                // One too many: the compiler is to see it.
                tokens.next();
                return Kind.OTHER;
            }
            shape.see(tokens);
            tokens.skipOne();
        }
        return Kind.OTHER;
    }

    // === statements ===

    private boolean isLabel() {
        return tokens.isWord() && tokens.peekIs(':') && !tokens.peekSecondIs(':');
    }

    /** Without recursion: `if (a) if (b) …` may be as long as a cell. */
    private void skipStatement() {
        int dosOpen = 0;
        while (tokens.hasNext()) {
            if (tokens.is('{')) {
                tokens.skipBalanced();
            } else if (tokens.isWordOf(WITH_HEAD)) {
                boolean isBlockNext = tokens.isWord("switch") || tokens.isWord("synchronized");
                tokens.next();
                if (tokens.is('(')) {
                    tokens.skipBalanced();
                }
                if (!isBlockNext || !tokens.is('{')) {
                    continue;
                }
                tokens.skipBalanced();
            } else if (tokens.isWord("do")) {
                tokens.next();
                dosOpen++;
                continue;
            } else if (tokens.isWord("try")) {
                skipTry();
            } else if (isLabel()) {
                tokens.next();
                tokens.next();
                continue;
            } else {
                skipSimple();
            }
            // A statement has ended; another may go on with it.
            while (dosOpen > 0 && tokens.isWord("while")) {
                dosOpen--;
                tokens.next();
                if (tokens.is('(')) {
                    tokens.skipBalanced();
                }
                tokens.takeIf(';');
            }
            if (!tokens.isWord("else")) {
                return;
            }
            tokens.next();
        }
    }

    private void skipTry() {
        tokens.next();
        if (tokens.is('(')) {
            tokens.skipBalanced();
        }
        if (tokens.is('{')) {
            tokens.skipBalanced();
        }
        while (tokens.isWord("catch") || tokens.isWord("finally")) {
            tokens.next();
            if (tokens.is('(')) {
                tokens.skipBalanced();
            }
            if (tokens.is('{')) {
                tokens.skipBalanced();
            }
        }
    }

    /** One that ends with a semicolon, or a class inside a statement. */
    private void skipSimple() {
        if (isTypeDeclaration()) {
            skipTypeDeclaration();
            return;
        }
        while (tokens.hasNext() && !tokens.is(';')) {
            if (tokens.isClosing()) {
                tokens.next();
                return;
            }
            tokens.skipOne();
        }
        tokens.takeIf(';');
    }

    // === what an unknown unit looks like ===

    /** Follows the tokens of a unit outside of all brackets. */
    private static final class Shape {
        private boolean sawParentheses;
        private boolean sawThrows;
        private boolean sawOperator;
        private boolean sawNew;
        private boolean sawAssignment;
        private boolean isPlain = true;
        private boolean afterWord;
        private boolean afterParentheses;
        private int count;
        private String last = "";

        void see(Tokens tokens) {
            String word = tokens.isWord() ? tokens.word() : null;
            if (count == 0 && tokens.isIncrement()) {
                sawAssignment = true;
            }
            if (!sawAssignment) {
                look(tokens, word);
            }
            if (tokens.is('=') || tokens.is('-') && tokens.peekIs('>')) {
                sawOperator = true;
            }
            sawNew |= "new".equals(word);
            sawThrows |= "throws".equals(word);
            afterParentheses = tokens.is('(') || tokens.is('[') && sawParentheses;
            sawParentheses |= tokens.is('(');
            last = word != null ? word : tokens.symbol();
            count++;
        }

        /** The part before an assignment, which is all there is of a call. */
        private void look(Tokens tokens, String word) {
            if (tokens.is('=') && !tokens.peekIs('=')) {
                sawAssignment = count > 0;
                return;
            }
            if (tokens.isCompoundAssignment()) {
                sawAssignment = count > 0;
                return;
            }
            if (word != null) {
                // Two names in a row are a declaration: `Type name`.
                isPlain &= !afterWord || "new".equals(last);
                afterWord = !"new".equals(word);
                return;
            }
            boolean fits = tokens.is('.') || tokens.is('(')
                    || tokens.is('[') && !tokens.isEmptyBrackets()
                    || tokens.is('{') && sawNew
                    || sawNew && !sawParentheses && tokens.isTypeArgument()
                    || tokens.isIncrement();
            isPlain &= fits;
            afterWord = false;
        }

        boolean isMethodHead() {
            return sawParentheses && (afterParentheses || sawThrows) && !sawOperator && !sawNew;
        }

        /** A call, a `new`, an assignment, `i++`: what Java takes as a statement. */
        boolean isStatement() {
            boolean ends = last.equals("(") || last.equals("{") || last.equals("+") || last.equals("-");
            boolean isName = count == 1;
            return isPlain && count > 0 && (sawAssignment || ends && !isName);
        }
    }
}
