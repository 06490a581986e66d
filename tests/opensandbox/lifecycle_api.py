"""OpenSandbox's lifecycle API as a test sees it, in plain HTTP.

Owns: talking to it and checking the shape that every answer has. Does not own any assertion about
what the product should do.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

import rest
import visitor
from server import Server

__all__ = ["rest", "visitor"]

Json = dict[str, Any]

CALL_SECONDS_MAX = 120
PREFIX = "/opensandbox/v1"
WAITS = ["tail", "-f", "/dev/null"]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(
    platform.machine(), platform.machine()
)


def connect(server: Server, key: str | None = None) -> httpx.Client:
    """A client of the lifecycle API; without a key it has that of the first start."""
    headers = {"OPEN-SANDBOX-API-KEY": key or server.api_key}
    return httpx.Client(
        base_url=server.url + PREFIX,
        headers=headers,
        timeout=CALL_SECONDS_MAX,
        trust_env=False,
    )


def refused(response: httpx.Response, status: int, code: str) -> str:
    """Checks that an answer is that refusal; gives its message."""
    assert response.status_code == status, response.text
    error = response.json()
    assert set(error) == {"code", "message"}, error
    assert error["code"] == code, error
    assert response.headers["x-request-id"]
    return error["message"]


class Sandbox:
    """One sandbox, made over the lifecycle API."""

    def __init__(self, client: httpx.Client, body: Json) -> None:
        self.client = client
        self.id: str = body["id"]
        self.path = f"/sandboxes/{self.id}"

    def get(self) -> Json:
        response = self.client.get(self.path)
        assert response.status_code == 200, response.text
        return response.json()

    def endpoint(self, port: int, **query: Any) -> Json:
        response = self.client.get(f"{self.path}/endpoints/{port}", params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def at(self, port: int, **query: Any) -> httpx.Client:
        """A client of one of its ports, as the endpoint's answer says, without any key."""
        endpoint = self.endpoint(port, **query)
        return httpx.Client(
            base_url=f"http://{endpoint['endpoint']}",
            headers=endpoint.get("headers", {}),
            timeout=CALL_SECONDS_MAX,
            trust_env=False,
        )

    def v1(self, client: httpx.Client) -> rest.Sandbox:
        """The same sandbox in the words of /v1."""
        return rest.Sandbox(client, {"id": self.id})

    def kill(self) -> None:
        self.client.delete(self.path)


def body(**fields: Any) -> Json:
    """What a creation asks for when a test says nothing else."""
    asked: Json = {
        "image": {"uri": os.environ.get("OPENSANDBOX_TEST_IMAGE", "python:3.11-slim")},
        "entrypoint": WAITS,
        "timeout": 600,
        "resourceLimits": {"cpu": "1", "memory": "1Gi"},
    }
    asked.update(fields)
    return {name: value for name, value in asked.items() if value is not None}
