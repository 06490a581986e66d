"""The pools that the clients keep by themselves: `SandboxPoolSync`, `SandboxPoolAsync`, and the
managers that destroy them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from opensandbox import (
    AcquirePolicy,
    InMemoryAsyncPoolStateStore,
    InMemoryPoolStateStore,
    PoolCreationSpec,
    PoolDestroyState,
    SandboxPoolAsync,
    SandboxPoolManagerAsync,
    SandboxPoolManagerSync,
    SandboxPoolSync,
)
from opensandbox.exceptions import PoolEmptyException, PoolNotRunningException

from sdk import Async, Sync, lines

WARM_SECONDS_MAX = 60
LOOK_SECONDS = 0.05


@pytest.fixture
def sync(domain, server) -> Sync:
    return Sync(domain, server.api_key)


@pytest.fixture
def asynchronous(domain, server):
    sdk = Async(domain, server.api_key)
    yield sdk
    sdk.close()


def options(store, config, idle: int) -> dict:
    return {
        "pool_name": f"p{uuid4().hex}",
        "max_idle": idle,
        "state_store": store,
        "connection_config": config,
        "creation_spec": PoolCreationSpec(image="python:3.11", metadata={"pooled": "yes"}),
    }


def test_a_pool(sync, ours):
    store = InMemoryPoolStateStore()
    pool = SandboxPoolSync(**options(store, sync.config(), 2))
    with pytest.raises(PoolNotRunningException):
        pool.acquire()
    pool.start()

    def idle(count: int) -> None:
        deadline = time.monotonic() + WARM_SECONDS_MAX
        while pool.snapshot().idle_count != count:
            assert time.monotonic() < deadline, pool.snapshot()
            time.sleep(LOOK_SECONDS)

    idle(2)
    waiting = {entry.sandbox_id for entry in pool.snapshot_idle_entries()}
    sandbox = pool.acquire(sandbox_timeout=timedelta(minutes=5))
    assert sandbox.id in waiting and lines(sandbox.commands.run("echo ready")) == ["ready"]
    assert sandbox.get_info().metadata["pooled"] == "yes"
    idle(2)
    pool.resize(0)
    assert pool.release_all_idle() + pool.release_all_idle_parallel(max_workers=2) <= 3
    idle(0)
    with pytest.raises(PoolEmptyException):
        pool.acquire(policy=AcquirePolicy.FAIL_FAST)
    made = pool.acquire(policy=AcquirePolicy.DIRECT_CREATE)
    assert made.is_healthy() and made.id not in waiting
    for each in (sandbox, made):
        each.destroy()
    pool.shutdown(graceful=True)
    alive = {s["id"] for s in ours.get("/v1/sandboxes", params={"limit": 500}).json()["data"]}
    assert not waiting & alive, "what was idle is gone"


def test_a_manager_destroys_a_pool(sync):
    store = InMemoryPoolStateStore()
    given = options(store, sync.config(), 1)
    pool = SandboxPoolSync(**given)
    pool.start()
    deadline = time.monotonic() + WARM_SECONDS_MAX
    while pool.snapshot().idle_count != 1:
        assert time.monotonic() < deadline
        time.sleep(LOOK_SECONDS)
    (entry,) = pool.snapshot_idle_entries()
    pool.shutdown(graceful=False)
    manager = SandboxPoolManagerSync(state_store=store, connection_config=sync.config())
    result = manager.destroy(given["pool_name"])
    assert result.state == PoolDestroyState.DESTROYED and result.killed_idle_count <= 1
    sandboxes = sync.Manager.create(sync.config())
    states = [i.id for i in listed(sandboxes) if i.status.state == "Running"]
    sandboxes.close()
    assert entry.sandbox_id not in states


def listed(manager):
    from opensandbox.models.sandboxes import SandboxFilter

    return manager.list_sandbox_infos(SandboxFilter(metadata={"pooled": "yes"})).sandbox_infos


def test_an_asynchronous_pool(asynchronous):
    async def story() -> None:
        store = InMemoryAsyncPoolStateStore()
        given = options(store, asynchronous.config(), 1)
        pool = SandboxPoolAsync(**given)
        await pool.start()

        async def idle(count: int) -> None:
            async with asyncio.timeout(WARM_SECONDS_MAX):
                while (await pool.snapshot()).idle_count != count:
                    await asyncio.sleep(LOOK_SECONDS)

        await idle(1)
        (entry,) = await pool.snapshot_idle_entries()
        sandbox = await pool.acquire(sandbox_timeout=timedelta(minutes=5))
        assert sandbox.id == entry.sandbox_id
        assert lines(await sandbox.commands.run("echo ready")) == ["ready"]
        await idle(1)
        await pool.resize(0)
        assert await pool.release_all_idle() + await pool.release_all_idle_parallel(2) <= 2
        await idle(0)
        with pytest.raises(PoolEmptyException):
            await pool.acquire(policy=AcquirePolicy.FAIL_FAST)
        await sandbox.destroy()
        await pool.shutdown(graceful=True)
        manager = SandboxPoolManagerAsync(
            state_store=store, connection_config=asynchronous.config()
        )
        result = await manager.destroy(given["pool_name"])
        assert result.state == PoolDestroyState.DESTROYED

    asyncio.run(story())
