package crownest.kernel;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Plays init while a template is built, so that the archive of classes has everything that cells
 * of the usual kind need. One frame follows the `done` of the one before; then the socket ends.
 */
final class Training {
    static final String ARGUMENT = "train";

    private static final String[] CELLS = {
        "1+1",
        "System.out.println(\"Calculating sum...\");\nint a = 10;\nint b = 20;\nint sum = a + b;\n"
                + "System.out.println(\"Sum: \" + sum);\nsum",
        "List<Integer> numbers = List.of(1, 2, 3);\nvar texts = new HashMap<String, Integer>();\n"
                + "for (int n : numbers) { texts.put(\"n\" + n, n); }\n"
                + "numbers.stream().map(n -> n * 2).filter(n -> n > 2).collect(Collectors.toList())",
        "int half(int x) {\n    return x / 0;\n}\nhalf(7)",
        "record Point(int x, String y) {}\nenum Color { RED, GREEN }\ninterface Shape { double area(); }\n"
                + "class Square implements Shape { double side = 2; public double area() { return side * side; } }\n"
                + "new Point(1, \"a\")",
        "class Failing { int m() { throw new IllegalStateException(\"boom\", new IOException(\"inner\")); } }\n"
                + "new Failing().m()",
        "new int[][] {{1, 2}, {3}}",
        "display(\"shown\"); display(html(\"<b>bold</b>\"), \"name\").update(3);\nclearOutput(true);",
        "missing + 1",
        "if (sum == 1\n    print();",
        "int x = \"text\";",
        "String text = \"\"\"\n    a block\n    \"\"\";\nSystem.out.printf(\"%d %s%n\", sum, text);\ntext.lines().count()",
        "Object o = 5; String kind = switch ((Integer) o) { case 5 -> \"five\"; default -> \"other\"; };\nkind",
        "Files.exists(Path.of(\"nowhere\"))",
        "System.err.println(System.getenv(\"PATH\") != null);",
        "new Scanner(System.in).hasNextLine()",
        "Thread.sleep(0); new Thread(() -> {}).join();",
        "%classpath",
    };
    private static final String[][] QUERIES = {
        {"complete", "numbers.str"}, {"inspect", "half"}, {"variables", ""},
    };

    private Training() {}

    static Channel channel() {
        Script script = new Script();
        return new Channel(script.in, script.out);
    }

    /** Frames one way, their ends the other. */
    private static final class Script {
        private byte[] frame = new byte[0];
        private int at;
        private int next;
        private boolean waiting;

        final InputStream in = new InputStream() {
            @Override
            public int read() {
                throw new UnsupportedOperationException("the driver reads pieces");
            }

            @Override
            public int read(byte[] bytes, int from, int length) throws IOException {
                return take(bytes, from, length);
            }
        };

        final OutputStream out = new OutputStream() {
            @Override
            public void write(int b) {
                throw new UnsupportedOperationException("the driver writes frames");
            }

            @Override
            public void write(byte[] bytes, int from, int length) {
                said(new String(bytes, from, length, java.nio.charset.StandardCharsets.UTF_8));
            }
        };

        private synchronized void said(String text) {
            if (text.contains("\"ev\":\"done\"")) {
                waiting = false;
                notifyAll();
            }
        }

        private synchronized int take(byte[] bytes, int from, int length) throws IOException {
            try {
                while (waiting && at == frame.length) {
                    wait();
                }
            } catch (InterruptedException unexpected) {
                throw new IOException(unexpected);
            }
            if (at == frame.length) {
                frame = nextFrame();
                at = 0;
            }
            int count = Math.min(length, frame.length - at);
            System.arraycopy(frame, at, bytes, from, count);
            at += count;
            return count == 0 ? -1 : count;
        }

        private byte[] nextFrame() throws IOException {
            Map<String, Object> op = new LinkedHashMap<>();
            int number = next++ - 1;
            if (number < 0) {
                op.put("op", "start");
                op.put("cwd", System.getProperty("user.dir"));
                op.put("env", Map.of());
                return framed(op);
            }
            if (number < CELLS.length) {
                op.put("op", "execute");
                op.put("code", CELLS[number]);
            } else if (number < CELLS.length + QUERIES.length) {
                String[] query = QUERIES[number - CELLS.length];
                op.put("op", "query");
                op.put("query", query[0]);
                op.put("code", query[1]);
                op.put("cursor", query[1].length());
                op.put("limit", 10);
            } else {
                return new byte[0];
            }
            op.put("run", number + 1);
            waiting = true;
            return framed(op);
        }

        private static byte[] framed(Map<String, Object> op) {
            byte[] body = Json.encode(op);
            ByteArrayOutputStream framed = new ByteArrayOutputStream();
            for (int shift = 24; shift >= 0; shift -= 8) {
                framed.write(body.length >> shift);
            }
            framed.writeBytes(body);
            return framed.toByteArray();
        }
    }
}
