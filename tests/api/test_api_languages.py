"""Languages: each one's cells, the words for it, its versions, its spare drivers, its tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from rest import Sandbox, connect, open_directory, refusal, text, until
from server import TEMPLATES, Server, missing

ALL = "code-interpreter"
# What a cell of each language looks like: it keeps something, shows it, fails, goes on.
CELLS = {
    "python": {
        "keep": "kept = 6 * 7",
        "show": "kept",
        "print": "print(kept)",
        "fail": "ok = 1\nmissing_name",
        "error": "NameError",
    },
    "javascript": {
        "keep": "const kept = 6 * 7",
        "show": "kept",
        "print": "console.log(kept)",
        "fail": "let ok = 1\nmissingName",
        "error": "ReferenceError",
    },
    "typescript": {
        "keep": "const kept: number = 6 * 7",
        "show": "kept as number",
        "print": "console.log(kept)",
        "fail": "let ok: number = 1\nmissingName",
        "error": "ReferenceError",
    },
    "bash": {
        "keep": "kept=$((6 * 7))",
        "show": None,
        "print": "echo $kept",
        "fail": "true\nfalse",
        "error": "ExitCode",
    },
    "java": {
        "keep": "int kept = 6 * 7;",
        "show": "kept",
        "print": "System.out.println(kept);",
        "fail": 'int ok = 1;\nthrow new IllegalStateException("x");',
        "error": "EvalException",
    },
    "go": {
        "keep": "kept := 6 * 7",
        "show": "kept",
        "print": "fmt.Println(kept)",
        "fail": 'ok := 1; _ = ok\npanic("x")',
        "error": "panic",
    },
}
ALIASES = {
    "py": "python",
    "python3": "python",
    "js": "javascript",
    "node": "javascript",
    "ts": "typescript",
    "sh": "bash",
    "shell": "bash",
    "golang": "go",
}
NODE = "process.version.slice(1).split('.')[0]"
# A cold Go or Java on a busy machine.
RUN_MS_MAX = 120_000


def not_built(slug: str) -> str | None:
    if (TEMPLATES / slug / "current" / "rootfs").exists():
        return None
    return f"template {slug} is not built (crownest template build {slug})"


def needs(language: str) -> None:
    """Skips what the template that is built here has no kernel for."""
    manifest = json.loads((TEMPLATES / ALL / "current" / "template.json").read_text())
    if language not in manifest["languages"]:
        pytest.skip(f"template {ALL} has no kernel for {language}")


def metric(server: Server, name: str) -> float:
    lines = httpx.get(server.url + "/metrics", trust_env=False).text.splitlines()
    found = [line for line in lines if line.split(" ")[0].split("{")[0] == f"crownest_{name}"]
    assert found, f"no metric {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@pytest.fixture(scope="module")
def everything(client: httpx.Client) -> Iterator[Sandbox]:
    """A sandbox with every language, shared: tests use contexts of their own."""
    if reason := not_built(ALL):
        pytest.skip(reason)
    sandbox = Sandbox.create(client, template=ALL)
    yield sandbox
    sandbox.kill()


@pytest.fixture(scope="module")
def node_server() -> Iterator[tuple[Server, httpx.Client]]:
    """A server that keeps a sandbox of `node` ready, its interpreters started."""
    if reason := missing() or not_built("node"):
        pytest.skip(reason)
    options = ("--pool", "0", "--pool-templates", "node=1")
    with (
        open_directory() as directory,
        Server(directory / "data", *options) as server,
        connect(server) as client,
    ):
        yield server, client


@pytest.mark.parametrize("language", CELLS)
def test_a_language_keeps_shows_prints_fails_and_goes_on(everything: Sandbox, language: str):
    needs(language)
    cells = CELLS[language]
    context = everything.context(language=language, timeoutMs=RUN_MS_MAX)

    def run(what: str) -> dict[str, Any]:
        answer = everything.run(
            cells[what], language=language, contextId=context, timeoutMs=RUN_MS_MAX
        )
        assert (answer["outcome"], answer["language"]) == ("completed", language), answer
        return answer

    first = run("keep")
    assert "error" not in first, first
    if cells["show"]:
        assert text(run("show")) == "42"
    assert "".join(run("print")["stdout"]) == "42\n"
    error = run("fail")["error"]
    assert cells["error"] in error["name"], error
    assert error["line"] == 2 or "\n" not in cells["fail"].strip(), error
    after = run("print")
    assert "error" not in after and "".join(after["stdout"]) == "42\n", after
    assert after["executionCount"] > first["executionCount"]


def test_contexts_of_one_language_share_nothing(everything: Sandbox):
    one, other = (everything.context(language="javascript") for _ in range(2))
    everything.run("globalThis.mine = 1", language="javascript", contextId=one)
    kept = everything.value("typeof mine", language="javascript", contextId=other)
    assert kept == "undefined"


@pytest.mark.parametrize("word", ALIASES)
def test_other_words_are_answered_with_the_one_that_counts(make, word: str):
    if reason := not_built(ALL):
        pytest.skip(reason)
    needs(ALIASES[word])
    sandbox: Sandbox = make(template=ALL)
    body = {"language": word, "timeoutMs": RUN_MS_MAX}
    answer = sandbox.client.post(f"{sandbox.path}/code/contexts", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["context"]["language"] == ALIASES[word]
    if ALIASES[word] in ("python", "javascript"):
        # The default context is the same, whichever word asks for it.
        first = sandbox.run("1", language=word)
        second = sandbox.run("1", language=ALIASES[word])
        assert first["language"] == second["language"] == ALIASES[word]
        assert first["contextId"] == second["contextId"]


def test_a_language_that_is_none_is_refused_with_those_that_are(sandbox: Sandbox):
    for word in ("cobol", "Python", "java script", "", "x" * 1000):
        error = refusal(sandbox.ask("1", language=word), 400, "unsupported_code_language")
        assert {"python", "javascript", "bash"} <= set(error["details"]["languages"])
        assert len(error["message"]) < 200


def test_a_template_has_the_languages_that_it_has(make):
    if reason := not_built("node"):
        pytest.skip(reason)
    sandbox: Sandbox = make(template="node")
    for word in ("python", "java", "go"):
        error = refusal(sandbox.ask("1", language=word), 400, "unsupported_code_language")
        assert error["details"]["languages"] == ["javascript", "typescript", "bash"]
        assert "template node" in error["message"]


def test_a_context_of_node_runs_both_of_its_languages(everything: Sandbox):
    context = everything.context(language="javascript")
    typed = "enum Color { Red = 40 }\nconst color: Color = Color.Red"
    assert everything.run(typed, language="typescript", contextId=context)["language"] == (
        "typescript"
    )
    assert everything.value("color + 2", language="javascript", contextId=context) == "42"
    wrong = everything.run("const x: number = 1", language="js", contextId=context)
    assert wrong["error"]["name"] == "SyntaxError", "no types where none were announced"
    python = everything.context(language="python")
    error = refusal(
        everything.ask("1", language="javascript", contextId=python),
        400,
        "invalid_request",
    )
    assert error["details"]["contextLanguage"] == "python"
    # Without a context, each language has its own.
    first = everything.run("1", language="javascript")["contextId"]
    assert everything.run("1", language="typescript")["contextId"] != first


@pytest.mark.parametrize(("asked", "major"), [("20", "20"), ("22", "22"), ("24", "24")])
def test_the_version_that_was_chosen_is_used_by_contexts_and_commands(make, asked, major):
    if reason := not_built(ALL):
        pytest.skip(reason)
    sandbox: Sandbox = make(template=ALL, env={"NODE_VERSION": asked})
    assert sandbox.value(NODE, language="javascript").strip("'") == major
    printed = sandbox.command("node -p process.version; npm --version; printenv NODE_VERSION")
    assert printed["exitCode"] == 0 and printed["stderr"] == "", printed
    assert printed["stdout"].startswith(f"v{major}."), printed
    exact = printed["stdout"].split()[0].removeprefix("v")
    again: Sandbox = make(template=ALL, env={"NODE_VERSION": exact})
    assert again.command("node -p process.version")["stdout"].strip() == f"v{exact}"


def test_go_java_and_python_are_chosen_the_same_way(make):
    if reason := not_built(ALL):
        pytest.skip(reason)
    env = {"GO_VERSION": "1.24", "JAVA_VERSION": "17", "PYTHON_VERSION": "3.11"}
    sandbox: Sandbox = make(template=ALL, env=env)
    printed = sandbox.command('go version; java -version; "$JAVA_HOME"/bin/javac -version')
    said = printed["stdout"] + printed["stderr"]
    assert "go1.24." in said and 'version "17.' in said and "javac 17." in said, said
    assert sandbox.value("import sys; sys.version_info[:2]") == "(3, 11)"
    assert "go1.24." not in make(template=ALL).command("go version")["stdout"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("NODE_VERSION", "18"),
        ("NODE_VERSION", "2"),
        ("NODE_VERSION", ""),
        ("NODE_VERSION", "../20"),
        ("GO_VERSION", "1.2"),
        ("JAVA_VERSION", "21"),
        ("PYTHON_VERSION", "3.13"),
    ],
)
def test_a_version_that_is_not_there_is_refused_with_those_that_are(client, name, version):
    if reason := not_built(ALL):
        pytest.skip(reason)
    body = {"template": ALL, "env": {name: version}}
    answer = client.post("/v1/sandboxes", json=body)
    error = refusal(answer, 400, "unsupported_runtime_option")
    assert error["details"]["key"] == name and len(error["details"]["versions"]) >= 1
    for there in error["details"]["versions"]:
        assert there in error["message"]


def test_a_runtime_that_a_template_lacks_cannot_be_chosen(client):
    if reason := not_built("node"):
        pytest.skip(reason)
    body = {"template": "node", "env": {"GO_VERSION": "1.24"}}
    error = refusal(client.post("/v1/sandboxes", json=body), 400, "unsupported_runtime_option")
    assert error["details"]["versions"] == []


def ready(server: Server) -> None:
    until(lambda: metric(server, "pool_complete") == 1, "the pool is complete", seconds=60)


def test_a_context_gets_the_interpreter_that_waits(node_server):
    server, client = node_server
    ready(server)
    claimed = metric(server, "spares_claimed_total")
    sandbox = Sandbox.create(client, template="node", env={"TOKEN": "of this sandbox"})
    # Started before anybody asked, and told of its sandbox all the same.
    run = sandbox.run("[process.env.TOKEN, process.cwd()].join()", language="typescript")
    assert text(run).strip("'") == "of this sandbox,/workspace", run
    assert metric(server, "spares_claimed_total") == claimed + 1
    # The next one is started for its context.
    assert sandbox.value("1 + 1", language="javascript") == "2"
    assert metric(server, "spares_claimed_total") == claimed + 1
    sandbox.kill()


def test_an_interpreter_that_waits_is_not_given_to_who_asks_for_another(node_server):
    server, client = node_server
    ready(server)
    claimed = metric(server, "spares_claimed_total")
    env = {"NODE_OPTIONS": "--max-old-space-size=200"}
    sandbox = Sandbox.create(client, template="node", env=env)
    heap = "require('v8').getHeapStatistics().heap_size_limit < 300 * 1024 ** 2"
    assert sandbox.value(heap, language="javascript") == "true"
    ready(server)
    fresh = Sandbox.create(client, template="node")
    context = fresh.context(language="javascript", isolation="fresh")
    assert fresh.value("1", language="javascript", contextId=context) == "1"
    assert metric(server, "spares_claimed_total") == claimed
    for made in (sandbox, fresh):
        made.kill()


def test_a_version_outlives_the_server():
    if reason := missing() or not_built(ALL):
        pytest.skip(reason)
    with (
        open_directory() as directory,
        Server(directory / "data", "--pool", "0") as server,
    ):
        with connect(server) as client:
            sandbox = Sandbox.create(client, template=ALL, env={"NODE_VERSION": "20"})
            kept = sandbox.context(language="javascript")
            sandbox.run("globalThis.kept = 42", language="javascript", contextId=kept)
        server.stop()
        server.start()
        with connect(server) as client:
            found = Sandbox(client, sandbox.record)
            same = found.value(f"{NODE} + kept", language="javascript", contextId=kept)
            assert same.strip("'") == "2042", "the interpreter itself has lived on"
            assert found.value(NODE, language="typescript").strip("'") == "20"
            assert found.command("node -p process.version")["stdout"].startswith("v20.")
            # An interpreter that was lost is replaced by one of the same version.
            died = found.run("process.kill(process.pid, 'SIGKILL')", language="js", contextId=kept)
            assert died["outcome"] != "completed"
            again = found.run(NODE, language="javascript", contextId=kept)
            assert again["contextReset"] and text(again).strip("'") == "20"


def test_a_jvm_plans_for_its_sandbox_and_not_for_the_machine(make):
    if reason := not_built(ALL):
        pytest.skip(reason)
    limit = 768 * 1024 * 1024
    sandbox: Sandbox = make(template=ALL, resources={"memoryBytes": limit})
    printed = sandbox.command(
        "java -XX:+PrintFlagsFinal -version 2>/dev/null | awk '$2 == \"MaxHeapSize\" {print $4}'"
    )
    assert 0 < int(printed["stdout"]) <= limit // 2
    # What the command says itself comes first.
    own = sandbox.command("java -Xmx32m -XX:+PrintFlagsFinal -version | grep ' MaxHeapSize '")
    assert "33554432" in own["stdout"]


# What a client says when its registry is not there, from wherever this machine is.
UNREACHABLE = ("EAI_AGAIN", "ENOTFOUND", "ECONNREFUSED", "no such host", "Unknown host")


TOOLS = {
    "npm": (
        "npm install is-odd@3.0.1 && node -p \"require('is-odd')(3)\"",
        "true",
    ),
    "fetch": (
        (
            'node -e "fetch(process.argv[1]).then(r => console.log(r.status))"'
            ' "$(npm config get registry)is-odd"'
        ),
        "200",
    ),
    "go": (
        (
            "mkdir m && cd m && go mod init m && go get golang.org/x/text@v0.16.0"
            ' && printf \'package main\\nimport "golang.org/x/text/language"\\n'
            "func main() { println(language.German.String()) }' > m.go && go run . 2>&1"
        ),
        "de",
    ),
    "maven": (
        (
            "mvn --quiet --batch-mode dependency:get -Dartifact=org.slf4j:slf4j-api:2.0.16"
            " && ls ~/.m2/repository/org/slf4j/slf4j-api/2.0.16/*.jar"
        ),
        "slf4j-api-2.0.16.jar",
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reaches_its_registry_through_the_proxy(make: Callable[..., Sandbox], tool: str):
    command, expected = TOOLS[tool]
    if reason := not_built(ALL):
        pytest.skip(reason)
    done = make(template=ALL).command(command, timeoutMs=RUN_MS_MAX * 2)
    said = done["stdout"] + done["stderr"]
    if done["exitCode"] != 0 and any(word in said for word in UNREACHABLE):
        pytest.skip(f"{tool} does not reach its registry from here")
    assert done["exitCode"] == 0 and expected in said, done


@pytest.mark.parametrize("version", ["20", "22", "24"])
def test_fetch_of_a_cell_goes_through_the_proxy_on_every_node(make, version: str):
    """Node itself does it from 24 on; before, the driver does."""
    if reason := not_built(ALL):
        pytest.skip(reason)
    sandbox: Sandbox = make(template=ALL, env={"NODE_VERSION": version})
    code = (
        "const registry = require('child_process').execSync('npm config get registry').toString().trim()\n"
        "const answer = await fetch(registry + 'is-odd')\nanswer.status"
    )
    done = sandbox.run(code, language="javascript", timeoutMs=RUN_MS_MAX)
    if error := done.get("error"):
        said = json.dumps(error)
        if any(word in said for word in UNREACHABLE):
            pytest.skip("the registry is not reached from here")
        raise AssertionError(said)
    assert text(done) == "200"
