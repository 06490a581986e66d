package crownest.kernel;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * System.in of the cells: a line at a time, asked for through the protocol. Where nobody can
 * answer, and for threads that a cell has started, every read is at the end of the file. Closing
 * it changes nothing, since a Scanner that is closed takes its stream with it.
 *
 * <p>No lock is held while somebody waits, and the stream itself is none of the driver's locks: a
 * thread of the tenant's may hold it for ever.
 */
final class Input extends InputStream {
    private static final byte[] NOTHING = {};

    private final Channel channel;
    private final Console out;
    /** Whose lines are read; null between runs. */
    private volatile Run run;

    // The rest of a line that was read in part. The cell's thread reads, and the kernel's clears it
    // when that one has ended.
    private byte[] line = NOTHING;
    private int at;

    // Guarded by `answers`.
    private final Object answers = new Object();
    private boolean waiting;
    private boolean answered;
    private String answer;

    Input(Channel channel, Console out) {
        this.channel = channel;
        this.out = out;
    }

    void begin(Run current) {
        run = current;
    }

    /** What a cell did not read of its last line is gone: the next one asks anew. */
    void end() {
        run = null;
        line = NOTHING;
        at = 0;
    }

    /** From the thread that reads frames. */
    void reply(String value) {
        synchronized (answers) {
            if (waiting) {
                answer = value;
                answered = true;
                answers.notifyAll();
            }
        }
    }

    // === a line ===

    /** Asks for a line; null is the end of the file. Ends with the interrupt of the run. */
    String ask(String prompt, boolean password) throws InterruptedIOException {
        Run current = run;
        if (current == null || !current.hasInput || !UserCode.isCurrentThread()) {
            return null;
        }
        out.flushLines();
        synchronized (answers) {
            waiting = true;
            answered = false;
            try {
                channel.send(question(current, prompt, password));
                while (!answered) {
                    answers.wait();
                }
                return answer;
            } catch (InterruptedException interrupted) {
                throw new InterruptedIOException("the run was interrupted");
            } finally {
                waiting = false;
                answer = null;
            }
        }
    }

    private static Map<String, Object> question(Run run, String prompt, boolean password) {
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("ev", "input");
        event.put("run", run.id);
        event.put("prompt", prompt == null ? "" : Texts.prefix(prompt, Failures.MESSAGE_BYTES_MAX));
        event.put("password", password);
        return event;
    }

    // === as a stream ===

    @Override
    public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 255;
    }

    @Override
    public int read(byte[] bytes, int from, int length) throws IOException {
        if (length == 0) {
            return 0;
        }
        if (!UserCode.isCurrentThread()) {
            return -1;
        }
        if (at == line.length) {
            String next = ask("", false);
            if (next == null) {
                return -1;
            }
            line = (next + "\n").getBytes(StandardCharsets.UTF_8);
            at = 0;
        }
        int count = Math.min(length, line.length - at);
        System.arraycopy(line, at, bytes, from, count);
        at += count;
        return count;
    }

    @Override
    public int available() {
        return UserCode.isCurrentThread() ? line.length - at : 0;
    }
}
