"""State, values, errors: what a cell is."""

import pytest


def test_ready_says_what_it_is(context):
    assert context.ready["language"] == "python"
    assert context.ready["version"].startswith("3.")


def test_state_lives_from_cell_to_cell(context):
    assert context.run("x = 10").result is None
    context.run("y = x + 5")
    assert context.run("print(x, y)").out == "10 15\n"


def test_value_of_the_last_expression(context):
    run = context.run("result = 2 + 2\nresult")
    assert run.text == "4"
    assert run.status == "ok"
    assert run.of("result")[0]["count"] == run.events[-1]["count"] == 1


def test_only_the_last_expression_counts(context):
    assert context.run("1\n2\n3").text == "3"
    assert context.run("1\nx = 2").result is None
    assert context.run("None").result is None


def test_strings_are_themselves(context):
    import json

    run = context.run("import json\njson.dumps({'name': 'Alice', 'age': 25})")
    assert json.loads(run.text) == {"name": "Alice", "age": 25}
    assert context.run("['a']").text == "['a']"


@pytest.mark.parametrize("code", ["[1, 2];", "1 ;", "1; # quiet", "x = 'ä'\nx;"])
def test_semicolon_keeps_the_value_back(context, code):
    assert context.run(code).result is None


def test_semicolon_inside_does_not(context):
    assert context.run("'a;b'  # c;").text == "a;b"


def test_underscore(context):
    context.run("41")
    assert context.run("_ + 1").text == "42"
    assert context.run("__").text == "41"
    context.run("_ = 'mine'")
    context.run("7")
    assert context.run("_").text == "mine"


def test_stdout_and_stderr_are_apart(context):
    run = context.run("import sys\nprint('a')\nprint('b', file=sys.stderr)")
    assert (run.out, run.err) == ("a\n", "b\n")


def test_unicode(context):
    run = context.run("été = 'naïve 日本 🎉'\nprint(été)\nété")
    assert run.out == "naïve 日本 🎉\n"
    assert run.text == "naïve 日本 🎉"


def test_lone_surrogates_reach_nobody_raw(context):
    run = context.run("print('a\\udc80')\n'b\\ud800'")
    assert run.out == "a\\udc80\n"
    assert run.text == "b\\ud800"


def test_error_says_what_and_where(context):
    run = context.run("x = 1\ndef f():\n    return 1 / 0\nf()")
    assert run.status == "error"
    assert run.error["name"] == "ZeroDivisionError"
    assert run.error["message"] == "division by zero"
    assert run.error["line"] == 3
    text = "\n".join(run.error["traceback"])
    assert 'File "Cell 1", line 4' in text and "return 1 / 0" in text
    assert "crownest_kernel" not in text and "\x1b" not in text
    assert context.run("x").text == "1"


def test_error_line_is_that_of_this_cell(context):
    context.run("def f():\n    raise KeyError('k')")
    run = context.run("\n\n\nf()")
    assert run.error["line"] == 4
    assert run.error["message"] == "'k'"
    assert 'File "Cell 1", line 2' in "\n".join(run.error["traceback"])


def test_chained_errors(context):
    run = context.run("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('v') from e")
    text = "\n".join(run.error["traceback"])
    assert run.error["name"] == "ValueError"
    assert "ZeroDivisionError" in text and "direct cause" in text


def test_exception_group(context):
    run = context.run("raise ExceptionGroup('g', [ValueError('a'), KeyError('b')])")
    assert run.error["name"] == "ExceptionGroup"
    assert "ValueError: a" in "\n".join(run.error["traceback"])


def test_syntax_error(context):
    run = context.run("x = 1\nx = = 2")
    assert run.error["name"] == "SyntaxError"
    assert run.error["line"] == 2
    assert context.run("1+1").text == "2"


@pytest.mark.parametrize("code", ["'\0'", "(" * 300, "\ud800 = 1", "if True:", "  x = 1\n y = 2"])
def test_source_that_cannot_be_compiled(context, code):
    run = context.run(code)
    assert run.status == "error" and run.error["name"]
    assert context.run("1").text == "1"


def test_empty_cells(context):
    for code in ("", "\n\n", "# nothing", "pass"):
        assert context.run(code).status == "ok"


def test_windows_line_ends(context):
    assert context.run("x = 1\r\nx + 1\r\n").text == "2"


def test_redefinition(context):
    context.run("class A:\n    v = 1\ndef f(): return A.v")
    context.run("class A:\n    v = 2")
    assert context.run("f()").text == "2"


def test_recursion_error(context):
    run = context.run("def f(n): return f(n + 1)\nf(0)")
    assert run.error["name"] == "RecursionError"
    assert len(run.error["traceback"]) < 100
    assert context.run("1+1").text == "2"


def test_memory_error(context):
    context.run("import resource\nresource.setrlimit(resource.RLIMIT_AS, (2 << 30, -1))")
    run = context.run("b = bytearray(8 << 30)")
    assert run.error["name"] == "MemoryError"
    assert context.run("1+1").text == "2"


@pytest.mark.parametrize("code, message", [("exit()", ""), ("import sys; sys.exit(3)", "3"), ("quit('why')", "why")])
def test_exit_ends_the_run_not_the_context(context, code, message):
    context.run("kept = 5")
    run = context.run(code)
    assert (run.status, run.error["name"], run.error["message"]) == ("error", "SystemExit", message)
    assert context.run("kept").text == "5"


def test_real_main_module(context):
    run = context.run("import sys\ndef f(): pass\n(__name__, sys.modules['__main__'].f is f, f.__module__)")
    assert run.text == "('__main__', True, '__main__')"


def test_inspect_getsource(context):
    context.run("def f():\n    return 'source'")
    assert context.run("import inspect\ninspect.getsource(f)").text == "def f():\n    return 'source'\n"


def test_sources_kept_are_bounded(context):
    for number in range(600):
        context.run("v%d = %d" % (number % 3, number))
    run = context.run("import linecache\nlen([n for n in linecache.cache if n.startswith('Cell ')])")
    assert int(run.text) <= 512


def test_future_import_holds_for_later_cells(context):
    context.run("from __future__ import annotations")
    assert context.run("def f(a: undefined): pass\nf.__annotations__").text == "{'a': 'undefined'}"


def test_top_level_await(context):
    run = context.run("import asyncio\nasync def f():\n    await asyncio.sleep(0.001)\n    return 7\nawait f()")
    assert run.text == "7"
    context.run("task = asyncio.ensure_future(f())\nawait asyncio.sleep(0)")
    assert context.run("await task").text == "7"
    assert context.run("async with asyncio.Lock(): v = 1\nv").text == "1"
    assert context.run("[x async for x in (i async for i in agen())]") .error["name"] == "NameError"


def test_asyncio_run_in_a_plain_cell(context):
    assert context.run("import asyncio\nasync def f(): return 3\nasyncio.run(f())").text == "3"
    assert context.run("await f()").text == "3"
    assert context.run("asyncio.run(f())").text == "3"


def test_input_says_that_nobody_answers(context):
    for code in ("input('name? ')", "import getpass\ngetpass.getpass()", "from getpass import getpass\ngetpass()"):
        run = context.run(code)
        assert run.error["name"] == "StdinNotAvailable"
        assert "not available" in run.error["message"]
    assert context.run("import sys; sys.stdin.read()").text == ""


def test_working_directory(context, tmp_path):
    context.run("import os\nos.chdir('/usr')")
    assert context.run("os.getcwd()").text == "/usr"
    assert context.run("os.getcwd()", cwd="/etc").text == "/etc"
    assert context.run("os.getcwd()").text == "/usr"
    context.run("os.chdir('/usr/lib')", cwd="/etc")
    assert context.run("os.getcwd()").text == "/usr/lib"
    run = context.run("1", cwd="/no/such")
    assert run.error["name"] == "FileNotFoundError"


def test_modules_of_the_working_directory(context):
    context.run("import os, tempfile\nos.chdir(tempfile.mkdtemp())\nopen('helper_mod.py', 'w').write('V = 9')")
    assert context.run("import helper_mod\nhelper_mod.V").text == "9"


def test_cpu_time_is_reported(context):
    run = context.run("for _ in range(2_000_000): pass")
    assert 1_000 < run.events[-1]["cpu_us"] < 60_000_000


def test_environment(context):
    run = context.run("import os\n[n for n in os.environ if n.startswith('CROWNEST')], os.environ['HOME']")
    assert run.text.startswith("([], '/")


def test_unknown_operations_are_ignored(context):
    context.send({"op": "from-the-future", "x": 1})
    assert context.run("1").text == "1"


def test_several_thousand_cells(context):
    for number in range(2000):
        assert context.run("%d" % number).text == str(number)


def test_package_installed_while_the_context_lives(context):
    """As pip without root does it: into a directory that did not exist when Python started."""
    if context.run("import sys; sys.prefix != sys.base_prefix").text == "True":
        pytest.skip("a virtual environment has no user site")
    install = (
        "import os, sys, tempfile\n"
        "site = os.path.join(%s, '.local/lib/python%%d.%%d/site-packages' %% sys.version_info[:2])\n"
        "os.makedirs(site, exist_ok=True)\n"
        "name = 'late_%%d' %% os.getpid()\n"
        "open(os.path.join(site, name + '.py'), 'w').write('V = 1')\n"
        "mod = __import__(name)\nmod.V"
    )
    context.run("import tempfile; home = tempfile.mkdtemp()")
    home = context.run("home").text
    context.start("/tmp", {"HOME": home})
    assert context.run("import late_missing").error["name"] == "ModuleNotFoundError"
    assert context.run(install % "home").text == "1"
    run = context.run("open(os.path.join(site, 'later.py'), 'w').write('V = 2')\nimport later\nlater.V")
    assert run.text == "2"


@pytest.mark.parametrize("code", ["-" * 20_000 + "1", "+".join(["1"] * 20_000), "x" + ".y" * 20_000])
def test_deeply_nested_source(context, code):
    assert context.run(code).events[-1]["ev"] == "done"
    assert context.run("1").text == "1"


def test_a_library_that_was_only_looked_for_is_set_up_when_it_is_imported(context):
    run = context.run(
        "import importlib.util, sys, tempfile, os\nd = tempfile.mkdtemp(); sys.path.insert(0, d)\n"
        "os.mkdir(d + '/altair'); open(d + '/altair/__init__.py', 'w').write('class renderers:\\n"
        "    enabled = None\\n    @classmethod\\n    def enable(cls, name): cls.enabled = name\\n')\n"
        "[importlib.util.find_spec('altair') is not None for _ in range(3)]\nimport altair\naltair.renderers.enabled"
    )
    assert run.text == "mimetype", run.err


def test_a_library_of_another_version_can_be_imported(context):
    run = context.run(
        "import sys, tempfile, os\nd = tempfile.mkdtemp(); sys.path.insert(0, d)\n"
        "os.mkdir(d + '/altair'); open(d + '/altair/__init__.py', 'w').write('V = 1')\nimport altair\naltair.V"
    )
    assert run.text == "1" and "altair could not be set up" in run.err
