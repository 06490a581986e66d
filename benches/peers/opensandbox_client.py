"""OpenSandbox's own Python client, unmodified, with the server that is measured: one JSON line in,
one JSON line out.

    {"op": "first"}                     a sandbox with its interpreter, until its first result
    {"op": "warm", "n": 50}             codes.run("1+1"), again and again
    {"op": "command", "n": 50}          commands.run("true"), again and again

Each is answered by {"ms": [..]}. Its arguments are the domain, the key, the kind of client (sync
or async) and which certificates it is to trust (all or few): for each of its connections it reads
all of certifi's, also to talk plain HTTP, which takes longer than everything else. The clock is the client's: from the call to what it returns. Ends, with its sandbox, when
stdin does.
"""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

IMAGE = "opensandbox/code-interpreter:v1.0.1"
ENTRYPOINT = ["/opt/opensandbox/code-interpreter.sh"]
LIFE = timedelta(minutes=30)


class Async:
    """The asynchronous client."""

    def __init__(self, domain, key):
        from code_interpreter import CodeInterpreter
        from opensandbox import Sandbox
        from opensandbox.config import ConnectionConfig

        self.sandboxes, self.interpreters = Sandbox, CodeInterpreter
        self.config = ConnectionConfig(domain=domain, api_key=key).with_transport_if_missing()

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

    def __init__(self, domain, key):
        from code_interpreter import CodeInterpreterSync
        from opensandbox import SandboxSync
        from opensandbox.config import ConnectionConfigSync

        self.sandboxes, self.interpreters = SandboxSync, CodeInterpreterSync
        self.config = ConnectionConfigSync(domain=domain, api_key=key).with_transport_if_missing()

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


def trust_few():
    """The first certificate of all: a program that talks to one server needs no more."""
    import certifi

    end = "-----END CERTIFICATE-----\n"
    first = Path(certifi.where()).read_text().split(end)[0] + end
    few = Path(__file__).with_name("few.pem")
    few.write_text(first)
    os.environ["SSL_CERT_FILE"] = str(few)


async def main():
    domain, key, kind, certificates = sys.argv[1:]
    if certificates == "few":
        trust_few()
    client = (Sync if kind == "sync" else Async)(domain, key)
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
