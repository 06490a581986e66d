"""Every test of Python runs twice: in a fresh interpreter, and in one forked from a zygote into
a sandbox's namespaces (needs root; skipped aloud without it). Every test of JavaScript and
TypeScript runs with each Node there is."""

import os

import pytest

import node_driver
from harness import Driver, Sandbox, Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("the zygote needs root")
    cache = tmp_path_factory.mktemp("matplotlib")
    forker = Zygote(env={"MPLCONFIGDIR": str(cache), "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    yield forker
    forker.close()


@pytest.fixture(scope="session")
def sandbox():
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    target = Sandbox()
    yield target
    target.close()


@pytest.fixture(params=["fresh", "forked"])
def context(request, tmp_path_factory):
    if request.param == "fresh":
        cache = tmp_path_factory.getbasetemp() / "matplotlib-fresh"
        peer = Driver(env={"MPLCONFIGDIR": str(cache), "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
        peer.start("/tmp", {"HOME": "/tmp"})
    else:
        sandbox = request.getfixturevalue("sandbox")
        peer = request.getfixturevalue("zygote").fork(sandbox.pidfd)
        peer.start("/workspace", {"HOME": "/workspace"})
    yield peer
    peer.close()


@pytest.fixture(params=node_driver.interpreters() or [None], ids=node_driver.version_of)
def node(request):
    if reason := node_driver.missing():
        pytest.skip(reason)
    return request.param


@pytest.fixture
def js(node, tmp_path):
    """A context of JavaScript in an empty directory."""
    peer = node_driver.NodeDriver(node, cwd=tmp_path)
    peer.start(tmp_path, {"HOME": str(tmp_path)})
    yield peer
    peer.close()
