"""OpenSandbox's own Python client, unmodified, with the server that is measured: one JSON line in,
one JSON line out.

    {"op": "first"}                     a sandbox with its interpreter, until its first result
    {"op": "warm", "n": 50}             codes.run("1+1"), again and again
    {"op": "command", "n": 50}          commands.run("true"), again and again

Each is answered by {"ms": [..]}. Its arguments are the domain, the key, the kind of client (sync
or async) and its transport: "own", made anew for every sandbox, which is its default, or "shared"
by all, which its manual advises to whoever creates many sandboxes. A transport reads all of
certifi's certificates when it is made, also to talk plain HTTP, and that takes longer than all
requests together. The clock is the client's: from the call to what it returns. Ends, with its
sandbox, when stdin does.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta

IMAGE = "opensandbox/code-interpreter:v1.0.1"
ENTRYPOINT = ["/opt/opensandbox/code-interpreter.sh"]
LIFE = timedelta(minutes=30)


class Async:
    """The asynchronous client."""

    def __init__(self, domain, key, shared):
        import httpx
        from code_interpreter import CodeInterpreter
        from opensandbox import Sandbox
        from opensandbox.config import ConnectionConfig

        self.sandboxes, self.interpreters = Sandbox, CodeInterpreter
        given = {"transport": httpx.AsyncHTTPTransport()} if shared else {}
        self.config = ConnectionConfig(domain=domain, api_key=key, **given)

    async def open(self):
        sandbox = await self.sandboxes.create(
            IMAGE, entrypoint=ENTRYPOINT, timeout=LIFE, connection_config=self.config
        )
        return sandbox, await self.interpreters.create(sandbox=sandbox)

    async def evaluate(self, interpreter):
        return await interpreter.codes.run("1+1")

    async def command(self, sandbox):
        return await sandbox.commands.run("true")

    async def kill(self, sandbox):
        await sandbox.kill()


class Sync(Async):
    """The synchronous client; the methods wait for nothing."""

    def __init__(self, domain, key, shared):
        import httpx
        from code_interpreter import CodeInterpreterSync
        from opensandbox import SandboxSync
        from opensandbox.config import ConnectionConfigSync

        self.sandboxes, self.interpreters = SandboxSync, CodeInterpreterSync
        given = {"transport": httpx.HTTPTransport()} if shared else {}
        self.config = ConnectionConfigSync(domain=domain, api_key=key, **given)

    async def open(self):
        sandbox = self.sandboxes.create(
            IMAGE, entrypoint=ENTRYPOINT, timeout=LIFE, connection_config=self.config
        )
        return sandbox, self.interpreters.create(sandbox=sandbox)

    async def evaluate(self, interpreter):
        return interpreter.codes.run("1+1")

    async def command(self, sandbox):
        return sandbox.commands.run("true")

    async def kill(self, sandbox):
        sandbox.kill()


async def first(client):
    began = time.perf_counter()
    sandbox, interpreter = await client.open()
    run = await client.evaluate(interpreter)
    took = (time.perf_counter() - began) * 1e3
    check(run)
    await client.kill(sandbox)
    return [took]


async def warm(client, interpreter, count):
    times = []
    for _ in range(count):
        began = time.perf_counter()
        run = await client.evaluate(interpreter)
        times.append((time.perf_counter() - began) * 1e3)
        check(run)
    return times


def check(run):
    if [result.text for result in run.result] != ["2"]:
        raise RuntimeError(f"not 2 but {run!r}")


async def commands(client, sandbox, count):
    times = []
    for _ in range(count):
        began = time.perf_counter()
        run = await client.command(sandbox)
        times.append((time.perf_counter() - began) * 1e3)
        if run.exit_code != 0:
            raise RuntimeError(f"true failed: {run!r}")
    return times


async def main():
    domain, key, kind, transport = sys.argv[1:]
    client = (Sync if kind == "sync" else Async)(domain, key, transport == "shared")
    sandbox = interpreter = None
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            request = json.loads(line)
            if request["op"] == "first":
                times = await first(client)
            else:
                if sandbox is None:
                    sandbox, interpreter = await client.open()
                if request["op"] == "warm":
                    times = await warm(client, interpreter, request["n"])
                else:
                    times = await commands(client, sandbox, request["n"])
            print(json.dumps({"ms": times}), flush=True)
    finally:
        if sandbox is not None:
            await client.kill(sandbox)


asyncio.run(main())
