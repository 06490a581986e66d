package crownest.resolver;

import java.io.File;
import java.util.ArrayList;
import java.util.List;
import org.apache.maven.settings.Mirror;
import org.apache.maven.settings.Profile;
import org.apache.maven.settings.Proxy;
import org.apache.maven.settings.Repository;
import org.apache.maven.settings.Server;
import org.apache.maven.settings.Settings;
import org.apache.maven.settings.building.DefaultSettingsBuilderFactory;
import org.apache.maven.settings.building.DefaultSettingsBuildingRequest;
import org.apache.maven.settings.building.SettingsBuildingException;
import org.eclipse.aether.repository.AuthenticationSelector;
import org.eclipse.aether.repository.MirrorSelector;
import org.eclipse.aether.repository.ProxySelector;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.util.repository.AuthenticationBuilder;
import org.eclipse.aether.util.repository.DefaultAuthenticationSelector;
import org.eclipse.aether.util.repository.DefaultMirrorSelector;
import org.eclipse.aether.util.repository.DefaultProxySelector;

/**
 * What ~/.m2/settings.xml says, and /etc/maven/settings.xml: mirrors, proxies, servers with a
 * password in plain text, repositories of active profiles. MAVEN_MIRROR_URL in the environment is
 * a mirror of everything, for where nobody writes files.
 */
final class MavenSettings {
    private static final String MIRROR_VARIABLE = "MAVEN_MIRROR_URL";
    private static final String GLOBAL = "/etc/maven/settings.xml";

    private final Settings settings;
    private final File home;

    private MavenSettings(Settings settings, File home) {
        this.settings = settings;
        this.home = home;
    }

    static MavenSettings read() throws SettingsBuildingException {
        String home = System.getenv("HOME");
        File maven = new File(home == null ? System.getProperty("user.home") : home, ".m2");
        DefaultSettingsBuildingRequest request = new DefaultSettingsBuildingRequest();
        request.setSystemProperties(System.getProperties());
        request.setUserSettingsFile(new File(maven, "settings.xml"));
        request.setGlobalSettingsFile(new File(GLOBAL));
        Settings settings = new DefaultSettingsBuilderFactory().newInstance().build(request).getEffectiveSettings();
        return new MavenSettings(settings, maven);
    }

    String localRepository() {
        String chosen = settings.getLocalRepository();
        return chosen != null && !chosen.isEmpty() ? chosen : new File(home, "repository").getPath();
    }

    boolean isOffline() {
        return settings.isOffline();
    }

    MirrorSelector mirrors() {
        DefaultMirrorSelector selector = new DefaultMirrorSelector();
        String everything = System.getenv(MIRROR_VARIABLE);
        if (everything != null && !everything.isEmpty()) {
            selector.add("environment", everything, "default", false, false, "*", "default");
        }
        for (Mirror mirror : settings.getMirrors()) {
            selector.add(mirror.getId(), mirror.getUrl(), mirror.getLayout(), false,
                    mirror.isBlocked(), mirror.getMirrorOf(), mirror.getMirrorOfLayouts());
        }
        return selector;
    }

    AuthenticationSelector authentication() {
        DefaultAuthenticationSelector selector = new DefaultAuthenticationSelector();
        for (Server server : settings.getServers()) {
            selector.add(server.getId(), new AuthenticationBuilder()
                    .addUsername(server.getUsername()).addPassword(server.getPassword()).build());
        }
        return selector;
    }

    /** Those of the settings, else that of the environment: `scheme`, `host`, `port` by turns. */
    ProxySelector proxies(List<String> ofEnvironment, List<String> exceptions) {
        DefaultProxySelector selector = new DefaultProxySelector();
        boolean isSet = false;
        for (Proxy proxy : settings.getProxies()) {
            if (proxy.isActive()) {
                isSet = true;
                add(selector, proxy);
            }
        }
        for (int i = 0; !isSet && i + 2 < ofEnvironment.size(); i += 3) {
            int port = Integer.parseInt(ofEnvironment.get(i + 2));
            // The protocol is that of the repository; the proxy itself is spoken to in HTTP.
            selector.add(new NamedProxy(ofEnvironment.get(i), ofEnvironment.get(i + 1), port).proxy(),
                    String.join("|", exceptions));
        }
        return selector;
    }

    private static void add(DefaultProxySelector selector, Proxy proxy) {
        AuthenticationBuilder login = new AuthenticationBuilder()
                .addUsername(proxy.getUsername()).addPassword(proxy.getPassword());
        selector.add(new org.eclipse.aether.repository.Proxy(
                proxy.getProtocol(), proxy.getHost(), proxy.getPort(), login.build()), proxy.getNonProxyHosts());
    }

    private record NamedProxy(String scheme, String host, int port) {
        org.eclipse.aether.repository.Proxy proxy() {
            return new org.eclipse.aether.repository.Proxy(scheme, host, port);
        }
    }

    List<RemoteRepository> repositories() {
        List<RemoteRepository> remotes = new ArrayList<>();
        List<String> active = settings.getActiveProfiles();
        for (Profile profile : settings.getProfiles()) {
            boolean isActive = active.contains(profile.getId())
                    || profile.getActivation() != null && profile.getActivation().isActiveByDefault();
            for (Repository one : isActive ? profile.getRepositories() : List.<Repository>of()) {
                remotes.add(new RemoteRepository.Builder(one.getId(), "default", one.getUrl()).build());
            }
        }
        return remotes;
    }
}
