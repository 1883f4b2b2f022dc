"""What the controller sees of a source: stores, whether they are synced, and a way to start and stop.

Threads: a source has its own daemon threads.  They write the stores and call the listeners, which note what is dirty and return;
nothing is queued per event, so a slow controller cannot block a socket.  Everything else may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from atsk8s.api.meta import K, ObjectKey
from atsk8s.errors import Reason
from atsk8s.source.kinds import Kind
from atsk8s.source.store import Listener, Store

Clock = Callable[[], float]  # monotonic seconds
Wait = Callable[[float], bool]  # sleeps that many seconds or until the source is stopped; True if stopped
Jitter = Callable[[float, float], float]  # uniform in [a, b]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindStatus:
    """State of one kind, over all watched namespaces."""

    name: str
    mandatory: bool
    synced: bool  # a full list has been taken in at least once
    settled: bool  # synced, or refused in a way that a little waiting does not change (403, 404)
    reason: str  # why it is not synced, or why it is stale; "" if all is well
    n_objects: int
    n_rejected: int
    n_relists: int
    n_events: int
    n_requests: int
    staleness_s: float  # since the source last spoke to us; inf before it ever did
    n_listener_errors: int = 0
    still_s: float = 0.0  # since its thread last did anything, a wait or a request included


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong with what is no object of a kind, or not yet: a file, or a document in it."""

    origin: str  # "file", or "file:line" of the document
    reason: Reason
    message: str
    kind: str = ""  # "" if the document did not say
    key: ObjectKey | None = None


class Source(Protocol):
    """See the module.

    The order is: `subscribe`, `start`, `wait_synced`, read the stores, `stop`.
    """

    def store(self, kind: Kind[K]) -> Store[K]:
        """The store of a kind.  KeyError for one that the source was not made for."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` for every change of every kind.  Before `start`."""
        ...

    def start(self) -> None:
        """Start the threads.

        Raises:
            KubeError: the source can never work as configured (no such file, unreadable, malformed); the message says what to do.
        """
        ...

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the threads; True if all have ended in time.  May be called at any moment, and again."""
        ...

    def wait_synced(self, timeout_s: float) -> bool:
        """Wait until every mandatory kind is synced and every other one settled; False on timeout or when stopped."""
        ...

    def kinds(self) -> tuple[KindStatus, ...]:
        """State of every kind, for health, metrics and messages."""
        ...

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong at the moment with files and documents; () for a source that has none."""
        ...


class SyncBarrier:
    """Lets `wait_synced` sleep until a source's threads report progress, without a poll."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False

    def notify(self) -> None:
        """A kind has synced, settled or failed: look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Wake every waiter for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for `is_done`; False on timeout or `close`."""
        deadline = self._clock() + timeout_s
        with self._changed:
            while not self._closed:
                if is_done():
                    return True
                left = deadline - self._clock()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return False


def is_synced(kinds: tuple[KindStatus, ...]) -> bool:
    """What `Source.wait_synced` waits for."""
    return all(kind.synced if kind.mandatory else kind.settled for kind in kinds)
