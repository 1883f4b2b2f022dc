"""A reflector, or a whole source, on its own thread against a `FakeApi`, with waits cut short."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from atsk8s.source.kinds import INGRESS, KINDS, AnyKind
from atsk8s.source.kube.credentials import Credentials, Load
from atsk8s.source.kube.pacing import StreamedLists
from atsk8s.source.kube.reflector import Reflector
from atsk8s.source.kube.source import KubeSource
from atsk8s.source.kube.transport import KubeTransport
from atsk8s.source.store import Store
from tests.harness.fakeapi import FakeApi

PATH = INGRESS.path()
LONGEST_WAIT_S = 0.02  # what the backoff's seconds become


@dataclass
class Live:
    """What runs."""

    reflector: Reflector[Any]
    store: Store[Any]
    transport: KubeTransport
    stopping: threading.Event
    thread: threading.Thread

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.store.snapshot()}

    def stop(self) -> float:
        """End it; seconds that took."""
        started = monotonic()
        self.stopping.set()
        self.transport.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        return monotonic() - started


def a(name: str) -> dict[str, object]:
    """An object with nothing in it."""
    return {"metadata": {"name": name, "namespace": "ns"}, "spec": {}}


def plain(api: FakeApi) -> Load:
    """Credentials without any."""
    return lambda: Credentials(server=api.url, origin="test")


@contextlib.contextmanager
def live(api: FakeApi, *, load: Load | None = None, kind: AnyKind = INGRESS, streams: bool = True) -> Iterator[Live]:
    """One reflector."""
    stopping = threading.Event()
    transport = KubeTransport(load or plain(api))
    store: Store[Any] = Store(kind)
    streamed_lists = StreamedLists(monotonic)
    if not streams:
        streamed_lists.refuse()
    reflector: Reflector[Any] = Reflector(
        kind,
        store,
        transport,
        clock=monotonic,
        wait=lambda seconds: stopping.wait(min(seconds, LONGEST_WAIT_S)),
        jitter=lambda low, _: low,
        streamed_lists=streamed_lists,
    )
    thread = threading.Thread(target=reflector.run, daemon=True)
    running = Live(reflector, store, transport, stopping, thread)
    thread.start()
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def source(api: FakeApi, *, kinds: tuple[AnyKind, ...] = KINDS, load: Load | None = None, **options: Any) -> Iterator[KubeSource]:
    """A whole source, not yet started."""
    stop: list[Callable[[float], bool]] = []
    running = KubeSource(
        load or plain(api),
        kinds=kinds,
        jitter=lambda low, _: low,
        wait=lambda seconds: stop[0](min(seconds, LONGEST_WAIT_S)),
        **options,
    )
    stop.append(running._stopping.wait)
    try:
        yield running
    finally:
        assert running.stop()
