package crownest.kernel;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Values to MIME bundles, and bundles to events that fit a frame. Everything in a bundle comes
 * from code of the tenant, on whose thread this runs: type, size and depth are checked, since one
 * invalid frame ends the context.
 */
final class Bundles {
    static final int ENTRY_BYTES_MAX = 8 * 1024 * 1024;
    /** Below the frame's limit by what the envelope and metadata may take. */
    static final int BUNDLE_BYTES_MAX = 11 * 1024 * 1024;
    static final int ENTRIES_MAX = 64;
    static final int MIME_CHARS_MAX = 200;
    private static final String PLAIN = "text/plain";
    private static final String JSON = "application/json";
    private static final String PNG = "image/png";
    private static final String BUNDLE_METHOD = "toMimeBundle";
    private static final String IMAGE_CLASS = "java.awt.image.BufferedImage";

    private Bundles() {}

    /** The bundle of a value. Throws what its own code throws. */
    static Map<String, Object> of(Object value) throws Exception {
        Map<String, Object> bundle = new LinkedHashMap<>();
        if (value == null || value instanceof String || isSimple(value)) {
            bundle.put(PLAIN, String.valueOf(value));
            return bundle;
        }
        Map<?, ?> own = ownBundle(value);
        if (own != null) {
            addOwn(bundle, own);
        } else if (isImage(value)) {
            bundle.put(PNG, png(value));
        } else {
            Object data = value instanceof CharSequence ? null : PlainData.of(value);
            if (data != null) {
                bundle.put(JSON, data);
            }
        }
        if (!bundle.containsKey(PLAIN)) {
            bundle.put(PLAIN, Rendering.of(value));
        }
        return bundle;
    }

    private static boolean isSimple(Object value) {
        return value instanceof Number || value instanceof Boolean || value instanceof Character;
    }

    // === what a value says of itself ===

    private static Map<?, ?> ownBundle(Object value) throws Exception {
        if (value.getClass().getClassLoader() == null) {
            return null;
        }
        Method method;
        try {
            method = value.getClass().getMethod(BUNDLE_METHOD);
            method.setAccessible(true);
        } catch (NoSuchMethodException | RuntimeException none) {
            return null;
        }
        try {
            return method.invoke(value) instanceof Map<?, ?> map ? map : null;
        } catch (InvocationTargetException thrown) {
            if (thrown.getCause() instanceof Error error) {
                throw error;
            }
            throw (Exception) thrown.getCause();
        }
    }

    private static void addOwn(Map<String, Object> bundle, Map<?, ?> own) {
        for (Map.Entry<?, ?> entry : own.entrySet()) {
            if (bundle.size() == ENTRIES_MAX) {
                return;
            }
            if (entry.getKey() instanceof String type && !type.isEmpty() && type.length() <= MIME_CHARS_MAX) {
                Object data = entry(type, entry.getValue());
                if (data != null) {
                    bundle.put(type, data);
                }
            }
        }
    }

    /** As the protocol wants it, or null when it is no such thing. */
    private static Object entry(String type, Object data) {
        if (type.endsWith("json")) {
            return PlainData.of(data);
        }
        if (data instanceof byte[] bytes) {
            return isBinary(type) ? Base64.getEncoder().encodeToString(bytes)
                    : new String(bytes, StandardCharsets.UTF_8);
        }
        return data == null ? null : data.toString();
    }

    private static boolean isBinary(String type) {
        return type.equals("application/pdf") || type.equals("application/octet-stream")
                || type.startsWith("audio/") || type.startsWith("video/")
                || type.startsWith("image/") && !type.equals("image/svg+xml");
    }

    // === images ===

    /** By name: to mention the class would load half of AWT for a number. */
    private static boolean isImage(Object value) {
        for (Class<?> type = value.getClass(); type != null; type = type.getSuperclass()) {
            if (type.getName().equals(IMAGE_CLASS)) {
                return true;
            }
        }
        return false;
    }

    private static String png(Object image) throws IOException {
        ByteArrayOutputStream file = new ByteArrayOutputStream();
        javax.imageio.ImageIO.setUseCache(false);
        javax.imageio.ImageIO.write((java.awt.image.BufferedImage) image, "png", file);
        return Base64.getEncoder().encodeToString(file.toByteArray());
    }

    // === bundles to events ===

    /** The body of an event with everything of the bundle that may and can be sent. */
    static byte[] event(Map<String, Object> event, Map<String, Object> bundle) {
        Map<String, String> encoded = new LinkedHashMap<>();
        List<Map<String, Object>> omitted = new ArrayList<>();
        long total = 0;
        for (Map.Entry<String, Object> entry : bundle.entrySet()) {
            long raw = entry.getValue() instanceof String text ? Texts.bytes(text) : 0;
            if (raw <= ENTRY_BYTES_MAX) {
                StringBuilder json = new StringBuilder();
                Json.write(json, entry.getValue());
                raw = entry.getValue() instanceof String ? raw : Texts.bytes(json.toString());
                encoded.put(entry.getKey(), json.toString());
            }
            if (raw > ENTRY_BYTES_MAX) {
                encoded.remove(entry.getKey());
                omitted.add(omission(entry.getKey(), raw));
            }
        }
        for (String json : encoded.values()) {
            total += Texts.bytes(json);
        }
        while (total > BUNDLE_BYTES_MAX) {
            String largest = largest(encoded);
            long bytes = Texts.bytes(encoded.remove(largest));
            omitted.add(omission(largest, bytes));
            total -= bytes;
        }
        return assemble(event, encoded, omitted);
    }

    private static Map<String, Object> omission(String type, long bytes) {
        Map<String, Object> omission = new LinkedHashMap<>();
        omission.put("mime", type);
        omission.put("bytes", bytes);
        return omission;
    }

    private static String largest(Map<String, String> encoded) {
        String largest = null;
        for (String type : encoded.keySet()) {
            if (largest == null || encoded.get(type).length() > encoded.get(largest).length()) {
                largest = type;
            }
        }
        return largest;
    }

    private static byte[] assemble(Map<String, Object> event, Map<String, String> encoded,
            List<Map<String, Object>> omitted) {
        StringBuilder text = new StringBuilder();
        Json.write(text, event);
        text.setLength(text.length() - 1);
        char before = '{';
        text.append(",\"data\":");
        for (Map.Entry<String, String> entry : encoded.entrySet()) {
            Json.quote(text.append(before), entry.getKey());
            text.append(':').append(entry.getValue());
            before = ',';
        }
        text.append(before == '{' ? "{}" : "}").append(",\"metadata\":");
        Json.write(text, omitted.isEmpty() ? Map.of() : Map.of("crownest", Map.of("omitted", omitted)));
        return Texts.utf8(text.append('}').toString());
    }
}
