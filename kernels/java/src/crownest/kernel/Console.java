package crownest.kernel;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * System.out and System.err of the cells. A complete line is in its pipe when println() returns;
 * part of a line waits for its end, for flush(), for the end of the run, or until it is long.
 * Closing it flushes it, since a Scanner or a writer that is closed takes its stream with it.
 */
final class Console extends PrintStream {
    private final Lines lines;

    private Console(Lines lines) {
        super(lines, false, StandardCharsets.UTF_8);
        this.lines = lines;
    }

    static Console over(FileDescriptor pipe) {
        return new Console(new Lines(new FileOutputStream(pipe)));
    }

    /** What a thread must hold to stop another one: never in the middle of a write. */
    Object lock() {
        return lines;
    }

    /** For the driver: takes no lock that a cell can hold. Every print() has come this far. */
    void flushLines() {
        try {
            lines.flush();
        } catch (IOException gone) {
            setError();
        }
    }

    /** A line of the driver's own: takes no lock that a cell can hold either. */
    void note(String text) {
        byte[] line = (text + "\n").getBytes(StandardCharsets.UTF_8);
        try {
            lines.write(line, 0, line.length);
        } catch (IOException gone) {
            setError();
        }
    }

    /** As what it overrides, without its lock: the compiler calls this on the kernel's thread. */
    @Override
    public void flush() {
        flushLines();
    }

    @Override
    public void close() {
        flushLines();
    }

    /** Collects bytes up to the end of a line. */
    private static final class Lines extends OutputStream {
        /** What a pipe takes whole or not at all: after a failed write nothing is in doubt. */
        private static final int PIECE_BYTES_MAX = 4096;
        private static final int RETRY_MS = 1;

        private final FileOutputStream pipe;
        private final byte[] part = new byte[PIECE_BYTES_MAX];
        private int count;

        Lines(FileOutputStream pipe) {
            this.pipe = pipe;
        }

        @Override
        public synchronized void write(int b) throws IOException {
            part[count++] = (byte) b;
            if (b == '\n' || count == part.length) {
                flush();
            }
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) throws IOException {
            int end = from + length;
            int lineEnd = end;
            while (lineEnd > from && bytes[lineEnd - 1] != '\n') {
                lineEnd--;
            }
            put(bytes, from, lineEnd);
            if (lineEnd > from) {
                flush();
            }
            put(bytes, lineEnd, end);
        }

        private void put(byte[] bytes, int from, int end) throws IOException {
            while (from < end) {
                if (count == part.length) {
                    flush();
                }
                int copied = Math.min(part.length - count, end - from);
                System.arraycopy(bytes, from, part, count, copied);
                count += copied;
                from += copied;
            }
        }

        @Override
        public synchronized void flush() throws IOException {
            int length = count;
            if (length == 0) {
                return;
            }
            count = 0;
            while (true) {
                try {
                    pipe.write(part, 0, length);
                    return;
                } catch (IOException failed) {
                    if (!isFull(failed)) {
                        throw failed;
                    }
                    waitForReader();
                }
            }
        }

        /** A child that shares the pipe may have made it non-blocking, for everybody. */
        private static boolean isFull(IOException failed) {
            String message = failed.getMessage();
            return message != null && message.startsWith("Resource temporarily unavailable");
        }

        private static void waitForReader() {
            boolean interrupted = false;
            try {
                Thread.sleep(RETRY_MS);
            } catch (InterruptedException kept) {
                interrupted = true;
            }
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }
}
