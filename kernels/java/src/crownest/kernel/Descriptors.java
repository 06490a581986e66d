package crownest.kernel;

import java.io.FileDescriptor;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

/**
 * File descriptors by number, which Java has no way to name. Everything here needs the packages
 * that the jar's manifest opens (`Add-Opens: java.base/java.io java.base/sun.nio.ch`):
 * the constructor of FileDescriptor, its field, and dup and dup2 of the class behind
 * System.inheritedChannel(). That call itself is of no use: it takes fd 0 only, and puts /dev/null
 * in the place of fds 0 to 2.
 */
final class Descriptors {
    static final int STDOUT = 1;
    static final int STDERR = 2;

    private static final Method DUP = native_("dup", int.class);
    private static final Method DUP2 = native_("dup2", int.class, int.class);

    private Descriptors() {}

    /** The descriptor `number` of this process. */
    static FileDescriptor of(int number) {
        try {
            Constructor<FileDescriptor> byNumber = FileDescriptor.class.getDeclaredConstructor(int.class);
            byNumber.setAccessible(true);
            return byNumber.newInstance(number);
        } catch (ReflectiveOperationException changed) {
            throw new IllegalStateException(changed);
        }
    }

    /** A duplicate of `number`. Not close-on-exec; Java closes all above 2 in each child. */
    static int duplicate(int number) {
        return (Integer) call(DUP, number);
    }

    /**
     * Code that closes a stream over FileDescriptor.out gets /dev/null in the place of fd 1 from
     * Java itself. Takes that back.
     */
    static void restore(FileDescriptor standard, int number, int saved) {
        if (standard.valid()) {
            return;
        }
        call(DUP2, saved, number);
        try {
            Field field = FileDescriptor.class.getDeclaredField("fd");
            field.setAccessible(true);
            field.setInt(standard, number);
        } catch (ReflectiveOperationException changed) {
            throw new IllegalStateException(changed);
        }
    }

    private static Method native_(String name, Class<?>... parameters) {
        try {
            Class<?> owner = Class.forName("sun.nio.ch.InheritedChannel");
            Method method = owner.getDeclaredMethod(name, parameters);
            method.setAccessible(true);
            return method;
        } catch (ReflectiveOperationException changed) {
            throw new IllegalStateException(changed);
        }
    }

    private static Object call(Method method, Object... arguments) {
        try {
            return method.invoke(null, arguments);
        } catch (InvocationTargetException failed) {
            throw new IllegalStateException(failed.getCause());
        } catch (IllegalAccessException changed) {
            throw new IllegalStateException(changed);
        }
    }
}
