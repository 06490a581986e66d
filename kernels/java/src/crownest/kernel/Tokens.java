package crownest.kernel;

import java.util.Arrays;
import java.util.Set;

/**
 * The tokens of a cell as far as cutting it needs them: words, literals, single symbols. Comments
 * and space lie between them. Unicode escapes are translated first, as Java does, so that
 * `\u007b` is the brace that it stands for; positions are always those of the source.
 */
final class Tokens {
    // Kinds beside the symbols, none of which is a letter.
    private static final char WORD = 'w';
    private static final char LITERAL = 'l';
    private static final char MAGIC = 'm';
    private static final char NONE = 0;

    private final char[] text;
    /** Source position of each char of `text`; null where they are the same. */
    private final int[] positions;

    private char[] kinds = new char[64];
    private int[] starts = new int[64];
    /** Where the comment for documentation before each token begins, or -1. */
    private int[] docs = new int[64];
    private int docStart = -1;
    private int[] ends = new int[64];
    private int count;
    private int at;

    Tokens(String source) {
        if (source.contains("\\u")) {
            char[] translated = new char[source.length()];
            int[] origin = new int[source.length() + 1];
            int length = translate(source, translated, origin);
            text = Arrays.copyOf(translated, length);
            positions = Arrays.copyOf(origin, length + 1);
        } else {
            text = source.toCharArray();
            positions = null;
        }
        scan();
    }

    private static int translate(String source, char[] translated, int[] origin) {
        int length = 0;
        int i = 0;
        while (i < source.length()) {
            origin[length] = i;
            char c = source.charAt(i++);
            if (c == '\\' && i < source.length()) {
                int digits = i;
                while (digits < source.length() && source.charAt(digits) == 'u') {
                    digits++;
                }
                int unit = digits > i ? hex(source, digits) : -1;
                if (unit >= 0) {
                    c = (char) unit;
                    i = digits + 4;
                } else {
                    // A backslash that is escaped does not begin an escape.
                    translated[length++] = c;
                    origin[length] = i;
                    c = source.charAt(i++);
                }
            }
            translated[length++] = c;
        }
        origin[length] = i;
        return length;
    }

    private static int hex(String source, int from) {
        if (from + 4 > source.length()) {
            return -1;
        }
        int unit = 0;
        for (int i = from; i < from + 4; i++) {
            int digit = Character.digit(source.charAt(i), 16);
            if (digit < 0) {
                return -1;
            }
            unit = unit << 4 | digit;
        }
        return unit;
    }

    // === scanning ===

    private void scan() {
        int i = 0;
        while (i < text.length) {
            char c = text[i];
            int from = i;
            if (Character.isWhitespace(c) || c == 0x1a) {
                i++;
            } else if (c == '%' && isBetweenUnits() && isFirstOnLine(i)) {
                i = lineEnd(i);
                add(MAGIC, from, i);
            } else if (c == '/' && i + 1 < text.length && text[i + 1] == '/') {
                i = lineEnd(i);
            } else if (c == '/' && i + 1 < text.length && text[i + 1] == '*') {
                i = comment(from);
            } else if (c == '"' || c == '\'') {
                i = literalEnd(i);
                add(LITERAL, from, i);
            } else if (isWordChar(i)) {
                i = wordEnd(i);
                add(Character.isDigit(c) ? LITERAL : WORD, from, i);
            } else {
                add(c, from, ++i);
            }
        }
    }

    /** Where a percent sign cannot be the operator. */
    private boolean isBetweenUnits() {
        return count == 0 || kinds[count - 1] == ';' || kinds[count - 1] == '}' || kinds[count - 1] == MAGIC;
    }

    private boolean isFirstOnLine(int index) {
        for (int i = index - 1; i >= 0 && text[i] != '\n' && text[i] != '\r'; i--) {
            if (!Character.isWhitespace(text[i])) {
                return false;
            }
        }
        return true;
    }

    private void add(char kind, int start, int end) {
        if (count == kinds.length) {
            kinds = Arrays.copyOf(kinds, count * 2);
            starts = Arrays.copyOf(starts, count * 2);
            docs = Arrays.copyOf(docs, count * 2);
            ends = Arrays.copyOf(ends, count * 2);
        }
        kinds[count] = kind;
        docs[count] = docStart;
        docStart = -1;
        starts[count] = start;
        ends[count++] = end;
    }

    private int lineEnd(int i) {
        while (i < text.length && text[i] != '\n' && text[i] != '\r') {
            i++;
        }
        return i;
    }

    /** Its end. One without an end is a token, for the compiler to object to. */
    private int comment(int from) {
        int i = from + 2;
        while (i + 1 < text.length && !(text[i] == '*' && text[i + 1] == '/')) {
            i++;
        }
        if (i + 1 >= text.length) {
            add(LITERAL, from, text.length);
            return text.length;
        }
        if (text[from + 2] == '*' && i > from + 2) {
            docStart = from;
        }
        return i + 2;
    }

    private boolean isWordChar(int i) {
        int point = Character.codePointAt(text, i);
        return Character.isJavaIdentifierPart(point) && text[i] != 0;
    }

    private int wordEnd(int i) {
        boolean number = Character.isDigit(text[i]);
        while (i < text.length
                && (isWordChar(i) || number && text[i] == '.' && i + 1 < text.length && Character.isDigit(text[i + 1]))) {
            i += Character.charCount(Character.codePointAt(text, i));
        }
        return i;
    }

    /** A string or character ends with its line at the latest, a text block with its quotes. */
    private int literalEnd(int i) {
        char quote = text[i];
        boolean block = quote == '"' && isTriple(i);
        i += block ? 3 : 1;
        while (i < text.length) {
            if (text[i] == '\\') {
                i += 2;
            } else if (block ? isTriple(i) : text[i] == quote) {
                return i + (block ? 3 : 1);
            } else if (!block && (text[i] == '\n' || text[i] == '\r')) {
                return i;
            } else {
                i++;
            }
        }
        return text.length;
    }

    private boolean isTriple(int i) {
        return i + 2 < text.length && text[i] == '"' && text[i + 1] == '"' && text[i + 2] == '"';
    }

    // === the token that comes next ===

    boolean hasNext() {
        return at < count;
    }

    void next() {
        at = Math.min(at + 1, count);
    }

    private char kind(int index) {
        return index < count ? kinds[index] : NONE;
    }

    boolean is(char symbol) {
        return kind(at) == symbol;
    }

    boolean takeIf(char symbol) {
        boolean taken = is(symbol);
        if (taken) {
            at++;
        }
        return taken;
    }

    boolean isWord() {
        return kind(at) == WORD;
    }

    boolean isWord(String word) {
        return isWordAt(at, word);
    }

    boolean isWordOf(Set<String> words) {
        return isWord() && words.contains(word());
    }

    String word() {
        return new String(text, starts[at], ends[at] - starts[at]);
    }

    String symbol() {
        return kind(at) == LITERAL ? "literal" : String.valueOf(kind(at));
    }

    boolean isClosing() {
        return is(')') || is(']') || is('}');
    }

    /** Of what stands between angle brackets after `new Name`. */
    boolean isTypeArgument() {
        return is('<') || is('>') || is(',') || is('?');
    }

    boolean isEmptyBrackets() {
        return is('[') && kind(at + 1) == ']';
    }

    /** `++` or `--`: two symbols without space. */
    boolean isIncrement() {
        boolean first = (is('+') || is('-')) && kind(at + 1) == kind(at) && isJoined(at);
        boolean second = (is('+') || is('-')) && at > 0 && kind(at - 1) == kind(at) && isJoined(at - 1);
        return first || second;
    }

    /** The operator in `+=`, `>>>=` and their like. */
    boolean isCompoundAssignment() {
        int i = at;
        if (kind(i) == NONE || "+-*/%&|^<>".indexOf(kind(i)) < 0) {
            return false;
        }
        while (kind(i) == '<' || kind(i) == '>') {
            if (!isJoined(i)) {
                return false;
            }
            i++;
        }
        boolean shift = i > at;
        if (!shift) {
            i++;
        }
        return kind(i) == '=' && isJoined(i - 1) && (!shift || i - at >= 2);
    }

    private boolean isJoined(int index) {
        return index + 1 < count && ends[index] == starts[index + 1];
    }

    /** A line that begins with a percent sign. */
    boolean isMagic() {
        return kind(at) == MAGIC;
    }

    boolean peekIs(char symbol) {
        return kind(at + 1) == symbol;
    }

    boolean peekSecondIs(char symbol) {
        return kind(at + 2) == symbol;
    }

    boolean peekIsWord() {
        return kind(at + 1) == WORD;
    }

    boolean peekWord(String word) {
        return isWordAt(at + 1, word);
    }

    /** `record` is a name like any other but here: record Name( or record Name< */
    boolean isRecordHead() {
        return isWord("record") && peekIsWord() && (peekSecondIs('(') || peekSecondIs('<'));
    }

    private boolean isWordAt(int index, String word) {
        if (kind(index) != WORD || ends[index] - starts[index] != word.length()) {
            return false;
        }
        for (int i = 0; i < word.length(); i++) {
            if (text[starts[index] + i] != word.charAt(i)) {
                return false;
            }
        }
        return true;
    }

    // === skipping ===

    /** The next token, with everything up to its partner if it is a bracket. */
    void skipOne() {
        if (is('(') || is('[') || is('{')) {
            skipBalanced();
        } else {
            next();
        }
    }

    void skipBalanced() {
        int depth = 0;
        do {
            if (is('(') || is('[') || is('{')) {
                depth++;
            } else if (isClosing()) {
                depth--;
            }
            next();
        } while (depth > 0 && hasNext());
    }

    /** From its sign to the end of its arguments. */
    void skipAnnotation() {
        next();
        while (isWord()) {
            next();
            if (!takeIf('.')) {
                break;
            }
        }
        if (is('(')) {
            skipBalanced();
        }
    }

    /** Past the next `symbol` outside of brackets. */
    void skipTo(char symbol) {
        while (hasNext() && !takeIf(symbol)) {
            skipOne();
        }
    }

    // === positions in the source ===

    int start() {
        return position(starts[at]);
    }

    /** As start(), with the comment that documents what begins there. */
    int documentedStart() {
        return position(docs[at] >= 0 ? docs[at] : starts[at]);
    }

    /** End of the token before the next one. */
    int end() {
        return at == 0 ? 0 : position(ends[at - 1]);
    }

    boolean lastIs(char symbol) {
        return at > 0 && kinds[at - 1] == symbol;
    }

    private int position(int index) {
        return positions == null ? index : positions[index];
    }
}
