package crownest.kernel;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;

/**
 * Lines that begin with a percent sign: what a class path needs that Java has no words for.
 *
 * <p>%maven group:artifact:version …, %dependency the same, %mavenRepo id url,
 * %classpath [add path …], %jars path …; a path may end in a pattern such as lib/*.jar.
 */
final class Magics implements Engine.Magics {
    static final String ERROR_NAME = "MagicError";
    private static final int PATHS_MAX = 10_000;

    private final Engine engine;
    private final UserCode userCode;
    private final Surroundings surroundings;
    private final Dependencies dependencies = new Dependencies();
    private final Set<String> classpath = new LinkedHashSet<>();

    Magics(Engine engine, UserCode userCode, Surroundings surroundings) {
        this.engine = engine;
        this.userCode = userCode;
        this.surroundings = surroundings;
    }

    /** What a magic refuses, in words for the user. */
    private static final class Refused extends Exception {
        private static final long serialVersionUID = 1;

        Refused(String message) {
            super(message);
        }
    }

    @Override
    public ErrorEvent run(String line, Run run, int lineInCell) {
        List<String> words = new ArrayList<>(Arrays.asList(line.substring(1).trim().split("\\s+")));
        try {
            run(words.remove(0), words, run);
            return null;
        } catch (Refused refused) {
            return error(ERROR_NAME, refused.getMessage(), line, lineInCell);
        }
    }

    private static ErrorEvent error(String name, String message, String line, int lineInCell) {
        return new ErrorEvent(name, Failures.bounded(message),
                Failures.bounded(List.of(name + ": " + message, line)), lineInCell);
    }

    private void run(String name, List<String> words, Run run) throws Refused {
        switch (name) {
            case "maven", "dependency" -> addMaven(words, run);
            case "mavenRepo" -> {
                if (words.size() != 2) {
                    throw new Refused("usage: %mavenRepo id url");
                }
                dependencies.addRepository(words.get(0), words.get(1));
            }
            case "classpath" -> {
                if (words.isEmpty()) {
                    say(String.join("\n", classpath), run);
                } else if (words.get(0).equals("add") && words.size() > 1) {
                    addPaths(words.subList(1, words.size()), run);
                } else {
                    throw new Refused("usage: %classpath [add path …]");
                }
            }
            case "jars" -> addPaths(words, run);
            default -> throw new Refused("unknown magic %" + name
                    + "; there are %maven, %dependency, %mavenRepo, %classpath, %jars");
        }
    }

    // === class path ===

    private void addPaths(List<String> words, Run run) throws Refused {
        List<String> paths = new ArrayList<>();
        for (String word : words) {
            File file = new File(word.startsWith("/") ? word : surroundings.directory() + "/" + word);
            if (file.getName().indexOf('*') >= 0) {
                paths.addAll(matching(file, word));
            } else if (file.exists()) {
                paths.add(file.getPath());
            } else {
                throw new Refused("no such file: " + word);
            }
        }
        add(paths);
    }

    private static List<String> matching(File pattern, String word) throws Refused {
        String name = pattern.getName();
        int star = name.indexOf('*');
        String before = name.substring(0, star);
        String after = name.substring(star + 1);
        String[] names = pattern.getParentFile().list((parent, one) -> one.startsWith(before)
                && one.endsWith(after) && one.length() >= before.length() + after.length());
        if (names == null || names.length == 0) {
            throw new Refused("nothing matches " + word);
        }
        Arrays.sort(names);
        List<String> paths = new ArrayList<>();
        for (String one : names) {
            paths.add(new File(pattern.getParentFile(), one).getPath());
        }
        return paths;
    }

    private void add(List<String> paths) throws Refused {
        List<String> fresh = new ArrayList<>();
        for (String path : paths) {
            if (path.indexOf(File.pathSeparatorChar) >= 0) {
                throw new Refused("a class path cannot have this name in it: " + path);
            }
            if (classpath.size() >= PATHS_MAX) {
                throw new Refused("more than " + PATHS_MAX + " entries");
            }
            if (classpath.add(path)) {
                fresh.add(path);
            }
        }
        if (!fresh.isEmpty()) {
            engine.addToClasspath(String.join(File.pathSeparator, fresh));
        }
    }

    // === Maven ===

    private void addMaven(List<String> coordinates, Run run) throws Refused {
        if (coordinates.isEmpty()) {
            throw new Refused("usage: %maven group:artifact:version …");
        }
        for (String one : coordinates) {
            if (one.indexOf(':') <= 0) {
                throw new Refused("not group:artifact:version: " + one);
            }
        }
        List<Dependencies.Jar> jars = onUserThread(() -> dependencies.resolve(coordinates), run);
        List<String> paths = new ArrayList<>();
        StringBuilder text = new StringBuilder();
        for (Dependencies.Jar jar : jars) {
            paths.add(jar.path());
            text.append(text.length() == 0 ? "added " : ", ").append(jar.coordinates());
        }
        add(paths);
        dependencies.keep(jars);
        say(jars.isEmpty() ? "nothing to add" : text.toString(), run);
    }

    /** So that it can be interrupted, as a cell can. */
    private <T> T onUserThread(Callable<T> code, Run run) throws Refused {
        UserCode.Call call = userCode.run(code);
        if (call.thrown != null) {
            String message = call.thrown.getMessage();
            throw new Refused(run.interrupted ? "the run was interrupted"
                    : message == null ? call.thrown.toString() : message);
        }
        @SuppressWarnings("unchecked")
        T value = (T) call.value;
        return value;
    }

    /** As a println() of the cell, whatever it has made of System.out. */
    private void say(String text, Run run) throws Refused {
        if (!text.isEmpty()) {
            onUserThread(() -> {
                java.io.PrintStream out = System.out;
                try {
                    if (out != null) {
                        out.println(text);
                    }
                } catch (Exception broken) {
                    // A stream of the cell's; the magic has done its work.
                    return null;
                }
                return null;
            }, run);
        }
    }
}
