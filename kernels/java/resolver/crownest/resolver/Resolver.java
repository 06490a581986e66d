package crownest.resolver;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.maven.model.building.ModelBuilder;
import org.apache.maven.repository.internal.MavenRepositorySystemUtils;
import org.eclipse.aether.DefaultRepositorySystemSession;
import org.eclipse.aether.RepositorySystem;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.collection.CollectRequest;
import org.eclipse.aether.graph.Dependency;
import org.eclipse.aether.repository.LocalRepository;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.resolution.ArtifactResult;
import org.eclipse.aether.resolution.DependencyRequest;
import org.eclipse.aether.supplier.RepositorySystemSupplier;
import org.eclipse.aether.util.artifact.JavaScopes;
import org.eclipse.aether.util.filter.DependencyFilterUtils;

/**
 * Maven coordinates to jar files, with everything that they need at run time. Loaded by the first
 * magic that asks for it, in a class loader of its own; the driver calls it as a Function, from
 * texts to texts, so that neither side sees a class of the other.
 */
public final class Resolver implements Function<Map<String, List<String>>, List<String>> {
    private static final String CENTRAL = "central";
    /** What every Maven project inherits; it names the central repository. */
    private static final String SUPER_POM = "/org/apache/maven/model/pom-4.0.0.xml";
    private static final int CONNECT_TIMEOUT_MS = 10_000;
    private static final int REQUEST_TIMEOUT_MS = 60_000;

    /**
     * `coordinates`: group:artifact:version, or all that DefaultArtifact takes.
     * `repositories`: id and URL by turns, asked before those of the settings.
     * `skip`: group:artifact of what is on the class path already.
     * `proxy`, `exceptions`: of the environment, for where the settings name none.
     *
     * @return group:artifact:version and path by turns
     */
    @Override
    public List<String> apply(Map<String, List<String>> request) {
        try {
            return resolve(request);
        } catch (Exception failed) {
            throw new IllegalArgumentException(text(failed), failed);
        }
    }

    /** The innermost cause says what is wrong; those around it repeat it. */
    private static String text(Throwable failed) {
        Throwable inner = failed;
        while (inner.getCause() != null && inner.getCause() != inner) {
            inner = inner.getCause();
        }
        String own = String.valueOf(failed.getMessage());
        String last = String.valueOf(inner.getMessage());
        return own.contains(last) ? own : own + ": " + last;
    }

    private static List<String> resolve(Map<String, List<String>> request) throws Exception {
        MavenSettings settings = MavenSettings.read();
        RepositorySystem system = new RepositorySystemSupplier().get();
        DefaultRepositorySystemSession session = session(system, settings, request);
        List<RemoteRepository> remotes = new ArrayList<>();
        List<String> own = request.getOrDefault("repositories", List.of());
        for (int i = 0; i + 1 < own.size(); i += 2) {
            remotes.add(new RemoteRepository.Builder(own.get(i), "default", own.get(i + 1)).build());
        }
        remotes.addAll(settings.repositories());
        remotes.add(new RemoteRepository.Builder(CENTRAL, "default", centralUrl()).build());

        CollectRequest collect = new CollectRequest();
        for (String coordinates : request.get("coordinates")) {
            collect.addDependency(new Dependency(artifact(coordinates), JavaScopes.COMPILE));
        }
        collect.setRepositories(system.newResolutionRepositories(session, remotes));
        DependencyRequest wanted = new DependencyRequest(
                collect, DependencyFilterUtils.classpathFilter(JavaScopes.RUNTIME));
        Set<String> skip = new HashSet<>(request.getOrDefault("skip", List.of()));
        List<String> found = new ArrayList<>();
        for (ArtifactResult result : system.resolveDependencies(session, wanted).getArtifactResults()) {
            Artifact artifact = result.getArtifact();
            String name = artifact.getGroupId() + ":" + artifact.getArtifactId()
                    + (artifact.getClassifier().isEmpty() ? "" : ":" + artifact.getClassifier());
            if (artifact.getFile() != null && skip.add(name)) {
                found.add(name + ":" + artifact.getVersion());
                found.add(artifact.getFile().getPath());
            }
        }
        return found;
    }

    private static Artifact artifact(String coordinates) {
        return new DefaultArtifact(
                coordinates.indexOf(':') == coordinates.lastIndexOf(':') ? coordinates + ":RELEASE" : coordinates);
    }

    private static DefaultRepositorySystemSession session(
            RepositorySystem system, MavenSettings settings, Map<String, List<String>> request) {
        DefaultRepositorySystemSession session = MavenRepositorySystemUtils.newSession();
        File local = new File(settings.localRepository());
        session.setLocalRepositoryManager(
                system.newLocalRepositoryManager(session, new LocalRepository(local)));
        session.setMirrorSelector(settings.mirrors());
        session.setAuthenticationSelector(settings.authentication());
        session.setProxySelector(settings.proxies(
                request.getOrDefault("proxy", List.of()), request.getOrDefault("exceptions", List.of())));
        session.setOffline(settings.isOffline());
        session.setConfigProperty("aether.connector.connectTimeout", CONNECT_TIMEOUT_MS);
        session.setConfigProperty("aether.connector.requestTimeout", REQUEST_TIMEOUT_MS);
        session.setSystemProperties(System.getProperties());
        return session;
    }

    private static String centralUrl() {
        try (InputStream pom = ModelBuilder.class.getResourceAsStream(SUPER_POM)) {
            Matcher url = Pattern.compile("<url>([^<]+)</url>")
                    .matcher(new String(pom.readAllBytes(), StandardCharsets.UTF_8));
            if (url.find()) {
                return url.group(1);
            }
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
        throw new IllegalStateException("Maven's own project names no repository");
    }
}
