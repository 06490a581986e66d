package crownest.kernel;

import java.lang.reflect.Array;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.RecordComponent;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Values as JSON where they are plain data and not too much of it: collections, maps with texts or
 * numbers as keys, arrays, records. Everything else has no JSON, and so has what contains it.
 */
final class PlainData {
    /** serde_json stops at 128 levels; the envelope and the bundle take some of them. */
    static final int DEPTH_MAX = 60;
    static final int NODES_MAX = 20_000;
    static final int TEXT_CHARS_MAX = 4 * 1024 * 1024;

    private int nodes;
    private long chars;

    private PlainData() {}

    /** Thrown where something cannot be, or would be too large. */
    private static final class NotPlain extends RuntimeException {
        private static final long serialVersionUID = 1;

        NotPlain() {
            super(null, null, false, false);
        }
    }

    /** Maps, lists, texts, numbers, truth values; null for no JSON. */
    static Object of(Object value) {
        if (!mayBe(value)) {
            return null;
        }
        try {
            return new PlainData().convert(value, 0);
        } catch (RuntimeException | ReflectiveOperationException none) {
            // NotPlain, or a collection of the tenant's that cannot be walked.
            return null;
        }
    }

    private static boolean mayBe(Object value) {
        return value instanceof Collection<?> || value instanceof Map<?, ?> || value instanceof Record
                || value instanceof CharSequence || value instanceof Number || value instanceof Boolean
                || value != null && value.getClass().isArray();
    }

    private Object convert(Object value, int depth) throws ReflectiveOperationException {
        if (depth > DEPTH_MAX || ++nodes > NODES_MAX) {
            throw new NotPlain();
        }
        if (value == null || value instanceof Boolean) {
            return value;
        }
        if (value instanceof Number number) {
            return number(number);
        }
        if (value instanceof CharSequence || value instanceof Character) {
            return text(value.toString());
        }
        if (value instanceof Enum<?> constant) {
            return text(constant.name());
        }
        if (value instanceof Map<?, ?> map) {
            return map(map, depth);
        }
        if (value instanceof Collection<?> items) {
            return items(items, depth);
        }
        if (value instanceof Record) {
            return record(value, depth);
        }
        if (value.getClass().isArray()) {
            return array(value, depth);
        }
        throw new NotPlain();
    }

    private String text(String text) {
        chars += text.length();
        if (chars > TEXT_CHARS_MAX) {
            throw new NotPlain();
        }
        return text;
    }

    /** JSON has no infinity and no NaN: those become null. */
    private static Object number(Number number) {
        if (number instanceof Double || number instanceof Float) {
            return Double.isFinite(number.doubleValue()) ? number : null;
        }
        if (number instanceof Integer || number instanceof Long || number instanceof Short
                || number instanceof Byte || number.getClass() == BigInteger.class
                || number.getClass() == BigDecimal.class) {
            return number;
        }
        throw new NotPlain();
    }

    private Object map(Map<?, ?> map, int depth) throws ReflectiveOperationException {
        Map<String, Object> object = new LinkedHashMap<>();
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            Object key = entry.getKey();
            if (!(key instanceof String || key instanceof Number || key instanceof Enum<?>
                    || key instanceof Character || key instanceof Boolean)) {
                throw new NotPlain();
            }
            object.put(text(key.toString()), convert(entry.getValue(), depth + 1));
        }
        return object;
    }

    private Object items(Collection<?> items, int depth) throws ReflectiveOperationException {
        List<Object> list = new ArrayList<>();
        for (Object item : items) {
            list.add(convert(item, depth + 1));
        }
        return list;
    }

    private Object array(Object array, int depth) throws ReflectiveOperationException {
        int length = Array.getLength(array);
        if (length > NODES_MAX) {
            throw new NotPlain();
        }
        List<Object> list = new ArrayList<>(length);
        for (int i = 0; i < length; i++) {
            list.add(convert(Array.get(array, i), depth + 1));
        }
        return list;
    }

    private Object record(Object value, int depth) throws ReflectiveOperationException {
        Map<String, Object> object = new LinkedHashMap<>();
        for (RecordComponent component : value.getClass().getRecordComponents()) {
            Method accessor = component.getAccessor();
            accessor.setAccessible(true);
            Object part;
            try {
                part = accessor.invoke(value);
            } catch (InvocationTargetException thrown) {
                throw new NotPlain();
            }
            object.put(component.getName(), convert(part, depth + 1));
        }
        return object;
    }
}
