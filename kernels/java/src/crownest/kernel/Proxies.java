package crownest.kernel;

/** Proxies as environment variables name them, in the words of Java's system properties. */
final class Proxies {
    private static final int PORT_MAX = 65_535;

    private Proxies() {}

    record Address(String host, int port) {}

    /** Of `http://user@host:port/`; null where there is none that can be understood. */
    static Address parse(String url) {
        if (url == null) {
            return null;
        }
        int scheme = url.indexOf("://");
        String rest = scheme < 0 ? url : url.substring(scheme + 3);
        int path = rest.indexOf('/');
        rest = path < 0 ? rest : rest.substring(0, path);
        rest = rest.substring(rest.indexOf('@') + 1);
        int colon = rest.lastIndexOf(':');
        if (colon <= 0) {
            return null;
        }
        try {
            int port = Integer.parseInt(rest.substring(colon + 1));
            return port > 0 && port <= PORT_MAX ? new Address(rest.substring(0, colon), port) : null;
        } catch (NumberFormatException bad) {
            return null;
        }
    }

    /** `localhost,.corp,10.0.0.1` as `localhost|*.corp|10.0.0.1`. */
    static String exceptions(String list) {
        StringBuilder hosts = new StringBuilder("localhost|127.*|[::1]");
        for (String one : list == null ? new String[0] : list.split(",")) {
            String host = one.trim();
            if (host.isEmpty() || host.indexOf('|') >= 0) {
                continue;
            }
            hosts.append('|').append(host.startsWith(".") ? "*" + host : host);
        }
        return hosts.toString();
    }
}
