package crownest.kernel;

import java.lang.reflect.Array;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/** Size, shape and a short text of a value. Runs code of the tenant, on the tenant's thread. */
final class ValueFacts {
    private static final int DIMENSIONS_MAX = 8;

    private ValueFacts() {}

    static void add(Map<String, Object> entry, Object value, int previewCharsMax) {
        Integer size = size(value);
        if (size != null) {
            entry.put("size", size);
        }
        if (value != null && value.getClass().isArray()) {
            entry.put("shape", shape(value));
        }
        entry.put("preview", Texts.preview(text(value), previewCharsMax));
    }

    private static String text(Object value) {
        try {
            return String.valueOf(Rendering.of(value));
        } catch (Exception | StackOverflowError broken) {
            return "(" + Failures.simple(Failures.name(broken.getClass())) + ")";
        }
    }

    /** Of what belongs to the JDK: a collection of the tenant's may count for hours. */
    private static Integer size(Object value) {
        if (value == null || value.getClass().getClassLoader() != null) {
            return null;
        }
        if (value instanceof CharSequence text) {
            return text.length();
        }
        if (value instanceof Collection<?> items) {
            return items.size();
        }
        if (value instanceof Map<?, ?> map) {
            return map.size();
        }
        return value.getClass().isArray() ? (Integer) Array.getLength(value) : null;
    }

    /** The lengths along the first elements. */
    private static List<Object> shape(Object array) {
        List<Object> shape = new ArrayList<>();
        Object at = array;
        while (at != null && at.getClass().isArray() && shape.size() < DIMENSIONS_MAX) {
            int length = Array.getLength(at);
            shape.add(length);
            at = length == 0 || at.getClass().getComponentType().isPrimitive() ? null : Array.get(at, 0);
        }
        return shape;
    }
}
