"""OpenSandbox's official clients, unmodified, against a real server: where they are found, and the
fixtures that both languages share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# scripts/venv.sh puts the clients into a directory of their own.
INSTALLED = Path(sys.prefix) / "opensandbox"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "api")]
if INSTALLED.is_dir():
    sys.path.insert(0, str(INSTALLED))

import httpx  # noqa: E402

from rest import connect  # noqa: E402
from server import Server  # noqa: E402

collect_ignore: list[str] = []
if not INSTALLED.is_dir():
    print("SKIP: OpenSandbox's Python clients are not installed (scripts/venv.sh)", file=sys.stderr)
    collect_ignore.append("python")


@pytest.fixture(scope="session")
def domain(server: Server) -> str:
    """What a user of this server gives as `domain`."""
    return server.url.removeprefix("http://") + "/opensandbox"


@pytest.fixture(scope="session")
def ours(server: Server) -> Iterator[httpx.Client]:
    """CrowNest's own API, on the same server and with the same key."""
    with connect(server) as client:
        yield client
