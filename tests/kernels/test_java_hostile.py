"""Cells that break what the Java driver stands on: it survives, or its process ends. A run never
hangs that an interrupt cannot end, and no frame is malformed."""

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import harness
import launch
import pytest

# A quarter of a gibibyte, so that a cell that wants all memory gets it soon.
MEMINFO = "MemTotal:         262144 kB\n"

# After these the context must go on as if nothing had happened.
SURVIVED = [
    # Streams.
    "System.out.close(); System.err.close(); System.in.close();",
    "System.setOut(null); System.setErr(null); System.setIn(null);",
    (
        "System.setOut(new PrintStream(OutputStream.nullOutputStream()) { public void flush() { throw new Error(); } "
        "public boolean checkError() { throw new Error(); } public void println(String s) { throw new Error(); } });"
    ),
    "System.setErr(new PrintStream(new OutputStream() { public void write(int b) throws IOException { throw new IOException(); } }));",
    (
        "System.setErr(new PrintStream(OutputStream.nullOutputStream()) "
        '{ public void flush() { if (!Thread.currentThread().getName().equals("cell")) while (true) Thread.onSpinWait(); } });'
    ),
    "System.setIn(new InputStream() { public int read() { throw new Error(); } });",
    "new FileInputStream(FileDescriptor.in).close(); new FileOutputStream(FileDescriptor.out).close(); new FileOutputStream(FileDescriptor.err).close();",
    # Locks that the driver might want.
    (
        "for (Object o : List.of(System.out, System.err, System.in, Runtime.getRuntime(), System.class)) "
        "{ var held = new CountDownLatch(1); var t = new Thread(() -> { synchronized (o) { held.countDown(); "
        "while (true) try { Thread.sleep(1 << 30); } catch (InterruptedException again) { } } }); "
        "t.setDaemon(true); t.start(); held.await(); }"
    ),
    # Threads.
    "for (Thread t : Thread.getAllStackTraces().keySet()) if (t != Thread.currentThread()) t.interrupt();",
    "Thread.currentThread().interrupt();",
    "Thread.setDefaultUncaughtExceptionHandler((t, e) -> { throw new Error(); }); new Thread(() -> { throw new Error(); }).start();",
    'for (int i = 0; i < 200; i++) new Thread(() -> { throw new Error("x"); }).start();',
    "new Thread(() -> { while (true) Thread.onSpinWait(); }).start();",
    (
        'Thread.currentThread().setName("main"); Thread.currentThread().setPriority(1); '
        "Thread.currentThread().setContextClassLoader(null); Thread.currentThread().setUncaughtExceptionHandler((t, e) -> { throw new Error(); });"
    ),
    "throw new ThreadDeath();",
    "for (int i = 0; i < 100; i++) Runtime.getRuntime().addShutdownHook(new Thread(() -> { while (true) Thread.onSpinWait(); }));",
    # The machine.
    "int deep(int n) { return deep(n + 1) + 1; } deep(0)",
    "Object all() { var l = new ArrayList<Object>(); while (true) l.add(new long[1 << 16]); } all()",
    "new int[Integer.MAX_VALUE]",
    "new long[200_000_000]",
    "var kept = new ArrayList<byte[]>(); try { while (true) kept.add(new byte[1 << 20]); } finally { kept = null; }",
    "class Fin { protected void finalize() { while (true) Thread.onSpinWait(); } } for (int i = 0; i < 10; i++) { new Fin(); } System.gc();",
    "System.getProperties().clear();",
    "System.setProperties(new Properties());",
    'System.setProperty("user.dir", "/nowhere"); System.setProperty("crownest.home", "/nowhere"); System.setProperty("java.class.path", "");',
    'Locale.setDefault(new Locale("tr", "TR")); TimeZone.setDefault(TimeZone.getTimeZone("Pacific/Kiritimati"));',
    "System.setSecurityManager(new SecurityManager() { public void checkPermission(java.security.Permission p) { throw new SecurityException(); } });",
    "for (var p : java.security.Security.getProviders()) java.security.Security.removeProvider(p.getName());",
    'new File("gone").mkdir(); new ProcessBuilder("sh", "-c", "rm -rf ../*").start().waitFor();',
    # Values and exceptions.
    "new Object() { public String toString() { return toString(); } }",
    "new Object() { public String toString() { throw new ThreadDeath(); } }",
    "new Object() { public String toString() { return null; } }",
    "new Object() { public int hashCode() { throw new Error(); } public boolean equals(Object o) { throw new Error(); } }",
    'class Bundle { public Map<Object, Object> toMimeBundle() { return Map.of(5, 6, "image/png", "!", "text/plain", new Object(), "application/json", new Object[] {new Object()}); } } new Bundle()',
    "class Thrower { public Map<String, String> toMimeBundle() { throw new Error(); } } new Thrower()",
    "new AbstractList<Object>() { public int size() { return Integer.MAX_VALUE; } public Object get(int i) { return this; } }",
    "new AbstractMap<Object, Object>() { public Set<Map.Entry<Object, Object>> entrySet() { throw new Error(); } }",
    '"x".repeat(20_000_000)',
    '"\\u0000\\ud800\\udc00\\udfff\\uffff\\n"',
    "throw new Error() { public StackTraceElement[] getStackTrace() { return null; } public Throwable getCause() { return this; } public String getLocalizedMessage() { throw new Error(); } };",
    "throw new Error() { public StackTraceElement[] getStackTrace() { return new StackTraceElement[] {null}; } };",
    "class Odd extends Error { public String getMessage() { while (true) throw new Odd(); } } throw new Odd();",
    'var first = new Error("1"); var second = new Error("2", first); first.initCause(second); throw first;',
    "throw (RuntimeException) null;",
    "class Sneaky { static { if (true) throw new Error(); } } new Sneaky()",
    # Names of the driver's, and of what it stands on.
    "class Kernel { } class Engine { } class Driver { } class Display { } class JShell { } class REPL { }",
    "class Thread extends Error { } throw new Thread();",
    "void display(Object o) { } String input(String s) { return s; } int system = 1;",
    'int $1 = 5; String do_it$ = "x"; int $2 = $1;',
    'jdk.jshell.JShell.create().eval("1 + 1");',
    # Source.
    "(" * 5_000 + "1" + ")" * 5_000,
    "{" * 3_000 + "}" * 3_000,
    "int[] many = {" + "1," * 100_000 + "};",
    "1" + " + 1" * 20_000,
    'String s = "' + "x" * 70_000 + '"; s.length()',
    "System.out.print(1);" * 3_000,
    "\n".join(f"int v{n} = {n};" for n in range(60)),
    "} } } class X { {",
    "/* no end",
    '"no end',
    "\\u000a\\u007d\\u0022",
    "\0\x1a\0",
    "%\n%%\n%maven\n%classpath add \0\n%" + "x" * 100_000,
    "import no.such.Thing;",
    "package own; class X { }",
    "module own { }",
    "return 5;",
    "break;",
    "while (false) { }",
]

# These may cost the context, but then its process ends by itself.
ENDED = [
    "for (Thread t : Thread.getAllStackTraces().keySet()) if (t != Thread.currentThread()) t.stop();",
    'for (Thread t : Thread.getAllStackTraces().keySet()) if (t.getName().equals("kernel")) for (int i = 0; i < 50; i++) { t.stop(); Thread.sleep(1); }',
    "for (int i = 0; i < 2_000; i++) { var t = new Thread(() -> { while (true) try { Thread.sleep(1 << 30); } catch (InterruptedException e) { } }); t.setDaemon(true); t.start(); }",
    "Runtime.getRuntime().exit(3);",
    "Runtime.getRuntime().halt(3);",
    "new Thread(() -> System.exit(3)).start(); Thread.sleep(1 << 30);",
    'new ProcessBuilder("sh", "-c", "kill -SEGV $PPID").start().waitFor(); Thread.sleep(1 << 30);',
    'new ProcessBuilder("sh", "-c", "kill -TERM $PPID").start().waitFor(); Thread.sleep(1 << 30);',
    'var f = sun.misc.Unsafe.class.getDeclaredField("theUnsafe"); f.setAccessible(true); ((sun.misc.Unsafe) f.get(null)).putLong(0, 1);',
]


@pytest.fixture(scope="module")
def started():
    try:
        return launch.launch("java")
    except launch.Missing as reason:
        print(f"SKIP: no driver of java: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(str(reason))


@pytest.fixture
def driver(started, tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    directory = tmp_path / "here"
    directory.mkdir()
    peer = harness.Driver(
        argv=[*started.argv, str(meminfo)], env=started.env, cwd=directory
    )
    yield peer.start(directory)
    peer.close()
    # What a crashed JVM leaves.
    Path(f"/tmp/hs_err_pid{peer.process.pid}.log").unlink(missing_ok=True)


def interrupted(peer, code):
    peer.begin(code)
    peer.interrupt(frame=True)
    return peer.finish()


def lives(peer):
    """The context does what every other does."""
    assert peer.run("1 + 1").text == "2"
    run = peer.run('int before = 1; throw new IllegalStateException("after");')
    assert run.error["message"] == "java.lang.IllegalStateException: after"
    assert interrupted(peer, "while (true) { }").status == "interrupted"
    assert (
        interrupted(peer, "new java.util.concurrent.CountDownLatch(1).await();").status
        == "interrupted"
    )
    assert peer.run("int lives = 3; lives").text == "3"


def short(code):
    return re.sub(r"\W+", "-", code[:60])


@pytest.mark.parametrize("code", SURVIVED, ids=short)
def test_survived(driver, code):
    run = driver.run(code)
    assert len(run.of("done")) == 1
    lives(driver)


@pytest.mark.parametrize("code", ENDED, ids=short)
def test_survived_or_ended(driver, code):
    try:
        driver.run(code)
        lives(driver)
    except (harness.Died, BrokenPipeError, ConnectionResetError):
        driver.wait_death()
        assert driver.process.wait() != 0


def test_a_class_of_a_cell_that_is_named_like_one_that_everybody_uses(driver):
    """It hides that one, as Java wants it; the context goes on."""
    driver.run("class String { }\nclass System { }\nclass Exception { }")
    assert driver.run("1 + 1").text == "2"
    run = driver.run('java.lang.System.out.println("out");')
    assert run.out == "out\n"


def test_twenty_megabytes_at_once_and_line_by_line(driver):
    line = b"y" * 79 + b"\n"
    run = driver.run(
        'for (int i = 0; i < 250_000; i++) System.out.println("y".repeat(79));'
    )
    assert (
        hashlib.sha256(run.stdout).digest() == hashlib.sha256(line * 250_000).digest()
    )
    run = driver.run(
        "byte[] all = new byte[20_000_000]; Arrays.fill(all, (byte) 122); System.err.write(all);"
    )
    assert run.stderr == b"z" * 20_000_000
    lives(driver)


def test_output_of_many_threads_is_complete(driver):
    run = driver.run(
        "var threads = new ArrayList<Thread>();\n"
        "for (int i = 0; i < 8; i++) { int n = i; threads.add(new Thread(() -> {\n"
        '  for (int k = 0; k < 5000; k++) System.out.println(n + " " + k); })); }\n'
        "for (var t : threads) t.start();\nfor (var t : threads) t.join();"
    )
    assert sorted(run.out.splitlines()) == sorted(
        f"{n} {k}" for n in range(8) for k in range(5000)
    )


def test_an_exception_in_another_thread_is_told_on_stderr(driver):
    run = driver.run(
        'var t = new Thread(() -> { throw new IllegalStateException("elsewhere"); }, "other"); t.start(); t.join();'
    )
    assert run.error is None
    assert run.err.startswith(
        'Exception in thread "other" java.lang.IllegalStateException: elsewhere\n'
    )
    assert "crownest" not in run.err


def test_a_thread_of_a_cell_is_not_asked_for_input(driver):
    """And one that holds the stream's lock does not hold up the cell."""
    driver.run(
        "var started = new CountDownLatch(1); var reader = new Thread(() -> { synchronized (System.in) { "
        "started.countDown(); while (true) try { Thread.sleep(1 << 30); } catch (InterruptedException e) { } } });\n"
        "reader.setDaemon(true); reader.start(); started.await();\n"
        "var heard = new CompletableFuture<Integer>();"
    )
    driver.begin(
        "new Thread(() -> { try { heard.complete(System.in.read()); } catch (IOException e) { } }).start();\n"
        'heard.get() + input("? ")',
        input=True,
    )
    assert driver.finish(reply=lambda event: "mine").text == "-1mine"


def test_the_text_of_a_failure_is_interrupted_too(driver):
    """It is the tenant's code, wherever the driver asks for it."""
    driver.run(
        "class Slow extends RuntimeException { public String getMessage() {\n"
        '  System.out.println("go"); while (true) { } } }\n'
        "class Shown { public String toString() { throw new Slow(); } }"
    )
    for code in ("throw new Slow();", "new Shown()"):
        driver.begin(code)
        driver.wait_output(b"go\n")
        driver.interrupt(frame=True)
        assert driver.finish().status == "interrupted"
    driver.run("var shown = new Shown();")
    variables = driver.ask("variables", limit=10).answer["variables"]
    assert variables[-1]["preview"] == "(Slow)"
    lives(driver)


def test_a_shutdown_hook_that_does_not_end_is_ended_with_the_socket(driver):
    driver.run(
        "Runtime.getRuntime().addShutdownHook(new Thread(() -> { while (true) Thread.onSpinWait(); }));"
    )
    driver.begin('System.out.println("on my way"); System.exit(3);')
    driver.wait_output(b"on my way\n")
    driver.control.close()
    driver.wait_death()


def control_fd(driver):
    """Its number in the driver."""
    directory = f"/proc/{driver.process.pid}/fd"
    sockets = [
        fd
        for fd in os.listdir(directory)
        if os.readlink(f"{directory}/{fd}").startswith("socket:")
    ]
    assert len(sockets) == 1
    return sockets[0]


def descriptor(number):
    """A stream over a descriptor, by the door that is open for the driver."""
    return (
        "var make = FileDescriptor.class.getDeclaredConstructor(int.class); make.setAccessible(true);\n"
        f"var wire = new FileOutputStream(make.newInstance({number}));\n"
    )


def test_frames_that_a_cell_forges_stay_frames(driver):
    """It can say what it likes in its own name; the driver's frames are not cut by it."""
    driver.run(descriptor(control_fd(driver)))
    body = json.dumps({"ev": "notice", "run": 2, "code": "forged", "message": ""})
    run = driver.run(
        f"String body = {json.dumps(body)}; var frame = new ByteArrayOutputStream();\n"
        "new DataOutputStream(frame).writeInt(body.length()); frame.writeBytes(body.getBytes());\n"
        'for (int i = 0; i < 100; i++) { wire.write(frame.toByteArray()); display("y".repeat(100)); }'
    )
    assert len(run.of("notice")) == 100
    assert len(run.of("display")) == 100
    lives(driver)


def test_garbage_on_the_control_socket_is_all_that_is_lost(driver):
    """Init ends such a context. The driver itself goes on until the socket is closed."""
    driver.run(descriptor(control_fd(driver)))
    driver.begin("wire.write(new byte[] {1, 2, 3, 4, 5, 6, 7});")
    data = b""
    while b'"ev":"done"' not in data:
        data += driver.control.recv(1 << 16)
    assert data.startswith(bytes(range(1, 8)))
    driver.control.close()
    driver.wait_death()
    assert driver.process.wait() == 0


def test_a_closed_control_socket_ends_the_driver(driver):
    driver.run(descriptor(control_fd(driver)))
    with pytest.raises(harness.Died):
        driver.run("wire.close();")
    driver.wait_death()
