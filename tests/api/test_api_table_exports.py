"""Whole tables as artifacts, and what becomes of files that a driver only claims to have written."""

from __future__ import annotations

import ast
import base64
import csv
import io
from collections.abc import Iterator

import httpx
import pytest

from rest import Json, Sandbox, connect, new_key, refusal, until
from server import Server

EXPORTS = "/workspace/.crownest/exports"
PARQUET = "application/vnd.apache.parquet"
TABLE = "import pandas as pd\ntable = pd.DataFrame({'n': range(1000), 'word': 'wörter'})\n"
# Tenant code that speaks for its driver.
FORGING = (
    "import os, json as _json, struct as _struct\n"
    "from crownest_kernel import display as _display\n"
    "_kernel = _display._kernel\n"
    "os.makedirs('/workspace/.crownest/exports', exist_ok=True)\n"
    "def claim(path, format='csv', **fields):\n"
    "    export = {'path': path, 'format': format, 'bytes': 1}\n"
    "    data = dict(ev='display', run=_kernel.run, data={'text/plain': 'a table'},\n"
    "                metadata={'crownest': {'export': export}}, **fields)\n"
    "    data = _json.dumps(data).encode()\n"
    "    data = _struct.pack('>I', len(data)) + data\n"
    "    while data: data = data[os.write(_kernel.channel.fd, data):]\n"
)


def files(sandbox: Sandbox) -> list[str]:
    """What is in the directory of exports, by the code itself."""
    value = sandbox.value(f"__import__('os').listdir({EXPORTS!r})")
    return sorted(ast.literal_eval(value))


def artifacts(outputs: list[Json]) -> list[Json]:
    return [output for output in outputs if output["kind"] == "artifact"]


def download(sandbox: Sandbox, output: Json) -> bytes:
    answer = sandbox.client.get(f"/v1/artifacts/{output['artifactId']}/download")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == output["sizeBytes"]
    assert answer.headers["content-type"] == output["contentType"]
    return answer.content


def rows_of(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def test_a_table_is_an_artifact_beside_what_is_shown_of_it(sandbox: Sandbox):
    run = sandbox.run(TABLE + "table", tableExport="csv")
    [whole] = artifacts(run["outputs"])
    assert (whole["format"], whole["mimeType"]) == ("data", "text/csv"), whole
    assert whole["isResult"] is True
    shown = [o for o in run["outputs"] if o["mimeType"] == "application/vnd.crownest.table+json"]
    assert len(shown[0]["value"]["rows"]) < 1000 and shown[0]["valueIndex"] == whole["valueIndex"]
    got = rows_of(download(sandbox, whole))
    assert got[0] == ["n", "word"] and len(got) == 1001 and got[-1] == ["999", "wörter"]
    record = sandbox.client.get(f"/v1/artifacts/{whole['artifactId']}").json()["artifact"]
    assert record["name"] == "output-1.csv"
    assert record["sourcePath"].startswith(EXPORTS + "/")
    assert files(sandbox) == [], "taken away once it is an artifact"
    # Nobody asked.
    run = sandbox.run("table")
    assert artifacts(run["outputs"]) == [] and files(sandbox) == []


def test_parquet_of_several_tables_in_a_stream(sandbox: Sandbox):
    code = TABLE + "display(table)\ndisplay(1)\ntable.head(3)"
    told = sandbox.stream(code, tableExport="parquet")
    whole = artifacts([event["data"] for event in told if event["type"] == "output"])
    assert [o["contentType"] for o in whole] == [PARQUET, PARQUET]
    for output, rows in zip(whole, (1000, 3)):
        content = download(sandbox, output)
        assert content.startswith(b"PAR1") and content.endswith(b"PAR1")
        encoded = base64.b64encode(content).decode()
        read = f"import base64, io\nfile = io.BytesIO(base64.b64decode({encoded!r}))\n"
        read += "len(pd.read_parquet(file))"
        assert sandbox.value(read) == str(rows)
    assert artifacts(told[-1]["data"]["outputs"]) == whole
    assert files(sandbox) == []


def test_of_a_detached_run(sandbox: Sandbox):
    body = {"code": TABLE + "table", "language": "python", "tableExport": "csv", "detached": True}
    answer = sandbox.client.post(f"{sandbox.path}/code/runs", json=body)
    assert answer.status_code == 202, answer.text
    route = f"{sandbox.path}/code/runs/{answer.json()['run']['id']}"

    def ended() -> Json | None:
        run = sandbox.client.get(route).json()["run"]
        return run if "finishedAt" in run else None

    run = until(ended, "the end of the run")
    [whole] = artifacts(run["result"]["outputs"])
    assert len(rows_of(download(sandbox, whole))) == 1001
    assert files(sandbox) == []


def test_what_is_not_shown_any_more_leaves_no_file(sandbox: Sandbox):
    code = (
        TABLE + "from IPython.display import clear_output\n"
        "handle = display(table, display_id='t')\ndisplay(table.head(2), display_id='t', update=True)\n"
        "display(table.head(5))\nclear_output()\ndisplay(table.head(7))"
    )
    run = sandbox.run(code, tableExport="csv")
    assert run.get("error") is None, run
    [whole] = artifacts(run["outputs"])
    assert len(rows_of(download(sandbox, whole))) == 8
    assert files(sandbox) == []


def test_more_tables_than_are_exported(sandbox: Sandbox):
    code = TABLE + "for n in range(18): display(table.head(n + 1))"
    run = sandbox.run(code, tableExport="csv")
    assert len(artifacts(run["outputs"])) == 16
    assert [n["code"] for n in run["notices"]] == ["table_not_exported"] * 2
    assert files(sandbox) == []


@pytest.fixture(scope="module")
def shared(client: httpx.Client) -> Iterator[Sandbox]:
    """For tests that use names of their own and break nothing."""
    sandbox = Sandbox.create(client)
    yield sandbox
    sandbox.kill()


@pytest.mark.parametrize(
    "claim",
    [
        "claim('/etc/passwd')",
        "claim('/workspace/other.csv')",
        f"claim('{EXPORTS}/../../other.csv')",
        f"claim('{EXPORTS}/nothing.csv')",
        f"os.makedirs('{EXPORTS}/d.csv', exist_ok=True); claim('{EXPORTS}/d.csv')",
        f"os.symlink('/workspace/other.csv', '{EXPORTS}/l.csv'); claim('{EXPORTS}/l.csv')",
        f"os.symlink('/etc/passwd', '{EXPORTS}/p.csv'); claim('{EXPORTS}/p.csv')",
        f"os.mkfifo('{EXPORTS}/f.csv'); claim('{EXPORTS}/f.csv')",
        f"claim('{EXPORTS}/x.parquet', 'parquet')",
        "claim('\\0')",
        "claim('" + EXPORTS + "/" + "x" * 300 + ".csv')",
    ],
)
def test_what_a_driver_claims_is_taken_from_one_place_only(shared: Sandbox, claim: str):
    shared.write("other.csv", "not for export")
    context = shared.context()
    run = shared.run(FORGING + claim, contextId=context, tableExport="csv")
    assert run.get("error") is None, run
    kinds = [(o["kind"], o.get("reason")) for o in run["outputs"] if o["format"] == "data"]
    assert kinds == [("rejected", "unsupported_format")], run
    assert shared.client.get(f"{shared.path}/artifacts").json()["data"] == []
    assert shared.read("other.csv").json()["content"] == "not for export"


def test_the_place_itself_may_lead_elsewhere(sandbox: Sandbox):
    code = (
        FORGING + f"os.rmdir('{EXPORTS}'); os.makedirs('/workspace/elsewhere')\n"
        f"os.symlink('/workspace/elsewhere', '{EXPORTS}')\n"
        f"open('{EXPORTS}/a.csv', 'w').write('x')\nclaim('{EXPORTS}/a.csv')"
    )
    run = sandbox.run(code, tableExport="csv")
    assert [o.get("reason") for o in run["outputs"]] == [None, "unsupported_format"], run


def test_a_file_that_is_too_large(sandbox: Sandbox):
    code = FORGING + (
        f"f = open('{EXPORTS}/big.csv', 'wb'); f.truncate((1 << 30) + 1); f.close()\n"
        f"claim('{EXPORTS}/big.csv')"
    )
    run = sandbox.run(code, tableExport="csv")
    assert [o.get("reason") for o in run["outputs"]] == [None, "output_too_large"], run
    assert files(sandbox) == []


def test_what_is_claimed_unasked_is_not_taken(sandbox: Sandbox):
    code = FORGING + f"open('{EXPORTS}/a.csv', 'w').write('x')\nclaim('{EXPORTS}/a.csv')"
    run = sandbox.run(code)
    assert [o["kind"] for o in run["outputs"]] == ["inline"], run
    assert files(sandbox) == ["a.csv"]


def test_it_needs_the_scope_of_artifacts(sandbox: Sandbox, server: Server):
    key = new_key(server, sandbox.record["orgId"], "code:run")
    with connect(server, key) as client:
        weak = Sandbox(client, sandbox.record)
        refusal(weak.ask("1", tableExport="csv"), 403, "forbidden")
        with weak.streaming("1", tableExport="csv") as response:
            response.read()
            refusal(response, 403, "forbidden")
        assert weak.value("1") == "1"
    refusal(sandbox.ask("1", tableExport="xlsx"), 400, "invalid_request")
