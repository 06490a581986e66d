package crownest.kernel;

/** One `execute` or `query` of init's, from its frame to its `done`. */
final class Run {
    final long id;
    final String code;
    /** The number of the cell; of a query, that of the cell before. */
    final int count;
    /** Whether somebody answers when the cell reads a line. */
    final boolean hasInput;
    /** Set by the thread that reads frames. */
    volatile boolean interrupted;
    /** What init has been told of its end; by the kernel's thread. */
    boolean saidError;
    boolean saidDone;

    Run(long id, String code, int count, boolean hasInput) {
        this.id = id;
        this.code = code;
        this.count = count;
        this.hasInput = hasInput;
    }
}
