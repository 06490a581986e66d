package crownest.kernel;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON of the control socket: reads frames of init, writes events. Owns the text format alone;
 * what may be in an event is decided by its caller. Small on purpose: a library would cost more
 * to load than everything else that a frame costs.
 */
final class Json {
    /** A frame of init's is three levels deep; a bundle's entry at most 64. */
    private static final int DEPTH_MAX = 100;

    private Json() {}

    static final class Malformed extends Exception {
        private static final long serialVersionUID = 1;

        Malformed(String message) {
            super(message);
        }
    }

    // === writing ===

    /** Maps, iterables, texts, numbers, truth values and null; UTF-8. */
    static byte[] encode(Object value) {
        StringBuilder text = new StringBuilder(128);
        write(text, value);
        return text.toString().getBytes(StandardCharsets.UTF_8);
    }

    static void write(StringBuilder text, Object value) {
        if (value == null) {
            text.append("null");
        } else if (value instanceof String string) {
            quote(text, string);
        } else if (value instanceof Map<?, ?> map) {
            writeMap(text, map);
        } else if (value instanceof Iterable<?> items) {
            writeItems(text, items);
        } else if (value instanceof Number || value instanceof Boolean) {
            text.append(value);
        } else {
            throw new IllegalArgumentException("no JSON: " + value.getClass().getName());
        }
    }

    private static void writeMap(StringBuilder text, Map<?, ?> map) {
        char before = '{';
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            text.append(before);
            quote(text, (String) entry.getKey());
            text.append(':');
            write(text, entry.getValue());
            before = ',';
        }
        text.append(before == '{' ? "{}" : "}");
    }

    private static void writeItems(StringBuilder text, Iterable<?> items) {
        char before = '[';
        for (Object item : items) {
            text.append(before);
            write(text, item);
            before = ',';
        }
        text.append(before == '[' ? "[]" : "]");
    }

    /** A lone surrogate, which UTF-8 cannot carry, becomes the text of its escape. */
    static void quote(StringBuilder text, String string) {
        text.append('"');
        int from = 0;
        int length = string.length();
        for (int i = 0; i < length; i++) {
            char c = string.charAt(i);
            if (c >= ' ' && c != '"' && c != '\\' && !Character.isSurrogate(c)) {
                continue;
            }
            text.append(string, from, i);
            from = i + 1;
            if (c == '"' || c == '\\') {
                text.append('\\').append(c);
            } else if (c == '\n') {
                text.append("\\n");
            } else if (c < ' ') {
                hex(text.append("\\u"), c);
            } else if (Character.isHighSurrogate(c) && i + 1 < length
                    && Character.isLowSurrogate(string.charAt(i + 1))) {
                text.append(c).append(string.charAt(++i));
                from = i + 1;
            } else {
                hex(text.append("\\\\u"), c);
            }
        }
        text.append(string, from, length).append('"');
    }

    private static void hex(StringBuilder text, char c) {
        for (int shift = 12; shift >= 0; shift -= 4) {
            text.append(Character.forDigit(c >> shift & 15, 16));
        }
    }

    // === reading ===

    /** The object in `text`; numbers are Long where they are whole, else Double. */
    static Map<?, ?> parseObject(String text) throws Malformed {
        Reader reader = new Reader(text);
        Object value = reader.value(0);
        reader.space();
        if (reader.at != text.length() || !(value instanceof Map<?, ?> map)) {
            throw new Malformed("not one object");
        }
        return map;
    }

    private static final class Reader {
        private final String text;
        private int at;

        Reader(String text) {
            this.text = text;
        }

        void space() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }

        Object value(int depth) throws Malformed {
            if (depth > DEPTH_MAX) {
                throw new Malformed("nested too deep");
            }
            space();
            char c = peek();
            return switch (c) {
                case '{' -> object(depth);
                case '[' -> array(depth);
                case '"' -> string();
                case 't' -> word("true", Boolean.TRUE);
                case 'f' -> word("false", Boolean.FALSE);
                case 'n' -> word("null", null);
                default -> number();
            };
        }

        private char peek() throws Malformed {
            if (at >= text.length()) {
                throw new Malformed("ends early");
            }
            return text.charAt(at);
        }

        /** Skips `c` if it comes next. */
        private boolean take(char c) throws Malformed {
            space();
            if (peek() != c) {
                return false;
            }
            at++;
            return true;
        }

        private void expect(char c) throws Malformed {
            if (!take(c)) {
                throw new Malformed("expected " + c + " at " + at);
            }
        }

        private Object word(String word, Object value) throws Malformed {
            if (!text.startsWith(word, at)) {
                throw new Malformed("unknown word at " + at);
            }
            at += word.length();
            return value;
        }

        private Map<String, Object> object(int depth) throws Malformed {
            Map<String, Object> map = new LinkedHashMap<>();
            expect('{');
            if (take('}')) {
                return map;
            }
            do {
                space();
                String key = string();
                expect(':');
                map.put(key, value(depth + 1));
            } while (take(','));
            expect('}');
            return map;
        }

        private List<Object> array(int depth) throws Malformed {
            List<Object> list = new ArrayList<>();
            expect('[');
            if (take(']')) {
                return list;
            }
            do {
                list.add(value(depth + 1));
            } while (take(','));
            expect(']');
            return list;
        }

        private String string() throws Malformed {
            expect('"');
            int from = at;
            while (peek() != '"' && peek() != '\\') {
                at++;
            }
            if (peek() == '"') {
                return text.substring(from, at++);
            }
            StringBuilder string = new StringBuilder(text.substring(from, at));
            while (true) {
                char c = peek();
                at++;
                if (c == '"') {
                    return string.toString();
                }
                string.append(c == '\\' ? escape() : c);
            }
        }

        private char escape() throws Malformed {
            char c = peek();
            at++;
            return switch (c) {
                case '"', '\\', '/' -> c;
                case 'b' -> '\b';
                case 'f' -> '\f';
                case 'n' -> '\n';
                case 'r' -> '\r';
                case 't' -> '\t';
                case 'u' -> unit();
                default -> throw new Malformed("unknown escape at " + at);
            };
        }

        private char unit() throws Malformed {
            int unit = 0;
            for (int i = 0; i < 4; i++) {
                int digit = Character.digit(peek(), 16);
                if (digit < 0) {
                    throw new Malformed("bad escape at " + at);
                }
                unit = unit << 4 | digit;
                at++;
            }
            return (char) unit;
        }

        private Object number() throws Malformed {
            int from = at;
            while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
            String digits = text.substring(from, at);
            try {
                boolean whole = digits.length() < 19 && digits.indexOf('.') < 0
                        && digits.indexOf('e') < 0 && digits.indexOf('E') < 0;
                return whole ? (Object) Long.valueOf(digits) : Double.valueOf(digits);
            } catch (NumberFormatException bad) {
                throw new Malformed("no value at " + from);
            }
        }
    }
}
