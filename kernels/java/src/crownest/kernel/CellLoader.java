package crownest.kernel;

import java.io.File;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.HashMap;
import java.util.Map;
import jdk.jshell.execution.LoaderDelegate;
import jdk.jshell.spi.ExecutionControl.ClassBytecodes;
import jdk.jshell.spi.ExecutionControl.ClassInstallException;
import jdk.jshell.spi.ExecutionControl.InternalException;

/**
 * The class loader of everything that cells define and of the jars they add. It sees the JDK and
 * crownest.api, not the driver: a cell should not trip over anything of ours.
 */
final class CellLoader extends URLClassLoader implements LoaderDelegate {
    private static final String HIDDEN = "crownest.kernel.";

    private final Map<String, byte[]> undefined = new HashMap<>();

    CellLoader() {
        super("cells", new URL[0], CellLoader.class.getClassLoader());
    }

    @Override
    protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
        if (name.startsWith(HIDDEN)) {
            throw new ClassNotFoundException(name);
        }
        return super.loadClass(name, resolve);
    }

    /** For JShell, which asks for what it has loaded, and for loadClass(). */
    @Override
    public Class<?> findClass(String name) throws ClassNotFoundException {
        synchronized (getClassLoadingLock(name)) {
            Class<?> loaded = findLoadedClass(name);
            if (loaded != null) {
                return loaded;
            }
            byte[] bytes;
            synchronized (undefined) {
                bytes = undefined.remove(name);
            }
            return bytes == null ? super.findClass(name) : defineClass(name, bytes, 0, bytes.length);
        }
    }

    /** All of them before the first is defined: they may refer to each other. */
    @Override
    public void load(ClassBytecodes[] classes) throws ClassInstallException {
        synchronized (undefined) {
            for (ClassBytecodes one : classes) {
                undefined.put(one.name(), one.bytecodes());
            }
        }
        boolean[] installed = new boolean[classes.length];
        try {
            for (int i = 0; i < classes.length; i++) {
                // The members, so that what cannot be linked fails here and not later.
                findClass(classes[i].name()).getDeclaredMethods();
                installed[i] = true;
            }
        } catch (ReflectiveOperationException | LinkageError failed) {
            throw new ClassInstallException("load: " + failed, installed);
        }
    }

    @Override
    public void classesRedefined(ClassBytecodes[] classes) {
        throw new UnsupportedOperationException("classes of cells are replaced, not redefined");
    }

    /** Jars and directories, separated as in CLASSPATH. */
    @Override
    public void addToClasspath(String path) throws InternalException {
        try {
            for (String one : path.split(File.pathSeparator)) {
                if (!one.isEmpty()) {
                    addURL(new File(one).toURI().toURL());
                }
            }
        } catch (MalformedURLException failed) {
            throw new InternalException(failed.toString());
        }
    }
}
