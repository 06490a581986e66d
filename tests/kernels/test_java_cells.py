"""The Java kernel beyond the sessions of kernels/conformance: how cells are cut, what they leave."""

import signal
import sys

import harness
import launch
import pytest


@pytest.fixture(scope="module")
def started():
    try:
        return launch.launch("java")
    except launch.Missing as reason:
        print(f"SKIP: no driver of java: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(str(reason))


@pytest.fixture
def driver(started, tmp_path):
    peer = harness.Driver(argv=started.argv, env=started.env, cwd=tmp_path).start(
        tmp_path
    )
    yield peer
    peer.close()


@pytest.fixture
def small(started, tmp_path):
    """A driver that is told of a machine with little memory."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:         262144 kB\n")
    peer = harness.Driver(
        argv=[*started.argv, str(meminfo)], env=started.env, cwd=tmp_path
    )
    yield peer.start(tmp_path)
    peer.close()


def interrupted(peer, code, after="go\n", **fields):
    peer.begin(f'System.out.println("go");\n{code}', **fields)
    peer.wait_output(after.encode())
    peer.interrupt(frame=True)
    return peer.finish()


# === how a cell is cut ===

PIECES = [
    ("int a = 1, b = 2; a + b", "3"),
    ("int x = 1;;; ; x", "1"),
    ("if (true) System.out.print(1); else System.out.print(2);\n5", "5"),
    ("do { } while (false);\nint y = 2; y", "2"),
    ("int n = 0; do n++; while (n < 3); n", "3"),
    ("int m = 0; outer: for (;;) { while (true) { m++; break outer; } }\nm", "1"),
    (
        "try { throw new RuntimeException(); } catch (RuntimeException e) { } finally { }\n6",
        "6",
    ),
    ("Runnable r = () -> { int z = 1; };\n7", "7"),
    (
        "int[] list = {1, 2, 3}; int[][] deep = new int[][] {{1}}; list.length + deep.length",
        "4",
    ),
    (
        'var o = new Object() { public String toString() { return "anonymous"; } };\no',
        "anonymous",
    ),
    (
        "@FunctionalInterface interface F { int f(int x); }\nF f = x -> x + 1; f.f(1)",
        "2",
    ),
    (
        '@SuppressWarnings("unchecked") static <T> T same(T t) { return t; }\nsame("s")',
        "s",
    ),
    ("enum Color { RED, GREEN; int n() { return 9; } }\nColor.RED.n()", "9"),
    ('record Pair<A, B>(A a, B b) { Pair { } }\nnew Pair<>(1, "b")', "Pair[a=1, b=b]"),
    ("int record = 4; record + 1", "5"),
    ("int v = switch (3) { case 3 -> { yield 8; } default -> 0; };\nv", "8"),
    ("void f() throws Exception { }\nf();\n10", "10"),
    ('char c = \'}\'; String s = "{ \\" // no comment"; /* { */ s.length() + c', "142"),
    ("int i = 5;\ni++;\n++i;\ni -= 2;\ni >>= 1;\ni", "2"),
    ("boolean less = 1 < 2; less && 3 >= 3", "true"),
    (
        "import java.time.*; import static java.lang.Math.max;\nmax(1, 2) + Duration.ofDays(1).toHours()",
        "26",
    ),
    (
        "abstract class A { abstract int a(); }\nnew A() { int a() { return 3; } }.a()",
        "3",
    ),
    ("int total = 0; for (int k : List.of(1, 2)) total += k; total", "3"),
    ("synchronized (this.getClass()) { }\n1", None),
    ('String t = """\n  a "quoted" } text\n  """; t.strip()', 'a "quoted" } text'),
    ("long big = 1_000L; double d = .5 + 1e3; float g = 0x1p3f; big + d + g", "2008.5"),
    ("List<Map<String, List<Integer>>> g = new ArrayList<>(); g.size()", "0"),
    ("/** Doc. */\nint documented() { return 1; }\n// tail\ndocumented() // end", "1"),
    # The last expression is worth what it is without anybody who expects a type.
    ("(switch (1) { case 1 -> 1; default -> 2.0; })", "1.0"),
    ("true ? 1 : 2.0", "1.0"),
    ("true ? 1 : 'a'", "\x01"),
    ("true ? null : 0", "null"),
    ("int w = 1; w = 5", "5"),
    ("int u = 1; u++", "1"),
    ("2 // (", "2"),
    ("1) + (2", None),
    ("1, q = 2", None),
    ("() -> 1", None),
]


@pytest.mark.parametrize(("code", "text"), PIECES)
def test_a_cell_is_cut_where_java_does(shared, code, text):
    run = shared.run(code)
    if text is None:
        assert run.error["name"] == "CompilationError"
    else:
        assert run.error is None, run.error
        assert run.text == text


def test_one_that_waits_has_run_its_cells_before_it_is_ready(started, tmp_path):
    """Nothing of what it has run is seen, and nothing that javac is asked for is new to it."""
    argv = [*started.argv, "/proc/meminfo"]
    seconds = {}
    for kind in ("at once", "spare"):
        peer = harness.Driver(
            argv=argv + ["spare"] * (kind == "spare"), env=started.env, cwd=tmp_path
        ).start(tmp_path)
        try:
            run = peer.run("1+1")
            seconds[kind] = run.seconds
            assert (run.text, run.of("result")[0]["count"]) == ("2", 1)
            assert (run.out, run.err) == ("", "")
            assert peer.ask("variables", limit=10).answer == {
                "variables": [],
                "omitted": 0,
            }
            assert peer.run("crownest$1").error["name"] == "CompilationError"
        finally:
            peer.close()
    assert seconds["spare"] < seconds["at once"] / 2, seconds


@pytest.fixture(scope="module")
def shared(started, tmp_path_factory):
    """One context for cells that leave nothing behind that matters to the others."""
    directory = tmp_path_factory.mktemp("shared")
    peer = harness.Driver(argv=started.argv, env=started.env, cwd=directory).start(
        directory
    )
    yield peer
    peer.close()


RECORDS = [
    (
        "record Even(int n) { Even { if (n % 2 == 1) throw new IllegalArgumentException(); } }\nnew Even(2)",
        "Even[n=2]",
    ),
    (
        "record Sum(int n) { Sum(int n) { this.n = n + 1; } Sum(int a, int b) { this(a + b); } }\nnew Sum(1, 2)",
        "Sum[n=4]",
    ),
    (
        "record Own(int n) { static Own of(int n) { return new Own(n); } @Deprecated public Own { } }\nOwn.of(1)",
        "Own[n=1]",
    ),
    (
        (
            'record Made(List<Integer> n) { static final int[] K = {1, 2}; @SuppressWarnings("x") Made { } '
            "Made with() { return this; } }\nnew Made(List.of(1)).with()"
        ),
        "Made[n=[1]]",
    ),
]


@pytest.mark.parametrize(("code", "text"), RECORDS)
def test_a_record_has_constructors_of_its_own(shared, code, text):
    run = shared.run(code)
    assert run.error is None, run.error
    assert run.text == text


def test_what_is_wrong_in_a_record_is_where_it_stands(shared):
    run = shared.run("record Wrong(int n) { Wrong { int m = true; } }")
    assert run.error["traceback"][:3] == [
        f"Cell {run.events[-1]['count']}:1: error: incompatible types: boolean cannot be converted to int",
        "record Wrong(int n) { Wrong { int m = true; } }",
        "                                      ^",
    ]


NOT_JAVA = [
    ('System.out.println("never");\nint z = 5 System.out.println("lost");', 2),
    (
        'System.out.println("never"); System.out.println("a") System.out.println("b");',
        1,
    ),
    ("int q = 5\nq + 1", 1),
    ("int f( {", 1),
    ('System.out.println("never");\nString s = "abc', 2),
    ('System.out.println("never");\n}', 2),
    ("1 2", 1),
    ("foo bar baz", 1),
    ("class X { } junk", 1),
    ("1 + 1 )", 1),
    ('String b = "\\u00zz";', 1),
]


@pytest.mark.parametrize(("code", "line"), NOT_JAVA)
def test_what_is_no_java_is_refused_as_a_whole(shared, code, line):
    run = shared.run(code)
    assert run.error is not None
    assert run.error["name"] == "CompilationError"
    assert run.error["line"] == line
    assert run.out == ""


def test_statements_that_are_compiled_together_keep_their_lines(driver):
    run = driver.run(
        'System.out.print(1);\nSystem.out.print(2);\n\nthrow new RuntimeException("here");\n'
    )
    assert (run.out, run.error["name"], run.error["line"]) == ("12", "EvalException", 4)
    assert run.error["message"] == "java.lang.RuntimeException: here"
    run = driver.run("System.out.print(1);\nmissing();\nSystem.out.print(3);")
    assert (run.out, run.error["name"], run.error["line"]) == (
        "1",
        "CompilationError",
        2,
    )
    assert run.error["traceback"] == [
        "Cell 2:2: error: cannot find symbol",
        "missing();",
        "^",
        "  symbol:   method missing()",
    ]


def test_names_that_every_cell_has_are_there_at_once(driver):
    run = driver.run(
        "Stream.of(1).map(Function.identity()).collect(Collectors.toList()).size()"
        " + BigDecimal.ONE.intValue() + new ConcurrentHashMap<String, Pattern>().size()"
        ' + Path.of("").getNameCount() + URI.create("a:b").getPort()'
    )
    assert run.text == "2", run.error


FIRST = [
    (
        "class Uses { Map<String, Integer> map = new HashMap<>(); }\nnew Uses().map",
        "{}",
    ),
    ('List<String> names = new ArrayList<>(List.of("a"));\nnames', "[a]"),
    (
        "int sum(List<Integer> n) { return n.stream().mapToInt(i -> i).sum(); }\nsum(List.of(1, 2))",
        "3",
    ),
    ("int runs = 0;\nStream<Integer> made = Stream.of(++runs);\nruns", "1"),
]


@pytest.mark.parametrize(("code", "text"), FIRST)
def test_the_first_cell_has_them_too(driver, code, text):
    """It comes before the names are imported."""
    run = driver.run(code)
    assert (run.text, run.error, run.of("notice")) == (text, None, [])


def test_count_goes_up_with_every_cell(driver):
    counts = [
        driver.run(code).events[-1]["count"] for code in ("1", "", "nonsense(", "2")
    ]
    assert counts == [1, 2, 3, 4]


# === streams ===


def test_streams_that_are_closed_or_replaced_come_back(driver):
    assert (
        driver.run(
            'System.out.close(); System.in.close();\nSystem.out.println("on");'
        ).out
        == "on\n"
    )
    driver.run("new FileOutputStream(FileDescriptor.out).close();")
    run = driver.run(
        'System.out.println("own"); new ProcessBuilder("echo", "child").inheritIO().start().waitFor();'
    )
    assert run.out == "own\nchild\n"
    driver.run(
        "var ours = System.out; var kept = new ByteArrayOutputStream(); System.setOut(new PrintStream(kept));"
    )
    assert driver.run('System.out.print("inside");').out == ""
    assert driver.run("System.setOut(ours); kept.toString()").text == "inside"


def test_part_of_a_line_comes_at_the_end_of_the_run_and_before_an_exit(driver):
    run = driver.run('System.out.print("part"); display(1); System.err.print("of");')
    assert (run.out, run.err) == ("part", "of")


def test_a_pipe_that_a_child_made_non_blocking_loses_nothing(driver):
    driver.run(
        'new ProcessBuilder("python3", "-c", "import os; os.set_blocking(1, False)")'
        ".inheritIO().start().waitFor();"
    )
    run = driver.run(
        'for (int i = 0; i < 20_000; i++) System.out.println("x".repeat(99));'
    )
    assert len(run.stdout) == 2_000_000


def test_children_get_no_descriptor_of_the_driver(driver):
    run = driver.run(
        'new ProcessBuilder("ls", "/proc/self/fd").inheritIO().start().waitFor();'
    )
    assert run.out.split() == ["0", "1", "2", "3"]  # 3 is that of ls


# === interrupts ===


def test_an_interrupt_that_comes_before_its_run_is_kept(driver):
    driver.send({"op": "interrupt", "run": 1})
    run = driver.run('System.out.println("never");')
    assert (run.status, run.out) == ("interrupted", "")
    driver.send({"op": "interrupt", "run": 1})
    assert driver.run("1 + 1").text == "2"


def test_a_signal_alone_does_nothing(driver):
    for _ in range(20):
        signal.pidfd_send_signal(driver.pidfd, signal.SIGINT)
    assert driver.run("1 + 1").text == "2"


def test_the_text_of_a_value_is_interrupted(driver):
    driver.run(
        'class Slow { public String toString() { System.out.println("go"); while (true) {} } }'
    )
    driver.begin("new Slow()")
    driver.wait_output(b"go\n")
    driver.interrupt(frame=True)
    run = driver.finish()
    assert (run.status, run.error["name"]) == ("interrupted", "InterruptedException")
    assert driver.run("1 + 1").text == "2"


def test_a_run_is_interrupted_between_its_pieces(driver):
    code = "\n".join(f"int v{i} = 1; System.out.println({i});" for i in range(200))
    run = interrupted(driver, code, after="go\n0\n")
    assert (run.status, run.error["name"]) == ("interrupted", "InterruptedException")
    assert run.error["line"] > 1
    assert driver.run("v0").text == "1"


def test_waiting_for_input_is_interrupted(driver):
    driver.begin("new Scanner(System.in).nextLine()", input=True)
    assert driver.event()["ev"] == "input"
    driver.interrupt(frame=True)
    assert driver.finish().status == "interrupted"
    driver.begin("new Scanner(System.in).nextLine()", input=True)
    run = driver.finish(reply=lambda event: "line")
    assert run.text == "line"


def test_many_interrupts_end_one_run(driver):
    driver.begin('System.out.println("go");\nwhile (true) {}')
    driver.wait_output(b"go\n")
    for _ in range(10):
        driver.interrupt(frame=True)
    assert driver.finish().status == "interrupted"
    for _ in range(5):
        assert driver.run("1 + 1").text == "2"


# === errors ===


def test_an_exception_of_the_tenants_may_be_broken(driver):
    run = driver.run(
        "class Broken extends RuntimeException {\n"
        '  public String getMessage() { throw new RuntimeException("no"); }\n'
        "  public Throwable getCause() { return this; }\n"
        "}\nthrow new Broken();"
    )
    assert run.error["name"] == "EvalException"
    assert (
        run.error["message"]
        == "Broken: (the message could not be shown: java.lang.RuntimeException)"
    )
    run = driver.run('throw new RuntimeException("x".repeat(5_000_000));')
    assert len(run.error["message"]) < 64 * 1024
    assert "characters more" in run.error["message"]
    assert sum(map(len, run.error["traceback"])) < 1024 * 1024


def test_recursion_without_end_and_memory_without_end_are_errors(small):
    small.run("int kept = 1;")
    run = small.run("int deep(int n) { return deep(n + 1) + 1; }\ndeep(0)")
    assert (run.error["name"], run.error["message"]) == (
        "EvalException",
        "java.lang.StackOverflowError",
    )
    assert len(run.error["traceback"]) <= 401
    run = small.run(
        "{ var all = new ArrayList<byte[]>(); while (true) all.add(new byte[1 << 20]); }"
    )
    assert run.error["name"] == "EvalException"
    assert run.error["message"] == "java.lang.OutOfMemoryError: Java heap space"
    assert small.run("kept").text == "1"


def test_memory_that_a_variable_holds_can_be_given_back(small):
    small.run("var all = new ArrayList<Object>();")
    run = small.run("while (true) all.add(new byte[400]);")
    assert run.error["message"].startswith("java.lang.OutOfMemoryError"), run.error
    assert small.run("all = null;").error is None
    assert small.run("1 + 1").text == "2"


def test_a_run_ends_where_not_a_byte_is_left(small):
    small.run("Object[] all = null;")
    fill = """
        for (int length = 1 << 20; length > 0; length /= 2) {
            try {
                while (true) { Object[] next = new Object[length]; next[0] = all; all = next; }
            } catch (OutOfMemoryError full) { }
        }
    """
    for _ in range(2):
        run = small.run(fill)
        assert run.status == "ok" or run.error["message"].startswith("java.lang.OutOfMemoryError")
        assert small.ask("variables").status in ("ok", "error")


def test_a_static_initializer_that_fails(driver):
    driver.run('class Bad { static int v = 1 / Integer.parseInt("0"); }')
    assert (
        driver.run("Bad.v")
        .error["message"]
        .startswith("java.lang.ExceptionInInitializerError")
    )
    assert (
        driver.run("Bad.v")
        .error["message"]
        .startswith("java.lang.NoClassDefFoundError")
    )


def test_what_an_interrupted_run_throws_is_named_for_the_interrupt(driver):
    run = interrupted(
        driver,
        "try { Thread.sleep(600_000); } finally { throw new IllegalStateException(); }",
    )
    assert (run.status, run.error["name"]) == ("interrupted", "InterruptedException")
    assert run.error["message"] == "java.lang.IllegalStateException"


# === values ===


def test_values_that_are_too_large_are_left_out_and_named(driver):
    run = driver.run('"x".repeat(9_000_000)')
    (result,) = run.of("result")
    assert result["data"] == {}
    assert result["metadata"]["crownest"]["omitted"] == [
        {"mime": "text/plain", "bytes": 9_000_000}
    ]
    run = driver.run("new int[10_000_000]")
    assert "(9999000 more)" in run.text


def test_values_that_refer_to_themselves(driver):
    run = driver.run("var self = new ArrayList<Object>(); self.add(self); self")
    assert run.error is None
    run = driver.run(
        "Object deep = List.of(); for (int i = 0; i < 5000; i++) deep = List.of(deep);\ndeep"
    )
    assert "application/json" not in run.result


def test_a_text_with_half_a_pair_arrives(driver):
    assert driver.run('"a\\ud800b"').text == "a\\ud800b"


def test_nothing_of_the_driver_is_seen(driver):
    run = driver.run('Class.forName("crownest.kernel.Kernel")')
    assert (
        run.error["message"]
        == "java.lang.ClassNotFoundException: crownest.kernel.Kernel"
    )
    run = driver.ask("complete", code="crownest.", cursor=9)
    assert [match["text"].rstrip(".") for match in run.answer["matches"]] == ["api"]


# === class path ===


def test_jars_and_directories_of_the_working_directory(driver, tmp_path):
    driver.run(
        'Files.writeString(Path.of("Hello.java"), "package own; public class Hello { public static String hi() { return \\"hi\\"; } }");\n'
        'javax.tools.ToolProvider.getSystemJavaCompiler().run(null, null, null, "-d", "classes", "Hello.java");'
    )
    assert driver.run("own.Hello.hi()").error["name"] == "CompilationError"
    assert driver.run("%classpath add classes\nown.Hello.hi()").text == "hi"
    assert driver.run("%classpath").out == f"{tmp_path}/classes\n"
    assert driver.run("%classpath add no/such.jar").error["name"] == "MagicError"
    assert driver.run("%jars lib/*.jar").error["message"] == "nothing matches lib/*.jar"
    assert driver.run("%nonsense").error["line"] == 1


# === the end ===


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ('System.out.print("part"); System.exit(3);', 3),
        ("new Thread(() -> System.exit(4)).start(); Thread.sleep(60_000);", 4),
        ("Runtime.getRuntime().halt(5);", 5),
    ],
)
def test_an_exit_ends_the_context_with_its_code(driver, code, status):
    driver.begin(code)
    driver.wait_death()
    assert driver.process.wait() == status
    driver.drain(driver.stdout)
    assert bytes(driver.pipes[driver.stdout]) == (b"part" if "part" in code else b"")


def test_the_driver_ends_with_its_socket(driver):
    driver.run("new Thread(() -> { while (true) Thread.onSpinWait(); }).start();")
    driver.control.close()
    driver.wait_death()
    assert driver.process.wait() == 0
