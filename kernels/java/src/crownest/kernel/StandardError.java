package crownest.kernel;

import java.io.PrintStream;

/**
 * Whose System.err it is. The compiler flushes it on the thread on which it compiles, so what a
 * cell has put there must not be there then: its flush() may throw, and may not end. The kernel's
 * thread takes it for its own work and gives it back for the tenant's.
 */
final class StandardError {
    private final PrintStream own;
    private PrintStream theirs;

    StandardError(PrintStream own) {
        this.own = own;
    }

    void take() {
        PrintStream now = System.err;
        if (now != own) {
            theirs = now;
            System.setErr(own);
        }
    }

    /** Not over one that a thread of the tenant's has set meanwhile. */
    void giveBack() {
        if (theirs != null && System.err == own) {
            System.setErr(theirs);
        }
        theirs = null;
    }
}
