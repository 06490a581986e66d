package crownest.kernel;

import java.io.File;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.URL;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The jars of a directory of ours. */
final class Jars {
    private Jars() {}

    static URL[] in(File directory) throws IOException {
        File[] files = directory.listFiles((parent, name) -> name.endsWith(".jar"));
        if (files == null || files.length == 0) {
            throw new FileNotFoundException("no jar in " + directory);
        }
        Arrays.sort(files);
        List<URL> urls = new ArrayList<>();
        for (File file : files) {
            urls.add(file.toURI().toURL());
        }
        return urls.toArray(new URL[0]);
    }
}
