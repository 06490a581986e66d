package crownest.kernel;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;

/**
 * chdir(2) and setenv(3), through JNA, which has a class loader of its own: a cell that brings
 * another version of JNA gets that one.
 */
final class Native {
    private static final String DIRECTORY = "jna";

    private final Method function;
    private final Method invoke;

    Native(String home) {
        try {
            File directory = new File(home, DIRECTORY);
            URL[] jars = Jars.in(directory);
            System.setProperty("jna.boot.library.path", directory.getPath());
            System.setProperty("jna.nosys", "true");
            ClassLoader loader = new URLClassLoader(
                    "jna", jars, ClassLoader.getPlatformClassLoader());
            Class<?> type = Class.forName("com.sun.jna.Function", true, loader);
            function = type.getMethod("getFunction", String.class, String.class, int.class);
            invoke = type.getMethod("invokeInt", Object[].class);
            call("getpid");
        } catch (IOException | ReflectiveOperationException broken) {
            throw new IllegalStateException(broken);
        } finally {
            System.clearProperty("jna.boot.library.path");
            System.clearProperty("jna.nosys");
        }
    }

    void changeDirectory(String path) throws IOException {
        if (call("chdir", path) != 0) {
            throw new IOException("cannot enter " + path);
        }
    }

    void setEnvironment(String name, String value) throws IOException {
        if (call("setenv", name, value, 1) != 0) {
            throw new IOException("cannot set " + name);
        }
    }

    private int call(String name, Object... arguments) {
        try {
            return (Integer) invoke.invoke(function.invoke(null, "c", name, 0), (Object) arguments);
        } catch (InvocationTargetException failed) {
            throw new IllegalStateException(failed.getCause());
        } catch (IllegalAccessException changed) {
            throw new IllegalStateException(changed);
        }
    }
}
