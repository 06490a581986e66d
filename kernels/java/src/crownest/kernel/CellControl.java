package crownest.kernel;

import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import jdk.jshell.execution.LocalExecutionControl;

/**
 * What JShell runs snippets with: in this process, on the thread of UserCode. Keeps the value of
 * the last one, live, where JShell itself would ask it for its text.
 *
 * <p>Up to Java 19 a snippet is stopped by Thread.stop(). Since Java 20 that is gone, and
 * LocalExecutionControl weaves a check into every method and loop of a snippet instead. Its own
 * invoke() arms the check, so that one is called too, with a method that leads back here.
 */
final class CellControl extends LocalExecutionControl {
    private static final int THREAD_STOP_VERSION_MAX = 19;
    private static final boolean HAS_THREAD_STOP =
            Runtime.version().feature() <= THREAD_STOP_VERSION_MAX;

    private final UserCode userCode;
    private UserCode.Call last;
    /** What the detour runs. There is one driver in a process. */
    private static volatile Runnable detoured;

    CellControl(CellLoader loader, UserCode userCode) {
        super(loader);
        this.userCode = userCode;
    }

    /** The last snippet that ran: its value, or what it threw. */
    UserCode.Call last() {
        return last;
    }

    void forgetLast() {
        last = null;
    }

    /**
     * As the method that it replaces, which also calls System.out.flush() on the thread of JShell:
     * what a cell has put there may throw, and may not end. JShell passes over what goes wrong
     * here as if the snippet had run, so that is kept.
     */
    @Override
    public String invoke(String className, String methodName)
            throws RunException, InternalException, EngineTerminationException {
        try {
            Method doit = findClass(className).getDeclaredMethod(methodName);
            doit.setAccessible(true);
            clientCodeEnter();
            try {
                return invoke(doit);
            } finally {
                clientCodeLeave();
            }
        } catch (RunException thrown) {
            throw thrown;
        } catch (Exception | LinkageError failed) {
            failure = failed.toString();
            throw new InternalException(failure);
        }
    }

    private String failure;

    /** Why the last snippet was not run at all, or null. */
    String takeFailure() {
        String taken = failure;
        failure = null;
        return taken;
    }

    /** Never the text of the value, which nobody looks at. */
    @Override
    protected String invoke(Method doit) throws Exception {
        if (HAS_THREAD_STOP) {
            last = userCode.run(() -> call(doit));
        } else {
            detoured = () -> last = userCode.run(() -> call(doit));
            Method detour = CellControl.class.getDeclaredMethod("detour");
            detour.setAccessible(true);
            super.invoke(detour);
        }
        if (last.wasStopped()) {
            throw Failures.stopped(last.where());
        }
        if (last.thrown instanceof Exception described) {
            throw described;
        }
        if (last.thrown != null) {
            throw Failures.undescribed(last.thrown);
        }
        return "";
    }

    static void detour() {
        detoured.run();
    }

    /** On the tenant's thread: the text of an exception is code of the tenant, too. */
    private static Object call(Method doit) throws Exception {
        try {
            return doit.invoke(null);
        } catch (InvocationTargetException thrown) {
            if (thrown.getCause() instanceof ThreadDeath stop) {
                throw stop;
            }
            throw Failures.describe(thrown.getCause());
        } catch (LinkageError failed) {
            throw Failures.describe(failed);
        }
    }

    // === values of variables ===

    /** The live value of a variable of a snippet's class. Runs no code of the tenant. */
    @Override
    public String varValue(String className, String name) throws InternalException {
        try {
            Field field = findClass(className).getDeclaredField(name);
            field.setAccessible(true);
            variable = field.get(null);
            return "";
        } catch (ReflectiveOperationException | LinkageError failed) {
            variable = null;
            throw new InternalException(failed.toString());
        }
    }

    private Object variable;

    /** What the last `varValue` found. */
    Object takeVariable() {
        Object value = variable;
        variable = null;
        return value;
    }

    // === stopping ===

    /** Ends the snippet that is running. From any thread. */
    void interrupt() {
        userCode.interrupt(HAS_THREAD_STOP ? CellControl::stopThread : thread -> stopSnippets());
    }

    @SuppressWarnings({"removal", "deprecation"})
    private static void stopThread(Thread thread) {
        thread.stop();
    }

    private void stopSnippets() {
        try {
            super.stop();
        } catch (EngineTerminationException | InternalException cannotBeStopped) {
            return;
        }
    }

    /** JShell.stop() is not how this driver stops anything. */
    @Override
    public void stop() {
        interrupt();
    }
}
