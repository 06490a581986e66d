package crownest.kernel;

/**
 * Cells for nobody, in the time when nobody has asked for anything yet: those for somebody find
 * classes loaded and code warm.
 */
final class WarmUp {
    private static final String FIRST = "1+1";
    private static final String[] MORE = {
        "{ System.out.print(\"\"); }\nint crownest$1 = 1;",
        "int crownest$2(int x) { return x; }\nString crownest$3 = \"\" + crownest$2(1);",
        "record Crownest$4(int x) {}\n"
                + "new ArrayList<>(List.of(new Crownest$4(1))).stream().map(w -> w.x()).toList()",
    };

    /** For one that nobody waits for: until most of javac that a small cell needs is compiled. */
    private static final int ROUNDS = 8;

    private boolean hasBegun;
    private int step;

    /** Everything, and that often. Ends with a collection, so that the first cells need none. */
    void thoroughly(Engine engine) {
        while (whileIdle(engine, true)) {
            // Every step there is.
        }
        for (int round = 0; round < ROUNDS; round++) {
            engine.rehearse(FIRST);
            engine.rehearse(MORE[round % 2]);
        }
        System.gc();
    }

    /** One step, of 20 to 60 ms (the first of all: 200). False when there is nothing left to do. `untouched`: no cell has
     * run yet; after one, what it has defined is not mixed with anything of ours. */
    boolean whileIdle(Engine engine, boolean untouched) {
        if (untouched && !hasBegun) {
            hasBegun = true;
            engine.rehearse(FIRST);
            return true;
        }
        if (engine.importMore()) {
            return true;
        }
        if (!untouched || step == MORE.length) {
            return false;
        }
        if (step == 0) {
            engine.syntax().check(MORE[0], Splitter.split(MORE[0]));
        }
        engine.rehearse(MORE[step++]);
        return true;
    }
}
