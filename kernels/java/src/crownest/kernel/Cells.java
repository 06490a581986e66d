package crownest.kernel;

import java.util.HashMap;
import java.util.Map;

/**
 * Names of cells, and where in them each snippet stands, for as long as the context lives: a
 * method of an old cell is in the traceback of a new one. Holds no source.
 */
final class Cells implements Failures.Places {
    private final Map<String, Place> places = new HashMap<>();

    static String name(int cell) {
        return "Cell " + cell;
    }

    /** A snippet's first line, as its number in the cell less one. */
    record Place(int cell, int linesBefore) {
        String cellName() {
            return name(cell);
        }

        int line(int lineInSnippet) {
            return linesBefore + Math.max(1, lineInSnippet);
        }
    }

    void put(String snippetId, int cell, int linesBefore) {
        places.put(snippetId, new Place(cell, linesBefore));
    }

    @Override
    public Place place(String snippetId) {
        return places.get(snippetId);
    }

    /** Line ends in `code` before `offset`. */
    static int linesBefore(String code, int offset) {
        int lines = 0;
        for (int i = 0; i < offset; i++) {
            char c = code.charAt(i);
            if (c == '\n' || c == '\r' && !(i + 1 < code.length() && code.charAt(i + 1) == '\n')) {
                lines++;
            }
        }
        return lines;
    }
}
