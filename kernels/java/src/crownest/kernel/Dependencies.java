package crownest.kernel;

import java.io.File;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/**
 * Maven coordinates to jars. The resolution itself is a few megabytes of Maven's own code, which
 * the first call loads in a class loader that nobody else sees.
 */
final class Dependencies {
    private static final String DIRECTORY = "resolver";
    private static final String CLASS = "crownest.resolver.Resolver";

    private final List<String> repositories = new ArrayList<>();
    /** group:artifact of all that has been added, to its version. */
    private final Map<String, String> added = new LinkedHashMap<>();
    private Function<Map<String, List<String>>, List<String>> resolver;

    void addRepository(String id, String url) {
        repositories.add(id);
        repositories.add(url);
    }

    /** A jar that came with a coordinate. */
    record Jar(String coordinates, String path) {}

    /** Jars that are not on the class path yet. On the tenant's thread: it takes as long as a
     * network does. */
    List<Jar> resolve(List<String> coordinates) throws Exception {
        ClassLoader outer = Thread.currentThread().getContextClassLoader();
        try {
            Function<Map<String, List<String>>, List<String>> resolve = resolver();
            Thread.currentThread().setContextClassLoader(resolve.getClass().getClassLoader());
            Map<String, List<String>> request = new LinkedHashMap<>();
            request.put("coordinates", coordinates);
            request.put("repositories", repositories);
            request.put("skip", new ArrayList<>(added.keySet()));
            addProxies(request);
            List<String> found = resolve.apply(request);
            List<Jar> jars = new ArrayList<>();
            for (int i = 0; i + 1 < found.size(); i += 2) {
                jars.add(new Jar(found.get(i), found.get(i + 1)));
            }
            return jars;
        } finally {
            Thread.currentThread().setContextClassLoader(outer);
        }
    }

    /** They are on the class path now. */
    void keep(List<Jar> jars) {
        for (Jar jar : jars) {
            int version = jar.coordinates().lastIndexOf(':');
            added.put(jar.coordinates().substring(0, version), jar.coordinates().substring(version + 1));
        }
    }

    private static void addProxies(Map<String, List<String>> request) {
        List<String> proxies = new ArrayList<>();
        for (String scheme : new String[] {"http", "https"}) {
            String host = System.getProperty(scheme + ".proxyHost");
            if (host != null) {
                proxies.addAll(List.of(scheme, host, System.getProperty(scheme + ".proxyPort", "3128")));
            }
        }
        request.put("proxy", proxies);
        String exceptions = System.getProperty("http.nonProxyHosts");
        request.put("exceptions", exceptions == null ? List.of() : List.of(exceptions.split("\\|")));
    }

    @SuppressWarnings("unchecked")
    private Function<Map<String, List<String>>, List<String>> resolver() throws Exception {
        if (resolver == null) {
            File directory = new File(System.getProperty("crownest.home"), DIRECTORY);
            ClassLoader loader = new URLClassLoader(
                    "resolver", Jars.in(directory), ClassLoader.getPlatformClassLoader());
            resolver = (Function<Map<String, List<String>>, List<String>>)
                    Class.forName(CLASS, true, loader).getConstructor().newInstance();
        }
        return resolver;
    }
}
