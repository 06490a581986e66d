package crownest.kernel;

import java.nio.charset.StandardCharsets;

/** Sizes of texts as they travel, in UTF-8, and positions in code points. */
final class Texts {
    /** Of one char of a String: an escaped surrogate. */
    static final int CHAR_BYTES_MAX = 7;

    private Texts() {}

    /** Bytes in UTF-8, without making them. */
    static long bytes(String text) {
        long bytes = text.length();
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c >= 0x80) {
                bytes += c < 0x800 || Character.isSurrogate(c) ? 1 : 2;
            }
        }
        return bytes;
    }

    /** The longest beginning of `text` that needs at most `bytesMax`; no pair is cut in two. */
    static String prefix(String text, int bytesMax) {
        long bytes = 0;
        for (int i = 0; i < text.length(); ) {
            int point = text.codePointAt(i);
            bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : isLone(point) ? CHAR_BYTES_MAX : point < 0x10000 ? 3 : 4;
            if (bytes > bytesMax) {
                return text.substring(0, i);
            }
            i += Character.charCount(point);
        }
        return text;
    }

    private static boolean isLone(int point) {
        return point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE;
    }

    /** The first `charsMax` chars with a mark, on one line. */
    static String preview(String text, int charsMax) {
        StringBuilder preview = new StringBuilder(Math.min(text.length(), charsMax));
        for (int i = 0; i < text.length(); i++) {
            if (preview.length() >= charsMax - 1) {
                if (Character.isHighSurrogate(preview.charAt(preview.length() - 1))) {
                    preview.setLength(preview.length() - 1);
                }
                return preview.append('…').toString();
            }
            char c = text.charAt(i);
            preview.append(c < ' ' || c == 0x7f ? ' ' : c);
        }
        return preview.toString();
    }

    /** Index of the code point number `points`, or the end. */
    static int index(String text, long points) {
        long chars = Math.max(0, Math.min(points, text.length()));
        return chars >= text.codePointCount(0, text.length())
                ? text.length()
                : text.offsetByCodePoints(0, (int) chars);
    }

    static int points(String text, int index) {
        return text.codePointCount(0, index);
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
