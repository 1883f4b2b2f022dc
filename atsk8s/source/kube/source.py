"""All kinds from one API server: a reflector thread for each kind, or for each kind and watched namespace."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from atsk8s.api.meta import K, ObjectKey
from atsk8s.source.interface import Clock, Jitter, KindStatus, Problem, SyncBarrier, Wait, is_synced
from atsk8s.source.kinds import KINDS, AnyKind, Kind
from atsk8s.source.kube.credentials import Load
from atsk8s.source.kube.pacing import StreamedLists
from atsk8s.source.kube.reflector import Reflector
from atsk8s.source.kube.transport import KubeTransport
from atsk8s.source.store import Listener, Store
from atsk8s.threads import Keeper, Kept


class KubeSource:
    """See `interface.Source`.

    Args:
        load: where the credentials come from: `credentials.from_kubeconfig` or `from_service_account` with their arguments bound.
        kinds: what to watch.
        watch_namespaces: of a namespaced kind, list and watch only these; () for all.  Needs RBAC only in these.
        ignore_namespaces: neither list nor watch what is in these.
        own_namespaces: the controller's; of kinds that are read in these alone, whatever the two above say.
        clock: monotonic seconds.
        jitter: uniform in [a, b].
        wait: sleeps, True when the source is to stop; by default the source's own stop event.
        keeper: starts a thread again that ended too early.
        also_mandatory: kinds that are, besides those that always are: what decides about the others.
    """

    def __init__(
        self,
        load: Load,
        *,
        kinds: Sequence[AnyKind] = KINDS,
        watch_namespaces: tuple[str, ...] = (),
        ignore_namespaces: tuple[str, ...] = (),
        own_namespaces: tuple[str, ...] = ("default",),
        clock: Clock = time.monotonic,
        jitter: Jitter = random.uniform,
        wait: Wait | None = None,
        keeper: Keeper | None = None,
        also_mandatory: tuple[AnyKind, ...] = (),
    ) -> None:
        self._load = load
        self._also_mandatory = frozenset(also_mandatory)
        self._clock = clock
        self._jitter = jitter
        self._stores: dict[AnyKind, Store[Any]] = {kind: Store(kind) for kind in kinds}
        self._namespaces = tuple(dict.fromkeys(watch_namespaces))
        self._own = tuple(dict.fromkeys(own_namespaces))
        self._ignored = frozenset(ignore_namespaces)
        self._barrier = SyncBarrier(clock)
        self._stopping = threading.Event()
        self._wait: Wait = wait or self._stopping.wait
        self._lifecycle = threading.Lock()
        self._transport: KubeTransport | None = None
        self._reflectors: dict[AnyKind, tuple[Reflector[Any], ...]] = {}
        self._keeper = keeper or Keeper(clock)
        self._threads: list[Kept] = []

    def store(self, kind: Kind[K]) -> Store[K]:
        """See `interface.Source`."""
        return self._stores[kind]

    def subscribe(self, listener: Listener) -> None:
        """See `interface.Source`."""
        for store in self._stores.values():
            store.subscribe(listener)

    def start(self) -> None:
        """See `interface.Source`.  An API server that is away is no error: it is asked again until it answers."""
        with self._lifecycle:
            if self._stopping.is_set() or self._threads:
                return
            transport = KubeTransport(self._load, self._clock)
            streamed_lists = StreamedLists(self._clock)
            for kind, store in self._stores.items():
                scopes = self._own if kind.is_own else (self._namespaces or ("",)) if kind.namespaced else ("",)
                self._reflectors[kind] = tuple(self._reflector(kind, store, transport, streamed_lists, scope) for scope in scopes)
            self._transport = transport
            for reflectors in self._reflectors.values():
                for reflector in reflectors:
                    name = f"watch-{reflector.kind.plural}" + (f"-{reflector.namespace}" if reflector.namespace else "")
                    self._threads.append(self._keeper.keep(reflector.run, name=name, purpose="watch"))

    def _reflector(
        self, kind: AnyKind, store: Store[Any], transport: KubeTransport, streamed_lists: StreamedLists, namespace: str
    ) -> Reflector[Any]:
        # What is ignored does not even leave the server; and should it all the same, it is dropped.
        is_everywhere = kind.namespaced and not kind.is_own and not namespace
        return Reflector(
            kind.without(self._ignored) if is_everywhere else kind,
            store,
            transport,
            clock=self._clock,
            wait=self._wait,
            jitter=self._jitter,
            streamed_lists=streamed_lists,
            namespace=namespace,
            is_ignored=_is_never_ignored if kind.is_own else self._is_ignored,
            on_progress=self._barrier.notify,
        )

    def _is_ignored(self, key: ObjectKey) -> bool:
        return key.namespace in self._ignored

    def stop(self, timeout_s: float = 5.0) -> bool:
        """See `interface.Source`.  A thread that is connecting ends with its connection timeout at the latest."""
        deadline = self._clock() + timeout_s
        self._stopping.set()
        self._barrier.close()
        with self._lifecycle:
            transport, threads = self._transport, list(self._threads)
        if transport is not None:
            transport.close()
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock()))
        return not any(thread.is_alive() for thread in threads)

    def wait_synced(self, timeout_s: float) -> bool:
        """See `interface.Source`."""
        return self._barrier.wait(lambda: is_synced(self.kinds()), timeout_s)

    def problems(self) -> tuple[Problem, ...]:
        """See `interface.Source`: an API server has only objects."""
        return ()

    def kinds(self) -> tuple[KindStatus, ...]:
        """See `interface.Source`."""
        return tuple(self._status(kind, store) for kind, store in self._stores.items())

    def _status(self, kind: AnyKind, store: Store[Any]) -> KindStatus:
        states = [reflector.progress for reflector in self._reflectors.get(kind, ())]
        now = self._clock()
        ages = [now - state.contact_at if state.contact_at is not None else float("inf") for state in states]
        reasons = list(dict.fromkeys(state.reason for state in states if state.reason))
        return KindStatus(
            name=kind.name,
            mandatory=kind.mandatory or kind in self._also_mandatory,
            synced=bool(states) and all(state.synced for state in states),
            settled=bool(states) and all(state.settled for state in states),
            reason="; ".join(reasons) if states else "not started",
            n_objects=len(store),
            n_rejected=store.n_rejected,
            n_relists=sum(state.n_relists for state in states),
            n_events=sum(state.n_events for state in states),
            n_requests=sum(state.n_requests for state in states),
            staleness_s=max(ages, default=float("inf")),
            n_listener_errors=store.n_listener_errors,
            still_s=max((now - state.moved_at for state in states if state.moved_at is not None), default=0.0),
        )


def _is_never_ignored(_key: ObjectKey) -> bool:
    return False
