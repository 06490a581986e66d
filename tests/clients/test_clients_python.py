"""crownest 0.1.1 from PyPI, unmodified: every call that this release serves, sync and async."""

from __future__ import annotations

import importlib.metadata
import threading
import time

import pytest
from crownest import CrowNestApiError

MIB = 1 << 20


def refused(call, status: int, code: str) -> CrowNestApiError:
    with pytest.raises(CrowNestApiError) as caught:
        result = call()
        if hasattr(result, "__next__"):
            next(result)
    assert (caught.value.status, caught.value.code) == (status, code), str(caught.value)
    assert str(caught.value), "people read the message"
    return caught.value


def out(run) -> str:
    return "".join(run["stdout"])


def value(run) -> str:
    assert "error" not in run, run["error"]
    texts = [o["value"] for o in run["outputs"] if o["format"] == "text" and o["kind"] == "inline"]
    assert len(texts) == 1, run["outputs"]
    return texts[0]


def test_it_is_the_published_client():
    assert importlib.metadata.version("crownest") == "0.1.1"


# -- the whole way through, in the order of the README


def test_create_run_and_kill(crow):
    sandbox = crow.sandboxes.create()
    assert sandbox.id.startswith("sbx_") and sandbox["status"] in {"ready", "idle"}
    run = sandbox.code.run("print('hello')\n1 + 1")
    assert out(run) == "hello\n" and value(run) == "2"
    assert (run["sandboxId"], run["language"]) == (sandbox.id, "python")
    killed = sandbox.kill()
    assert killed["status"] == "destroyed"
    refused(lambda: sandbox.code.run("1"), 410, "sandbox_destroyed")


def test_pandas(sandbox):
    run = sandbox.code.run(
        "import pandas as pd\n"
        "df = pd.DataFrame({'city': ['Oslo', 'Bern'], 'people': [700, 130]})\n"
        "print(df['people'].sum())\ndf.describe()"
    )
    assert out(run) == "830\n" and "error" not in run
    text = next(o for o in run["outputs"] if o["format"] == "text")
    assert "mean" in text["value"] and "415.0" in text["value"]


def test_plots(sandbox):
    """What has no place inline in this contract is said to be there, and is read as a file."""
    run = sandbox.code.run(
        "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9])\nplt.savefig('plot.png')\nplt.show()"
    )
    assert "error" not in run
    pngs = [o for o in run["outputs"] if o["format"] == "png"]
    assert [(o["kind"], o["reason"]) for o in pngs] == [("rejected", "requires_artifact_promotion")]
    png = sandbox.files.read_bytes("plot.png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82")


def test_errors_are_results(sandbox):
    run = sandbox.code.run("print('before')\n{}['missing']")
    assert out(run) == "before\n"
    assert (run["error"]["name"], run["error"]["message"]) == ("KeyError", "'missing'")
    assert "{}['missing']" in "\n".join(run["error"]["traceback"])
    assert sandbox.code.run("def (:")["error"]["name"] == "SyntaxError"


def test_state_of_the_default_context(sandbox):
    first = sandbox.code.run("x = 20")
    second = sandbox.code.run("x += 1\nx * 2")
    assert value(second) == "42" and second["contextId"] == first["contextId"]
    assert second["executionCount"] == first["executionCount"] + 1
    listed = sandbox.code.list_contexts()
    assert [(c["id"], c["isDefault"]) for c in listed] == [(first["contextId"], True)]


def test_explicit_contexts(sandbox, crow):
    one = sandbox.code.create_context()
    two = crow.code.create_context(sandbox.id, cwd="/workspace", language="python")
    sandbox.code.run("x = 'one'", context_id=one["id"])
    assert value(sandbox.code.run("x", context_id=one["id"])) == "one"
    assert sandbox.code.run("x", context_id=two["id"])["error"]["name"] == "NameError"
    assert sandbox.code.get_context(one["id"])["cwd"] == "/workspace"
    assert {c["id"] for c in sandbox.code.list_contexts()} == {one["id"], two["id"]}
    assert sandbox.code.delete_context(one["id"])["id"] == one["id"]
    refused(lambda: sandbox.code.run("x", context_id=one["id"]), 404, "not_found")
    refused(lambda: sandbox.code.get_context(one["id"]), 404, "not_found")


def test_streaming_in_time(sandbox):
    """The first event is here before the code ends: it waits for a file that this test writes."""
    code = (
        "import os, sys, time\nprint('first')\n"
        "while not os.path.exists('go'): time.sleep(0.005)\n"
        "print('second', file=sys.stderr)\n1 / 0"
    )
    events = sandbox.code.run_stream(code)
    assert next(events) == {"type": "stdout", "data": "first\n"}
    sandbox.files.write("go", "")
    rest = list(events)
    assert [e["type"] for e in rest] == ["stderr", "error", "complete"]
    assert rest[0]["data"] == "second\n" and rest[1]["data"]["name"] == "ZeroDivisionError"
    assert rest[2]["data"]["error"] == rest[1]["data"] and rest[2]["data"]["stdout"] == ["first\n"]


def test_streaming_of_outputs_and_odd_characters(sandbox):
    odd = "a\x85b\u2028c\u2029d\r\n\x1c\x0be\0é😀"
    events = list(sandbox.code.run_stream(f"print({odd!r})\n{odd!r}"))
    assert "".join(e["data"] for e in events if e["type"] == "stdout") == odd + "\n"
    assert [e["data"]["value"] for e in events if e["type"] == "output"] == [odd]
    assert events[-1]["type"] == "complete" and value(events[-1]["data"]) == odd


def test_idempotent_replay(sandbox):
    code = "import uuid\nopen('count', 'a').write('x')\nprint(uuid.uuid4())"
    first = sandbox.code.run(code, idempotency_key=f"{sandbox.id}-one")
    assert sandbox.code.run(code, idempotency_key=f"{sandbox.id}-one") == first
    assert sandbox.code.run(code, idempotency_key=f"{sandbox.id}-two")["stdout"] != first["stdout"]
    assert sandbox.files.read("count") == "xx"
    refused(
        lambda: sandbox.code.run("2", idempotency_key=f"{sandbox.id}-one"),
        409,
        "idempotency_key_reused",
    )
    streamed = list(sandbox.code.run_stream(code, idempotency_key=f"{sandbox.id}-s"))
    again = list(sandbox.code.run_stream(code, idempotency_key=f"{sandbox.id}-s"))
    assert [e["type"] for e in again] == ["complete"] and again[0] == streamed[-1]


def test_idempotent_creation(crow):
    key = f"make-once-{time.monotonic_ns()}"
    one = crow.sandboxes.create(idempotency_key=key, metadata={"a": "b"})
    try:
        assert crow.sandboxes.create(idempotency_key=key, metadata={"a": "b"}).id == one.id
        refused(
            lambda: crow.sandboxes.create(idempotency_key=key, metadata={"a": "c"}),
            409,
            "idempotency_key_reused",
        )
    finally:
        one.kill()


# -- sandboxes


def test_sandboxes_are_found_by_id_and_metadata(crow):
    label = f"suite-{time.monotonic_ns()}"
    one = crow.sandboxes.create(metadata={"suite": label, "agent.id": "1"}, ttl_ms=60_000)
    two = crow.sandboxes.create(metadata={"suite": label, "agent.id": "2"}, template="python")
    try:
        assert one["metadata"] == {"suite": label, "agent.id": "1"} and one["ttlMs"] == 60_000
        found = crow.sandboxes.get(one.id)
        assert found.id == one.id and value(found.code.run("6 * 7")) == "42"
        assert [s["id"] for s in crow.sandboxes.list(metadata={"suite": label})] == [two.id, one.id]
        both = {"suite": label, "agent.id": "1"}
        assert [s["id"] for s in crow.sandboxes.list(metadata=both)] == [one.id]
        assert {one.id, two.id} <= {s["id"] for s in crow.sandboxes.list()}
        longer = one.extend(ttl_ms=600_000)
        assert longer["ttlMs"] == 600_000 and longer["expiresAt"] > one["expiresAt"]
        assert crow.sandboxes.extend(one.id, ttl_ms=30_000)["expiresAt"] < longer["expiresAt"]
        assert set(one) >= {"id", "orgId", "projectId", "templateSlug"}, "a handle is a mapping"
    finally:
        one.kill()
        assert crow.sandboxes.kill(two.id)["destroyedReason"] == "user_killed"
    assert crow.sandboxes.list(metadata={"suite": label}) == []
    assert crow.sandboxes.get(two.id)["status"] == "destroyed", "its record can still be read"


def test_the_other_nouns(crow):
    assert any(p["id"] for p in crow.projects.list())
    name = f"Made {time.monotonic_ns()}"
    made = crow.projects.create(name=name)
    assert made["name"] == name and made["id"] in {p["id"] for p in crow.projects.list()}
    keys = crow.api_keys.list()
    assert crow.api_keys.get(keys[0]["id"])["prefix"].startswith("cn_live_")
    usage = crow.usage()
    assert usage["computeUnitSeconds"]["used"] >= 0 and "quotas" in usage


# -- files and commands


def test_files(sandbox):
    assert sandbox.files.write("a.txt", "grüße\u2028")["path"] == "/workspace/a.txt"
    assert sandbox.files.read("/workspace/a.txt") == "grüße\u2028"
    raw = bytes(range(256)) * 8
    sandbox.files.write_bytes("deep/er/raw", raw, create_parents=True)
    assert sandbox.files.read_bytes("deep/er/raw") == raw
    assert sandbox.files.stat("deep/er/raw")["sizeBytes"] == len(raw)
    assert sandbox.files.mkdir("x/y", parents=True)["type"] == "directory"
    assert sandbox.files.move("a.txt", "x/b.txt")["path"] == "/workspace/x/b.txt"
    assert {(e["name"], e["type"]) for e in sandbox.files.list()} == {
        ("deep", "directory"),
        ("x", "directory"),
    }
    assert sorted(e["name"] for e in sandbox.files.list("x")) == ["b.txt", "y"]
    sandbox.files.delete("x/b.txt")
    refused(lambda: sandbox.files.read("x/b.txt"), 404, "file_not_found")
    refused(lambda: sandbox.files.write("x/y", ""), 400, "path_is_directory")
    refused(lambda: sandbox.files.read("../etc/passwd"), 400, "path_outside_workspace")
    refused(lambda: sandbox.files.write("big", "x" * (256 * 1024 + 1)), 413, "file_too_large")
    refused(lambda: sandbox.files.delete("x"), 409, "directory_not_empty")
    refused(
        lambda: sandbox.files.write("deep/er/raw", "", overwrite=False), 409, "file_already_exists"
    )


def test_files_by_the_id_of_their_sandbox(crow, sandbox):
    crow.files.write(sandbox.id, "one", "1")
    assert crow.files.read(sandbox.id, "one") == "1"
    assert [e["name"] for e in crow.files.list(sandbox.id)] == ["one"]
    crow.files.delete(sandbox.id, "one")
    assert crow.files.list(sandbox.id) == []


def test_commands_that_are_waited_for(sandbox, crow):
    command = sandbox.commands.run("echo out; echo err >&2; exit 3")
    assert (command["status"], command["exitCode"]) == ("exited", 3)
    assert (command["stdout"], command["stderr"]) == ("out\n", "err\n")
    sandbox.files.mkdir("d")
    told = sandbox.commands.run('pwd; printf %s "$WORD"', cwd="d", env={"WORD": "été"})
    assert told["stdout"] == "/workspace/d\nété"
    late = crow.commands.run(sandbox.id, "echo on; sleep 60", timeout_ms=300)
    assert (late["status"], late["stdout"]) == ("timed_out", "on\n")
    refused(lambda: sandbox.commands.run("x", env={"CROWNEST_X": "1"}), 400, "reserved_env_key")
    refused(lambda: sandbox.commands.run("x", cwd="/etc"), 400, "path_outside_workspace")


# -- refusals


def test_bad_keys(connect, server):
    for key, code in [("cn_live_" + "0" * 52, "invalid_api_key"), ("nonsense", "invalid_api_key")]:
        client = connect(base_url=server.url, api_key=key)
        refused(lambda client=client: client.sandboxes.list(), 401, code)
        refused(lambda client=client: client.code.run_stream("sbx_x", "1"), 401, code)


def test_unknown_ids(crow, sandbox):
    refused(lambda: crow.sandboxes.get("sbx_nobody"), 404, "not_found")
    refused(lambda: crow.sandboxes.get("x" * 3000), 404, "not_found")
    refused(lambda: crow.code.run("sbx_nobody", "1"), 404, "not_found")
    refused(lambda: crow.sandboxes.kill("sbx_nobody"), 404, "not_found")
    refused(lambda: sandbox.code.run("1", context_id="cctx_nobody"), 404, "not_found")
    refused(lambda: crow.api_keys.get("key_nobody"), 404, "not_found")
    refused(lambda: crow.artifacts.get("art_nobody"), 404, "not_found")


def test_destroyed_sandboxes(crow):
    sandbox = crow.sandboxes.create()
    context = sandbox.code.create_context()
    sandbox.kill()
    for call in (
        lambda: sandbox.code.run("1"),
        lambda: sandbox.code.run("1", context_id=context["id"]),
        lambda: sandbox.code.run_stream("1"),
        lambda: sandbox.code.create_context(),
        lambda: sandbox.commands.run("true"),
        lambda: sandbox.files.list(),
        lambda: sandbox.files.write("x", ""),
        lambda: sandbox.extend(ttl_ms=1000),
    ):
        refused(call, 410, "sandbox_destroyed")
    assert sandbox.kill()["status"] == "destroyed"


def test_impossible_runs(sandbox):
    error = refused(lambda: sandbox.code.run("#" * (256 * 1024 + 1)), 413, "code_source_too_large")
    assert error.details == {"field": "code", "limit": 256 * 1024}
    refused(lambda: sandbox.code.run("1", language="cobol"), 400, "unsupported_code_language")
    refused(
        lambda: sandbox.code.run_stream("1", language="cobol"), 400, "unsupported_code_language"
    )
    refused(lambda: sandbox.code.create_context(language="cobol"), 400, "unsupported_code_language")
    refused(lambda: sandbox.code.run("1", timeout_ms=0), 400, "invalid_request")
    refused(lambda: sandbox.code.run("1", cwd="/etc"), 400, "path_outside_workspace")


def test_impossible_sandboxes(crow):
    refused(lambda: crow.sandboxes.create(ttl_ms=3_600_001), 400, "sandbox_ttl_exceeded")
    refused(lambda: crow.sandboxes.create(ttl_ms=-1), 400, "invalid_request")
    refused(lambda: crow.sandboxes.create(template="none"), 400, "invalid_request")
    refused(lambda: crow.sandboxes.create(metadata={"k" * 65: ""}), 400, "invalid_metadata_key")
    refused(lambda: crow.sandboxes.create(restore_from="bkp_1"), 403, "feature_not_enabled")
    refused(lambda: crow.sandboxes.create(project_id="prj_nobody"), 404, "not_found")


def test_a_timeout_is_a_result(sandbox):
    sandbox.code.run("kept = 1")
    run = sandbox.code.run("while True: kept += 1", timeout_ms=300)
    assert run["outcome"] == "timed_out" and run["error"]["name"] == "TimeoutError"
    assert int(value(sandbox.code.run("kept"))) > 1


# -- the client itself


def test_trailing_slashes_and_the_environment(connect, server, monkeypatch):
    assert connect(base_url=server.url + "//", api_key=server.api_key).sandboxes.list() is not None
    monkeypatch.setenv("CROWNEST_API_KEY", server.api_key)
    assert connect(base_url=server.url).projects.list()
    monkeypatch.delenv("CROWNEST_API_KEY")
    with pytest.raises(ValueError, match="CROWNEST_API_KEY"):
        connect(base_url=server.url)


def test_a_proxy_of_the_environment_is_not_in_the_way(connect, server, monkeypatch):
    """A machine behind a proxy still talks to its own server: that is what NO_PROXY is for."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    assert connect(base_url=server.url, api_key=server.api_key).projects.list()


# -- much output


def test_twenty_megabytes_come_whole_through_a_run(sandbox):
    run = sandbox.code.run("for n in range(1_000_000): print(f'{n:>19}')")
    printed = out(run)
    assert len(printed) == 20_000_000 and "stdoutTruncated" not in run
    assert printed == "".join(f"{n:>19}\n" for n in range(1_000_000))


def test_twenty_megabytes_come_whole_through_a_stream(sandbox):
    parts = []
    for event in sandbox.code.run_stream("for n in range(20): print(f'{n:>999999}')"):
        if event["type"] == "stdout":
            parts.append(event["data"])
    assert event["type"] == "complete" and len(parts) > 1
    printed = "".join(parts)
    assert len(printed) == 20_000_000 and printed == "".join(f"{n:>999999}\n" for n in range(20))
    assert out(event["data"]) == printed


def test_threads_share_a_client(server):
    """The synchronous client in many threads, each with a sandbox of its own."""
    from crownest import CrowNest

    wrong: list[BaseException] = []
    with CrowNest(base_url=server.url, api_key=server.api_key) as crow:

        def work(number: int) -> None:
            try:
                sandbox = crow.sandboxes.create()
                try:
                    for turn in range(5):
                        printed = out(sandbox.code.run(f"print({number}, {turn})"))
                        assert printed == f"{number} {turn}\n"
                finally:
                    sandbox.kill()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong, wrong


def test_context_managers_close_the_client(server):
    import asyncio

    from crownest import AsyncCrowNest, CrowNest

    with CrowNest(base_url=server.url, api_key=server.api_key) as crow:
        sandbox = crow.sandboxes.create()
        assert value(sandbox.code.run("1")) == "1"
        sandbox.kill()
    with pytest.raises(RuntimeError, match="closed"):
        crow.sandboxes.list()

    async def whole_way() -> None:
        async with AsyncCrowNest(base_url=server.url, api_key=server.api_key) as crow:
            sandboxes = await asyncio.gather(*(crow.sandboxes.create() for _ in range(4)))
            runs = await asyncio.gather(
                *(s.code.run(f"print({n})\n{n}") for n, s in enumerate(sandboxes))
            )
            assert [(out(run), value(run)) for run in runs] == [
                (f"{n}\n", str(n)) for n in range(4)
            ]
            seen = [e["type"] async for e in sandboxes[0].code.run_stream("print(1)")]
            assert seen == ["stdout", "complete"]
            await asyncio.gather(*(s.kill() for s in sandboxes))
            assert not {s.id for s in sandboxes} & {s["id"] for s in await crow.sandboxes.list()}

    asyncio.run(whole_way())
