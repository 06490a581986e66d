package crownest.kernel;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * Frames over the control socket. One thread receives; any thread sends. Streams of java.io carry
 * them, not a channel of NIO: that one closes itself when a thread that writes is interrupted.
 */
final class Channel {
    static final int FRAME_BYTES_MAX = 12 * 1024 * 1024;
    private static final int LENGTH_BYTES = 4;
    private static final int READ_BYTES = 8 * 1024;

    private final InputStream in;
    private final OutputStream out;
    private byte[] unread = new byte[READ_BYTES];
    private int start;
    private int end;

    Channel(FileDescriptor socket) {
        this(new FileInputStream(socket), new FileOutputStream(socket));
    }

    /** For the training run, which has no socket. */
    Channel(InputStream in, OutputStream out) {
        this.in = in;
        this.out = out;
    }

    /** The peer is gone, or what it says cannot be understood. */
    static final class Ended extends Exception {
        private static final long serialVersionUID = 1;

        Ended(String message) {
            super(message);
        }
    }

    /** The next frame. Blocks. */
    Map<?, ?> receive() throws Ended {
        try {
            fill(LENGTH_BYTES);
            int length = (unread[start] & 255) << 24 | (unread[start + 1] & 255) << 16
                    | (unread[start + 2] & 255) << 8 | unread[start + 3] & 255;
            if (length <= 0 || length > FRAME_BYTES_MAX) {
                throw new Ended("frame of " + length + " bytes");
            }
            fill(LENGTH_BYTES + length);
            String text = new String(unread, start + LENGTH_BYTES, length, StandardCharsets.UTF_8);
            start += LENGTH_BYTES + length;
            return Json.parseObject(text);
        } catch (IOException | Json.Malformed broken) {
            throw new Ended(broken.getMessage());
        }
    }

    /** Until `count` bytes are there. One large frame does not cost its memory for ever. */
    private void fill(int count) throws IOException, Ended {
        if (start == end) {
            start = end = 0;
            if (unread.length > READ_BYTES && count <= READ_BYTES) {
                unread = new byte[READ_BYTES];
            }
        }
        if (unread.length - start < count) {
            byte[] larger = count > unread.length ? new byte[Math.max(count, READ_BYTES)] : unread;
            System.arraycopy(unread, start, larger, 0, end - start);
            end -= start;
            start = 0;
            unread = larger;
        }
        while (end - start < count) {
            int read = in.read(unread, end, unread.length - end);
            if (read <= 0) {
                throw new Ended("end of file");
            }
            end += read;
        }
    }

    void send(Map<String, ?> event) {
        send(Json.encode(event));
    }

    /** Writes one frame in one piece, or ends the process: init would wait for what is lost. The
     * reader alone cannot do that, since a socket that a cell has closed is open as long as it reads. */
    void send(byte[] body) {
        byte[] frame = new byte[LENGTH_BYTES + body.length];
        for (int i = 0; i < LENGTH_BYTES; i++) {
            frame[i] = (byte) (body.length >> 8 * (LENGTH_BYTES - 1 - i));
        }
        System.arraycopy(body, 0, frame, LENGTH_BYTES, body.length);
        synchronized (this) {
            try {
                out.write(frame);
            } catch (IOException gone) {
                Runtime.getRuntime().halt(Driver.EXIT_DEFECT);
            }
        }
    }
}
