"""The life of a sandbox through `Sandbox` and `SandboxSync`: made, looked at, renewed, paused,
ended."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from opensandbox.exceptions import (
    InvalidArgumentException,
    SandboxApiException,
    SandboxReadyTimeoutException,
)
from opensandbox.models.execd import RunCommandOpts
from opensandbox.models.sandboxes import (
    Host,
    LifecycleHook,
    PlatformSpec,
    SandboxFilter,
    SandboxImageAuth,
    SandboxImageSpec,
    SandboxLifecycle,
    Volume,
)

from sdk import lines, texts

SLACK = timedelta(seconds=30)
ALIVE = {"Running", "Pending"}


def near(instant: datetime | None, expected: datetime) -> bool:
    assert instant is not None and instant.tzinfo is not None
    return abs(instant - expected) < SLACK


# -- create


def test_create_and_get_info(create):
    before = datetime.now(UTC)
    sandbox = create("python:3.11", metadata={"team": "blue"}, timeout=timedelta(minutes=5))
    info = sandbox.get_info()
    assert info.id == sandbox.id and info.status.state == "Running"
    assert info.image.image == "python:3.11" and info.snapshot_id is None
    assert info.entrypoint == ["tail", "-f", "/dev/null"]
    assert info.metadata == {"team": "blue"}
    assert near(info.created_at, before) and near(info.expires_at, before + timedelta(minutes=5))
    assert sandbox.is_healthy() is True
    assert sandbox.connection_config.get_domain()
    assert sandbox.origin == "unknown", "policies are asked for at the egress port"


def test_create_without_an_end(create):
    """Nothing lives for ever: it gets the longest life that there is, and says so."""
    expires = create(timeout=None).get_info().expires_at
    assert expires is not None and expires > datetime.now(UTC) + timedelta(hours=1)


def test_create_with_environment_and_entrypoint(create):
    program = "echo $GREETING > /tmp/started; sleep 1000.25"
    sandbox = create(env={"GREETING": "été"}, entrypoint=["bash", "-c", program])
    assert sandbox.get_info().entrypoint == ["bash", "-c", program]
    wait = "until [ -s /tmp/started ]; do read -t 0.02 <> <(:) || :; done; cat /tmp/started"
    assert lines(sandbox.commands.run(f"timeout 20 bash -c '{wait}'")) == ["été"]
    assert lines(sandbox.commands.run("echo $GREETING")) == ["été"]
    seen = sandbox.commands.run("pgrep -f -c '[s]leep 1000.25'")
    assert lines(seen) == ["1"], "it runs on as a process of the sandbox"


def test_create_with_resources(create):
    sandbox = create(resource={"cpu": "1", "memory": "512Mi"})
    metrics = sandbox.get_metrics()
    assert (metrics.cpu_count, metrics.memory_total_in_mib) == (1, 512)


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("python:3.12-slim", "python3 --version"),
        ("node:20", "node --version"),
        ("ubuntu", "bash --version"),
        ("debian:bookworm", "bash --version"),
        ("opensandbox/code-interpreter:latest", "python3 --version && node --version"),
    ],
)
def test_images(create, image, program):
    run = create(image).commands.run(program)
    assert run.exit_code == 0 and re.search(r"\d+\.\d+", run.text), run


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ("registry.example.com/someone/something:1", {}),
        ("windows:11", {"platform": PlatformSpec(os="windows", arch="amd64")}),
        ("python:3.11", {"timeout": timedelta(seconds=59)}),
        ("python:3.11", {"resource": {"memory": "plenty"}}),
        ("python:3.11", {"metadata": {"opensandbox.io/mine": "x"}}),
        ("opensandbox/code-interpreter:v1.0.1", {"env": {"PYTHON_VERSION": "2.7"}}),
    ],
    ids=["image", "platform", "short life", "resource", "reserved metadata", "version"],
)
def test_create_refuses(sdk, refused, ours, image, options):
    before = len(ours.get("/v1/sandboxes", params={"limit": 500}).json()["data"])
    config = sdk.config()
    with pytest.raises(SandboxApiException) as caught:
        sdk.Sandbox.create(image, connection_config=config, **options)
    error = caught.value
    assert error.status_code in range(400, 500), error
    assert error.error.code and error.error.message and error.request_id
    assert len(ours.get("/v1/sandboxes", params={"limit": 500}).json()["data"]) == before


def test_versions_are_listed_when_one_is_refused(sdk):
    with pytest.raises(SandboxApiException, match=r"3\.11"):
        sdk.Sandbox.create(
            "opensandbox/code-interpreter:v1.0.1",
            connection_config=sdk.config(),
            env={"PYTHON_VERSION": "2.7"},
        )


@pytest.mark.parametrize(
    "options",
    [
        {"volumes": [Volume(name="v", host=Host(path="/srv"), mount_path="/mnt/v")]},
        {"lifecycle": SandboxLifecycle(pre_start=LifecycleHook(command=["true"]))},
    ],
    ids=["volumes", "hooks"],
)
def test_what_is_not_built_is_said(sdk, refused, options):
    refused(
        501,
        lambda: sdk.Sandbox.create("python:3.11", connection_config=sdk.config(), **options),
    )


def test_credentials_of_an_image_are_accepted(create):
    auth = SandboxImageAuth(username="somebody", password="secret")
    sandbox = create(SandboxImageSpec("python:3.11", auth=auth))
    assert "secret" not in sandbox.get_info().model_dump_json()


def test_create_from_template_is_not_built(sdk, refused):
    refused(
        501,
        lambda: sdk.Sandbox.create_from_template(
            "tpl", timeout=timedelta(minutes=5), connection_config=sdk.config()
        ),
    )


def test_create_needs_one_source(sdk):
    with pytest.raises(InvalidArgumentException):
        sdk.Sandbox.create(connection_config=sdk.config())


def test_a_key_is_needed(sdk):
    for key, code in (("cn_live_wrong", "INVALID_API_KEY"), ("", "MISSING_API_KEY")):
        config = sdk.config(api_key=key)
        config.api_key = key
        with pytest.raises(SandboxApiException) as caught:
            sdk.Sandbox.create("python:3.11", connection_config=config)
        assert caught.value.status_code == 401, caught.value
        if key:
            assert caught.value.error.code == code


def test_a_health_check_of_ones_own(create, sdk):
    asked = []

    def sync_check(sandbox):
        asked.append(sandbox.id)
        return len(asked) > 1

    async def async_check(sandbox):
        return sync_check(sandbox)

    check = async_check if sdk.name == "async" else sync_check
    sandbox = create(health_check=check, health_check_polling_interval=timedelta(milliseconds=10))
    assert asked == [sandbox.id] * 2


def test_a_sandbox_that_never_gets_ready_is_removed(sdk, ours):
    async def never_async(_):
        return False

    check = never_async if sdk.name == "async" else lambda _: False
    with pytest.raises(SandboxReadyTimeoutException):
        sdk.Sandbox.create(
            "python:3.11",
            connection_config=sdk.config(),
            metadata={"never": sdk.name},
            health_check=check,
            ready_timeout=timedelta(seconds=1),
        )
    with sdk.Manager.create(sdk.config()) as manager:
        page = manager.list_sandbox_infos(SandboxFilter(metadata={"never": sdk.name}))
    assert [i for i in page.sandbox_infos if i.status.state in ALIVE] == []


# -- connect and end


def test_connect(create, sdk):
    sandbox = create()
    sandbox.files.write_file("/workspace/kept", "1")
    again = sdk.Sandbox.connect(sandbox.id, connection_config=sdk.config())
    assert again.id == sandbox.id and again.files.read_file("/workspace/kept") == "1"
    again.close()
    assert sandbox.is_healthy(), "closing ends nothing but connections"


def test_connect_to_nothing(sdk, refused):
    refused(404, lambda: sdk.Sandbox.connect("no-such-sandbox", connection_config=sdk.config()))


def test_check_ready(create):
    sandbox = create(skip_health_check=True)
    sandbox.check_ready(timedelta(seconds=20), timedelta(milliseconds=20))
    assert sandbox.is_healthy() is True
    sandbox.kill()
    with pytest.raises(SandboxReadyTimeoutException):
        sandbox.check_ready(timedelta(seconds=0.3), timedelta(milliseconds=50))


def test_kill(create, refused):
    sandbox = create()
    sandbox.kill()
    assert sandbox.is_healthy() is False
    assert sandbox.get_info().status.state == "Terminated"
    sandbox.kill()
    refused(404, lambda: sandbox.commands.run("true"))


def test_destroy_and_context_manager(create, sdk, refused):
    with create() as sandbox:
        assert sandbox.is_healthy()
    other = create()
    other.destroy()
    with sdk.Manager.create(sdk.config()) as manager:
        assert manager.get_sandbox_info(sandbox.id).status.state == "Running"
        assert manager.get_sandbox_info(other.id).status.state == "Terminated"
        manager.kill_sandbox(sandbox.id)


# -- while it lives


def test_renew(create):
    sandbox = create(timeout=timedelta(minutes=5))
    for life in (timedelta(minutes=40), timedelta(minutes=2)):
        wanted = datetime.now(UTC) + life
        answer = sandbox.renew(life)
        assert near(answer.expires_at, wanted)
        assert near(sandbox.get_info().expires_at, wanted), "longer, and shorter"
    with pytest.raises(SandboxApiException) as caught:
        sandbox.renew(timedelta(minutes=-1))
    assert caught.value.status_code in (400, 409, 422)


def test_patch_metadata(create, refused):
    sandbox = create(metadata={"a": "1", "b": "2"})
    info = sandbox.patch_metadata({"a": None, "b": "3", "c": "4"})
    assert info.metadata == {"b": "3", "c": "4"} == sandbox.get_info().metadata
    refused(400, lambda: sandbox.patch_metadata({"opensandbox.io/x": "1"}))
    assert sandbox.get_info().metadata == {"b": "3", "c": "4"}


def test_get_metrics(create):
    sandbox = create()
    sandbox.commands.run("head -c 20000000 /dev/zero > /dev/shm/some || :")
    metrics = sandbox.get_metrics()
    assert 0 < metrics.memory_used_in_mib < metrics.memory_total_in_mib
    assert metrics.cpu_count >= 1 and 0 <= metrics.cpu_used_percentage <= 100 * metrics.cpu_count
    assert abs(metrics.timestamp / 1000 - time.time()) < SLACK.total_seconds()
    assert sandbox.metrics.get_metrics(sandbox.id).cpu_count == metrics.cpu_count


def test_get_endpoint(create, server, domain):
    sandbox = create()
    endpoint = sandbox.get_endpoint(44772)
    assert "://" not in endpoint.endpoint and endpoint.endpoint.endswith("/44772")
    assert endpoint.endpoint.startswith(f"127.0.0.1:{server.port}/")
    execd = f"http://{endpoint.endpoint}"
    headers = endpoint.headers or {}
    assert httpx.get(f"{execd}/ping", headers=headers, trust_env=False).status_code == 200


def serve_a_page(sandbox) -> None:
    """A program of the sandbox that listens on 8123."""
    sandbox.files.write_file("/workspace/page/index.html", "<h1>hello</h1>")
    serve = "cd /workspace/page && exec python3 -u -m http.server 8123 --bind 127.0.0.1"
    sandbox.commands.run(serve, opts=RunCommandOpts(background=True))
    ready = "until : < /dev/tcp/127.0.0.1/8123; do sleep 0.02; done"
    sandbox.commands.run(f"timeout 20 bash -c '{ready}' 2>/dev/null")


def test_a_service_is_reached_at_its_endpoint(create):
    sandbox = create()
    serve_a_page(sandbox)
    endpoint = sandbox.get_endpoint(8123)
    url = f"http://{endpoint.endpoint}"
    headers = dict(endpoint.headers or {})
    with httpx.Client(trust_env=False, headers=headers) as client:
        assert client.get(f"{url}/index.html").text == "<h1>hello</h1>"
        assert client.get(f"{url}/none").status_code == 404
        assert client.get(f"{url}/").text == "<h1>hello</h1>"
    assert headers and httpx.get(f"{url}/", trust_env=False).status_code == 401


def test_get_signed_endpoint(create, refused):
    sandbox = create()
    serve_a_page(sandbox)
    signed = sandbox.get_signed_endpoint(8123, int(time.time()) + 60)
    url = f"http://{signed.endpoint}"
    assert httpx.get(f"{url}/index.html", trust_env=False).text == "<h1>hello</h1>", "no header"
    other = url.replace("8123", "8124")
    assert httpx.get(f"{other}/index.html", trust_env=False).status_code in (401, 403, 404)
    refused(400, lambda: sandbox.get_signed_endpoint(8123, int(time.time()) - 60))
    execd = sandbox.get_signed_endpoint(44772, int(time.time()) + 60)
    assert execd.headers, "what speaks for the sandbox is never in an address"


def test_through_the_servers_proxy(create, sdk):
    sandbox = create(connection_config=sdk.config(use_server_proxy=True))
    assert sandbox.is_healthy() and lines(sandbox.commands.run("echo 1")) == ["1"]
    sandbox.files.write_file("/workspace/a", "b")
    assert sandbox.files.read_file("/workspace/a") == "b"


def test_pause_and_resume(create, sdk, refused):
    sandbox = create()
    # By a rename: whoever reads in between finds a number, too.
    write = "echo $i > /dev/shm/next && mv /dev/shm/next /dev/shm/count || exit"
    counter = f"i=0; while :; do i=$((i+1)); {write}; sleep 0.01; done"
    run = sandbox.commands.run(counter, opts=RunCommandOpts(background=True))
    first = lines(
        sandbox.commands.run(
            "timeout 20 bash -c 'until [ -s /dev/shm/count ]; do :; done'; cat /dev/shm/count"
        )
    )
    sandbox.pause()
    state = paused(sandbox)
    assert state == "Paused"
    refused(409, sandbox.pause)
    with pytest.raises(SandboxApiException):
        sandbox.commands.run("true")
    again = sdk.Sandbox.resume(sandbox.id, connection_config=sdk.config())
    assert again.get_info().status.state == "Running"
    status = again.commands.get_command_status(run.id)
    assert status.running is True, "the process was frozen, not ended"
    later = lines(again.commands.run("cat /dev/shm/count"))
    assert int(later[0]) >= int(first[0])
    with sdk.Manager.create(sdk.config()) as manager:
        refused(409, lambda: manager.resume_sandbox(sandbox.id))
    again.close()


def paused(sandbox) -> str:
    deadline = time.monotonic() + 20
    while (state := sandbox.get_info().status.state) not in ("Paused", "Failed"):
        assert time.monotonic() < deadline, state
    return state


def test_memory_outlives_a_pause(create, sdk):
    sandbox = create("opensandbox/code-interpreter:v1.0.1")
    interpreter = sdk.CodeInterpreter.create(sandbox=sandbox)
    context = interpreter.codes.create_context("python")
    interpreter.codes.run("value = [1, 2, 3]", context=context)
    sandbox.pause()
    assert paused(sandbox) == "Paused"
    again = sdk.Sandbox.resume(sandbox.id, connection_config=sdk.config())
    interpreter = sdk.CodeInterpreter.create(sandbox=again)
    assert texts(interpreter.codes.run("sum(value)", context=context)) == ["6"]
    again.close()


# -- diagnostics


def test_diagnostics(create):
    sandbox = create(entrypoint=["bash", "-c", "echo from the entrypoint; sleep 1000"])
    for content in (
        sandbox.get_diagnostic_logs("container"),
        sandbox.diagnostics.get_logs(sandbox.id, "container"),
    ):
        assert (content.sandbox_id, content.kind, content.scope) == (
            sandbox.id,
            "logs",
            "container",
        )
        assert content.delivery == "inline" and content.truncated is False
        assert content.content_type.startswith("text/plain")
    for content in (
        sandbox.get_diagnostic_events("lifecycle"),
        sandbox.diagnostics.get_events(sandbox.id, "lifecycle"),
    ):
        assert (content.kind, content.scope) == ("events", "lifecycle")
        assert "lifecycle ready" in content.content, content


def test_diagnostics_refuse_an_unknown_scope(create, refused):
    sandbox = create()
    for ask in (sandbox.get_diagnostic_logs, sandbox.get_diagnostic_events):
        refused(400, lambda ask=ask: ask("nonsense everything"))
