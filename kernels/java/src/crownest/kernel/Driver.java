package crownest.kernel;

import java.io.File;
import java.io.FileDescriptor;
import sun.misc.Signal;

/**
 * The process: takes over the control socket and the standard descriptors, makes SIGINT harmless,
 * starts the threads. `java -jar driver.jar <fd of the control socket> [spare]`.
 */
public final class Driver {
    static final int EXIT_DEFECT = 70;
    /** The compiler recurses as deep as a cell is nested. Pages that nobody touches cost nothing. */
    private static final long KERNEL_STACK_BYTES = 16 * 1024 * 1024;
    /** Says that nobody waits for this one yet. */
    private static final String SPARE = "spare";

    private Driver() {}

    /** Serves until init closes the socket. */
    public static void main(String[] arguments) {
        // Its announcement is the `interrupt` frame. A handler that does nothing, since a signal
        // that is ignored would be ignored by every child, too.
        Signal.handle(new Signal("INT"), signal -> { });
        Channel channel = arguments[0].equals(Training.ARGUMENT)
                ? Training.channel()
                : new Channel(Descriptors.of(Integer.parseInt(arguments[0])));
        int savedOut = Descriptors.duplicate(Descriptors.STDOUT);
        int savedErr = Descriptors.duplicate(Descriptors.STDERR);
        Console out = Console.over(Descriptors.of(savedOut));
        Console err = Console.over(Descriptors.of(savedErr));
        Kernel kernel = new Kernel(channel, out, err, apiPath(), () -> {
            Descriptors.restore(FileDescriptor.out, Descriptors.STDOUT, savedOut);
            Descriptors.restore(FileDescriptor.err, Descriptors.STDERR, savedErr);
        });
        // What System.exit() finds unfinished.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            out.flushLines();
            err.flushLines();
        }));
        boolean isSpare = arguments.length > 1 && arguments[1].equals(SPARE);
        serve(kernel, isSpare, err);
    }

    private static void serve(Kernel kernel, boolean isSpare, Console err) {
        Thread serving = new Thread(null, () -> {
            try {
                kernel.serveRequests(isSpare);
            } catch (Throwable defect) {
                err.note("the driver ends: " + defect);
            } finally {
                // Nobody is left to answer.
                Runtime.getRuntime().halt(EXIT_DEFECT);
            }
        }, "kernel", KERNEL_STACK_BYTES);
        serving.setDaemon(true);
        serving.start();
        if (!isSpare) {
            kernel.sayReady();
        }
        int code = 0;
        try {
            kernel.readFrames();
        } catch (Channel.Ended peerGone) {
            code = 0;
        } catch (Throwable defect) {
            code = EXIT_DEFECT;
            err.note("the driver ends: " + defect);
        }
        // Not System.exit(): hooks of the tenant have nobody left to run for.
        Runtime.getRuntime().halt(code);
    }

    /** What cells compile against: the classes of crownest.api, beside the jar. */
    static String apiPath() {
        return new File(System.getProperty("crownest.home"), "api").getPath();
    }
}
