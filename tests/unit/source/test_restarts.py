"""Threads of sources that end before their time: started again, and nothing missed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atsk8s.source.kinds import INGRESS, KINDS, SERVICE, AnyKind
from atsk8s.source.kube.events import REPEAT_S
from atsk8s.source.manifests import ManifestSource
from atsk8s.source.store import Change
from atsk8s.threads import Keeper
from tests.harness.fakeapi import FakeApi
from tests.harness.processes import await_condition
from tests.unit.source.live import PATH, a, source
from tests.unit.source.paper_events import World


def end(name: str, error: type[BaseException]) -> None:
    """As a debugger, a library or the lack of memory would: at any point of the thread."""
    for thread in threading.enumerate():
        if thread.name == name and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(error))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_watch_thread_that_ends_is_started_again_with_a_list(error: type[BaseException]) -> None:
    keeper = Keeper()
    with FakeApi() as api, source(api, kinds=(INGRESS,), keeper=keeper) as it:
        api.put(PATH, a("before"))
        it.start()
        assert it.wait_synced(10)
        end("watch-ingresses", error)
        api.put(PATH, a("woke"))  # the thread meets the exception when it wakes
        api.wait_for(lambda: not it._threads[0].is_alive())
        api.delete(PATH, "before", "ns")
        errors = it.store(INGRESS).n_listener_errors
        keeper.tend()
        api.wait_for(lambda: {key.name for key in it.store(INGRESS).snapshot()} == {"woke"})
        assert keeper.restarts.counts() == {"watch": 1}
        assert it.store(INGRESS).n_listener_errors == errors + 1  # whoever listens reads everything anew
        assert it.kinds()[0].n_relists == 1
        assert it.kinds()[0].synced


def test_other_kinds_go_on() -> None:
    with FakeApi() as api, source(api, keeper=Keeper()) as it:
        it.start()
        assert it.wait_synced(10)
        end("watch-ingresses", SystemExit)
        api.put(PATH, a("x"))
        api.wait_for(lambda: sum(not thread.is_alive() for thread in it._threads) == 1)
        api.put(SERVICE.path(), a("s"))
        api.wait_for(lambda: len(it.store(SERVICE)) == 1)
        assert len(it._threads) == len(KINDS)


def test_the_thread_of_a_directory_is_started_again_and_reads_everything(tmp_path: Path) -> None:
    keeper = Keeper()
    told: list[str] = []

    def listen(kind: AnyKind, changes: Sequence[Change[Any]], /) -> None:
        told.extend(change.key.name for change in changes)

    it = ManifestSource(tmp_path, kinds=(INGRESS,), keeper=keeper)
    it.subscribe(listen)
    publish = it._publish

    def fail() -> None:
        it._publish = publish  # type: ignore[method-assign]
        raise SystemExit

    it._publish = fail  # type: ignore[method-assign]
    (tmp_path / "a.yaml").write_text(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, namespace: ns}\nspec: {}\n", encoding="utf-8"
    )
    it.start()
    assert it._thread is not None
    it._thread.join(10)
    assert not it._thread.is_alive()
    keeper.tend()
    try:
        assert it.wait_synced(10)
        assert told == ["a"]
        assert keeper.restarts.counts() == {"watch": 1}
    finally:
        it.stop()


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_the_thread_of_events_is_started_again_and_tells_last_of_what_ended_it(error: type[BaseException]) -> None:
    world, keeper = World(), Keeper()

    def fail_once(_method: str, _path: str) -> None:
        if len(world.server.requests) == 1:
            raise error

    def told() -> list[str]:
        return [event["involvedObject"]["name"] for event in world.server.events.values()]

    world.server.always = fail_once
    for name in ("poison", "shop"):
        world.reject(world.source.ingress(name))
    writer = world.writer
    writer.start(keeper)
    try:
        await_condition("its thread ends", lambda: writer._thread is not None and not writer._thread.is_alive())
        keeper.tend()
        assert keeper.restarts.counts() == {"events": 1}
        await_condition("the other is told of", lambda: writer.report.n_written == 1)
        assert told() == ["shop"]
        world.clock.now_s += REPEAT_S[1]
        writer._wake.set()
        await_condition("what ended it is told of", lambda: told() == ["shop", "poison"])
    finally:
        writer.stop()
