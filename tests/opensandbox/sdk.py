"""Both forms of the Python clients, synchronous and asynchronous, behind one way of calling.

Owns: turning the asynchronous client into something that can be called from a plain test. Does not
own anything that a test asserts. The clients themselves are not touched.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

import code_interpreter
import opensandbox
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.models.execd import ExecutionHandlers
from opensandbox.models.execd_sync import ExecutionHandlersSync
from pydantic import BaseModel

REQUEST_SECONDS_MAX = 60
INTERPRETER = "opensandbox/code-interpreter:v1.0.1"
ENTRYPOINT = ["/opt/opensandbox/code-interpreter.sh"]


class Sync:
    """The synchronous client as it is."""

    name = "sync"
    Sandbox = opensandbox.SandboxSync
    Manager = opensandbox.SandboxManagerSync
    CodeInterpreter = code_interpreter.CodeInterpreterSync

    def __init__(self, domain: str, api_key: str):
        self.domain, self.api_key = domain, api_key

    def config(self, **options: Any) -> ConnectionConfigSync:
        return ConnectionConfigSync(**self.options(options))

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        known = {"domain": self.domain, "api_key": self.api_key}
        return {**known, "request_timeout": timedelta(seconds=REQUEST_SECONDS_MAX), **given}

    def handlers(self, **calls: Callable[[Any], Any]) -> ExecutionHandlersSync:
        return ExecutionHandlersSync(**calls)

    def close(self) -> None:
        pass


class Async(Sync):
    """The asynchronous client, run to the end of each call."""

    name = "async"

    def __init__(self, domain: str, api_key: str):
        super().__init__(domain, api_key)
        self.runner = asyncio.Runner()
        self.Sandbox = Blocking(opensandbox.Sandbox, self.runner)
        self.Manager = Blocking(opensandbox.SandboxManager, self.runner)
        self.CodeInterpreter = Blocking(code_interpreter.CodeInterpreter, self.runner)

    def config(self, **options: Any) -> ConnectionConfig:
        return ConnectionConfig(**self.options(options))

    def handlers(self, **calls: Callable[[Any], Any]) -> ExecutionHandlers:
        return ExecutionHandlers(**{name: awaiting(call) for name, call in calls.items()})

    def close(self) -> None:
        self.runner.close()


class Blocking:
    """An object of the asynchronous client, called as if it were one of the synchronous: awaits
    what it returns, turns asynchronous iterators and context managers into plain ones. Inside of a
    handler, where the loop runs already, it returns the awaitable."""

    def __init__(self, target: Any, runner: asyncio.Runner):
        self.__dict__.update(target=target, runner=runner)

    def __getattr__(self, name: str) -> Any:
        return self._settle(getattr(self.target, name))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        plain = [bare(argument) for argument in arguments]
        return self._settle(self.target(*plain, **{k: bare(v) for k, v in options.items()}))

    def __enter__(self) -> Any:
        return self._settle(self.target.__aenter__())

    def __exit__(self, *problem: Any) -> Any:
        return self._settle(self.target.__aexit__(*problem))

    def __iter__(self) -> Iterator[Any]:
        stream = aiter(self.target)
        try:
            while True:
                try:
                    yield self.runner.run(awaited(anext(stream)))
                except StopAsyncIteration:
                    return
        finally:
            self.runner.run(awaited(stream.aclose()))

    def _settle(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            if running():
                return value
            value = self.runner.run(awaited(value))
        return Blocking(value, self.runner) if acts(value) else value


def acts(value: Any) -> bool:
    """Whether something may have methods to wait for: data has none."""
    if isinstance(value, (BaseModel, BaseException, Enum, ConnectionConfig)):
        return False
    theirs = type(value).__module__.startswith(("opensandbox", "code_interpreter"))
    waits = hasattr(value, "__aenter__") or hasattr(value, "__anext__")
    return theirs or waits or callable(value)


def bare(value: Any) -> Any:
    return value.target if isinstance(value, Blocking) else value


def running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def awaited(value: Any) -> Any:
    return await value


def awaiting(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def handler(message: Any) -> None:
        result = call(message)
        if inspect.isawaitable(result):
            await result

    return handler


def out(execution: Any) -> str:
    """Standard output of a run as one text. A command's lines come without their ends."""
    return "".join(message.text for message in execution.logs.stdout)


def lines(execution: Any, stream: str = "stdout") -> list[str]:
    return [message.text for message in getattr(execution.logs, stream)]


def texts(execution: Any) -> list[str | None]:
    return [result.text for result in execution.result]
