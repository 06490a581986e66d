package crownest.kernel;

import java.io.File;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.util.Map;

/**
 * Working directory and environment of the process, which Java takes from its start and has no
 * way to change. Two calls of C do it (Native), after which the copies that Java keeps are put
 * right: those of java.io, of java.nio.file and of System.getenv. Native is loaded by the first
 * run that needs it, which a driver that init has started in the right place never meets; one that
 * waits in a pool loads it beforehand.
 */
final class Surroundings {
    private final String home = System.getProperty("crownest.home");
    private String directory = System.getProperty("user.dir");
    private Native calls;

    private Native calls() {
        if (calls == null) {
            calls = new Native(home);
        }
        return calls;
    }

    /** Loads what changes take, for a driver whose first change somebody will wait for. Nothing is
     * another afterwards. */
    void prepare() throws Exception {
        String path = System.getenv("PATH");
        if (path != null) {
            calls().setEnvironment("PATH", path);
            addToCopy("PATH", path);
        }
        Proxies.parse("http://127.0.0.1:1");
    }

    // === working directory ===

    String directory() {
        return directory;
    }

    /** Throws what Java throws where there is no such directory. */
    void enter(String target) throws Exception {
        Path path = Path.of(directory).resolve(target).normalize();
        if (path.toString().equals(directory)) {
            return;
        }
        if (!Files.exists(path)) {
            throw new NoSuchFileException(target);
        }
        if (!Files.isDirectory(path)) {
            throw new NotDirectoryException(target);
        }
        calls().changeDirectory(path.toString());
        directory = path.toString();
        System.setProperty("user.dir", directory);
        setCopies(directory);
    }

    private static void setCopies(String directory) throws ReflectiveOperationException {
        Field files = field(File.class, Runtime.version().feature() < 21 ? "fs" : "FS");
        Object ofIo = files.get(null);
        field(ofIo.getClass(), "userDir").set(ofIo, directory);
        FileSystem ofNio = FileSystems.getDefault();
        Class<?> unix = ofNio.getClass().getSuperclass();
        field(unix, "defaultDirectory").set(ofNio, directory.getBytes(StandardCharsets.UTF_8));
    }

    private static Field field(Class<?> owner, String name) throws NoSuchFieldException {
        Field field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }

    // === environment ===

    /** Adds to the environment, of this process and of the children to come. */
    void addToEnvironment(Map<?, ?> added) throws Exception {
        for (Map.Entry<?, ?> entry : added.entrySet()) {
            String name = (String) entry.getKey();
            String value = (String) entry.getValue();
            if (!value.equals(System.getenv(name))) {
                calls().setEnvironment(name, value);
                addToCopy(name, value);
            }
        }
    }

    private static void addToCopy(String name, String value) throws ReflectiveOperationException {
        Class<?> owner = Class.forName("java.lang.ProcessEnvironment");
        @SuppressWarnings("unchecked")
        Map<Object, Object> copy = (Map<Object, Object>) field(owner, "theEnvironment").get(null);
        copy.put(part("Variable", name), part("Value", value));
    }

    private static Object part(String kind, String text) throws ReflectiveOperationException {
        Class<?> type = Class.forName("java.lang.ProcessEnvironment$" + kind);
        Method of = type.getDeclaredMethod("valueOf", String.class);
        of.setAccessible(true);
        try {
            return of.invoke(null, text);
        } catch (InvocationTargetException invalid) {
            throw new IllegalArgumentException(invalid.getCause());
        }
    }

    // === network ===

    /** Java reads neither proxies nor certificates from its environment, and a sandbox has no
     * other way out. */
    static void useNetwork() {
        trust(System.getenv("SSL_CERT_FILE"));
        String exceptions = either("NO_PROXY", "no_proxy");
        for (String scheme : new String[] {"http", "https"}) {
            String upper = scheme.equals("http") ? "HTTP_PROXY" : "HTTPS_PROXY";
            Proxies.Address proxy = Proxies.parse(either(upper, scheme + "_proxy"));
            if (proxy != null && System.getProperty(scheme + ".proxyHost") == null) {
                System.setProperty(scheme + ".proxyHost", proxy.host());
                System.setProperty(scheme + ".proxyPort", String.valueOf(proxy.port()));
                System.setProperty("http.nonProxyHosts", Proxies.exceptions(exceptions));
            }
        }
    }

    /** Lets the default TLS context trust `file`, unless something else has been chosen. */
    private static void trust(String file) {
        if (file != null && System.getProperty("javax.net.ssl.trustStore") == null
                && new File(file).isFile()) {
            System.setProperty("javax.net.ssl.trustStore", file);
            // A constant, with which the provider is not loaded.
            System.setProperty("javax.net.ssl.trustStoreType", PemProvider.TYPE);
        }
    }

    private static String either(String one, String other) {
        String value = System.getenv(one);
        return value != null && !value.isEmpty() ? value : System.getenv(other);
    }
}
