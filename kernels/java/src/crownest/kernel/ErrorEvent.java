package crownest.kernel;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What an `error` event says. `line` counts from 1 in the cell and may be unknown. */
record ErrorEvent(String name, String message, List<String> traceback, Integer line) {
    ErrorEvent withLine(int line) {
        return new ErrorEvent(name, message, traceback, line);
    }

    ErrorEvent withName(String other) {
        return new ErrorEvent(other, message, traceback, line);
    }

    Map<String, Object> frame(long run) {
        Map<String, Object> frame = new LinkedHashMap<>();
        frame.put("ev", "error");
        frame.put("run", run);
        frame.put("name", name);
        frame.put("message", message);
        frame.put("traceback", traceback);
        if (line != null) {
            frame.put("line", line);
        }
        return frame;
    }
}
