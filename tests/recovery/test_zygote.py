"""The warm interpreters are replaced, one way or another, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable

from machine import Client, Machine, alive, kill, wait_for
from server import Server


def test_a_killed_zygote_is_replaced(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    old_context = client.context(sandbox)
    client.run(sandbox, "x = 3", old_context)
    for _ in range(2):
        (zygote,) = machine.zygotes()
        kill(zygote)
        wait_for("its end", lambda: not alive(zygote))
        assert client.value(sandbox, "1 + 1", client.context(sandbox)) == "2"
        assert zygote not in machine.zygotes()
    assert client.value(sandbox, "x", old_context) == "3", "its children do not die with it"


def test_a_stopped_zygote_does_not_stop_the_spawner(start: Callable[..., Server]) -> None:
    """Forks wait; everything else goes on."""
    import signal

    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "x = 3")
    (zygote,) = machine.zygotes()
    kill(zygote, signal.SIGSTOP)
    try:
        assert client.value(sandbox, "x") == "3"
        other = client.create()
        client.destroy(other)
    finally:
        kill(zygote, signal.SIGCONT)
    assert client.value(sandbox, "1 + 1", client.context(sandbox)) == "2"


def test_renewal_costs_nobody_a_context(start: Callable[..., Server]) -> None:
    server = start("--pool", "0", "--zygote-forks-max", "5")
    client, machine = Client(server), Machine(server)
    seen: set[int] = set()
    seeds: set[str] = set()
    for number in range(30):
        if number % 10 == 0:
            sandbox = client.create()
        context = client.context(sandbox)
        assert client.value(sandbox, f"{number} + 1", context) == str(number + 1)
        seeds.add(client.value(sandbox, "hash('a')", context))
        seen |= set(machine.zygotes())
    wait_for("a new zygote", lambda: seen.update(machine.zygotes()) or len(seen) > 1)
    wait_for("the end of the old ones", lambda: len(machine.zygotes()) == 1)
    assert client.value(sandbox, "1 + 1", client.context(sandbox)) == "2"
    fresh = client.value(sandbox, "hash('a')", client.context(sandbox))
    assert len(seeds | {fresh}) > 1, "another zygote has another hash seed"
