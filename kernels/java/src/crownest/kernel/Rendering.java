package crownest.kernel;

import java.lang.reflect.Array;
import java.util.Collection;
import java.util.Map;

/**
 * The text of a value. As its toString(), but arrays and collections of the JDK show their
 * elements, arrays within them too, and no more of them than somebody would read.
 */
final class Rendering {
    static final int ELEMENTS_MAX = 1000;
    static final int CHARS_MAX = 1024 * 1024;
    private static final int DEPTH_MAX = 32;

    private final StringBuilder text = new StringBuilder();

    private Rendering() {}

    static String of(Object value) {
        if (!isContainer(value)) {
            // A toString() may also give null.
            return String.valueOf((Object) (value == null ? null : value.toString()));
        }
        Rendering rendering = new Rendering();
        rendering.add(value, 0);
        return rendering.text.toString();
    }

    private static boolean isContainer(Object value) {
        if (value == null) {
            return false;
        }
        Class<?> type = value.getClass();
        boolean ofJdk = type.getClassLoader() == null
                && (value instanceof Collection<?> || value instanceof Map<?, ?>);
        return ofJdk || type.isArray();
    }

    private void add(Object value, int depth) {
        if (text.length() > CHARS_MAX) {
            return;
        }
        if (!isContainer(value)) {
            text.append(value);
        } else if (depth > DEPTH_MAX) {
            text.append('…');
        } else if (value instanceof Map<?, ?> map) {
            addMap(map, depth);
        } else if (value instanceof Collection<?> items) {
            addItems(items, depth);
        } else {
            addArray(value, depth);
        }
    }

    private void addMap(Map<?, ?> map, int depth) {
        text.append('{');
        int count = 0;
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            if (isEnough(count, map.size())) {
                break;
            }
            text.append(count++ == 0 ? "" : ", ");
            add(entry.getKey(), depth + 1);
            text.append('=');
            add(entry.getValue(), depth + 1);
        }
        text.append('}');
    }

    private void addItems(Collection<?> items, int depth) {
        text.append('[');
        int count = 0;
        for (Object item : items) {
            if (isEnough(count, items.size())) {
                break;
            }
            text.append(count++ == 0 ? "" : ", ");
            add(item, depth + 1);
        }
        text.append(']');
    }

    private void addArray(Object array, int depth) {
        text.append('[');
        int length = Array.getLength(array);
        for (int i = 0; i < length && !isEnough(i, length); i++) {
            text.append(i == 0 ? "" : ", ");
            add(Array.get(array, i), depth + 1);
        }
        text.append(']');
    }

    private boolean isEnough(int shown, int size) {
        boolean enough = shown == ELEMENTS_MAX || text.length() > CHARS_MAX;
        if (enough && size > shown) {
            text.append(", … (").append(size - shown).append(" more)");
        }
        return enough;
    }
}
