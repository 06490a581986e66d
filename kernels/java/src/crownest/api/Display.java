package crownest.api;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/**
 * What every cell can call without an import: shows values on the way, replaces what was shown,
 * reads a line. A value is shown by its text, as JSON where it is plain data, as an image if it is
 * one, and by what its own method `Map toMimeBundle()` gives.
 */
public final class Display {
    private static volatile Screen screen;

    private Display() {}

    /** Where shown values go; the driver sets it before the first cell, once. */
    public static synchronized void connect(Screen target) {
        if (screen != null) {
            throw new IllegalStateException("the driver is connected");
        }
        screen = target;
    }

    /** The driver's side. */
    public interface Screen {
        void show(Object value, String id, boolean update);

        void clear(boolean wait);

        /** A line without its end; null at the end of the input. */
        String read(String prompt, boolean password);
    }

    /** Something shown under an id. */
    public static final class Displayed {
        private final String id;

        private Displayed(String id) {
            this.id = id;
        }

        public String id() {
            return id;
        }

        public void update(Object value) {
            updateDisplay(id, value);
        }

        @Override
        public String toString() {
            return "Displayed[" + id + "]";
        }
    }

    public static void display(Object value) {
        screen.show(value, null, false);
    }

    /** Shows `value` under `id`, with which it can be replaced; null makes one up. */
    public static Displayed display(Object value, String id) {
        Displayed displayed = new Displayed(id == null ? UUID.randomUUID().toString() : id);
        screen.show(value, displayed.id, false);
        return displayed;
    }

    public static void updateDisplay(String id, Object value) {
        screen.show(value, id, true);
    }

    public static void clearOutput() {
        clearOutput(false);
    }

    /** With `wait`, what is there is cleared when something new comes. */
    public static void clearOutput(boolean wait) {
        screen.clear(wait);
    }

    /** A line that the user enters; null at the end of the input. */
    public static String input(String prompt) {
        return screen.read(prompt, false);
    }

    public static String password(String prompt) {
        return screen.read(prompt, true);
    }

    // === values with a type of their own ===

    /** A value that is shown as what it says it is. */
    public static final class Rich {
        private final Map<String, Object> bundle = new LinkedHashMap<>();

        private Rich(String type, Object data) {
            bundle.put(type, data);
        }

        /** Another representation of the same value. */
        public Rich and(String type, Object data) {
            bundle.put(type, data);
            return this;
        }

        public Map<String, Object> toMimeBundle() {
            return bundle;
        }

        @Override
        public String toString() {
            Object text = bundle.get("text/plain");
            return text != null ? text.toString() : "Rich" + bundle.keySet();
        }
    }

    /** `data`: text, bytes, or for a type that ends in `json` plain data. */
    public static Rich rich(String type, Object data) {
        return new Rich(type, data);
    }

    public static Rich html(String text) {
        return rich("text/html", text);
    }

    public static Rich markdown(String text) {
        return rich("text/markdown", text);
    }

    public static Rich latex(String text) {
        return rich("text/latex", text);
    }

    public static Rich svg(String text) {
        return rich("image/svg+xml", text);
    }

    public static Rich json(Object data) {
        return rich("application/json", data);
    }

    /** A PNG or JPEG file's bytes. */
    public static Rich image(byte[] file) {
        boolean png = file.length > 4
                && new String(file, 1, 3, StandardCharsets.ISO_8859_1).equals("PNG");
        return rich(png ? "image/png" : "image/jpeg", file);
    }
}
