import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.jar.JarFile;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Downloads the files of a list, `sha256  directory  path-in-the-repository` a line, and refuses
 * whatever has another sum. Run by build.sh as a source file, since a template has no other tool
 * that is sure to be there. Asks the environment for proxies (HTTPS_PROXY), certificates
 * (SSL_CERT_FILE) and a mirror (MAVEN_MIRROR_URL).
 */
public final class Fetch {
    /** Where Debian's Maven has the project that every other inherits; it names the central repository. */
    private static final Path MODEL = Path.of("/usr/share/maven/lib/maven-model-builder-3.x.jar");
    private static final String SUPER_POM = "org/apache/maven/model/pom-4.0.0.xml";
    private static final Duration TIMEOUT = Duration.ofSeconds(60);
    private static final int ATTEMPTS_MAX = 4;

    private Fetch() {}

    public static void main(String[] arguments) throws Exception {
        Path target = Path.of(arguments[1]);
        String mirror = System.getenv("MAVEN_MIRROR_URL");
        String base = mirror == null || mirror.isEmpty() ? central() : mirror.replaceAll("/+$", "");
        HttpClient client = client();
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            if (line.isBlank() || line.startsWith("#")) {
                continue;
            }
            String[] parts = line.trim().split("\\s+");
            String name = parts[2].substring(parts[2].lastIndexOf('/') + 1);
            Path file = target.resolve(parts[1]).resolve(name);
            if (Files.exists(file) && sum(Files.readAllBytes(file)).equals(parts[0])) {
                continue;
            }
            byte[] bytes = download(client, URI.create(base + "/" + parts[2]));
            if (!sum(bytes).equals(parts[0])) {
                throw new IOException(name + " has the sum " + sum(bytes) + ", expected " + parts[0]);
            }
            Files.createDirectories(file.getParent());
            Files.write(file, bytes);
        }
    }

    private static String central() throws IOException {
        try (JarFile jar = new JarFile(MODEL.toFile())) {
            byte[] pom = jar.getInputStream(jar.getEntry(SUPER_POM)).readAllBytes();
            Matcher url = Pattern.compile("<url>([^<]+)</url>").matcher(new String(pom, StandardCharsets.UTF_8));
            if (url.find()) {
                return url.group(1);
            }
        }
        throw new IOException(MODEL + " names no repository; MAVEN_MIRROR_URL can");
    }

    private static byte[] download(HttpClient client, URI uri) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(uri).timeout(TIMEOUT).build();
        IOException last = null;
        for (int i = 0; i < ATTEMPTS_MAX; i++) {
            try {
                HttpResponse<byte[]> response = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
                if (response.statusCode() == 200) {
                    return response.body();
                }
                last = new IOException(uri + " answers " + response.statusCode());
            } catch (IOException failed) {
                last = new IOException(uri + ": " + failed, failed);
            }
        }
        throw last;
    }

    private static String sum(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
    }

    private static HttpClient client() throws Exception {
        HttpClient.Builder builder = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .connectTimeout(TIMEOUT)
                .followRedirects(HttpClient.Redirect.NORMAL);
        String proxy = either("HTTPS_PROXY", "https_proxy");
        if (proxy != null) {
            URI uri = URI.create(proxy.contains("://") ? proxy : "http://" + proxy);
            builder.proxy(ProxySelector.of(new InetSocketAddress(uri.getHost(), uri.getPort())));
        } else {
            // The JDK of a template knows the proxy of sandboxes, which is not there yet.
            builder.proxy(HttpClient.Builder.NO_PROXY);
        }
        String certificates = System.getenv("SSL_CERT_FILE");
        if (certificates != null && Files.isReadable(Path.of(certificates))) {
            builder.sslContext(trusting(Path.of(certificates)));
        }
        return builder.build();
    }

    private static String either(String one, String other) {
        for (String name : List.of(one, other)) {
            String value = System.getenv(name);
            if (value != null && !value.isEmpty()) {
                return value;
            }
        }
        return null;
    }

    private static SSLContext trusting(Path certificates) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        int number = 0;
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        for (Certificate one : factory.generateCertificates(
                new ByteArrayInputStream(Files.readAllBytes(certificates)))) {
            store.setCertificateEntry(String.valueOf(number++), one);
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
