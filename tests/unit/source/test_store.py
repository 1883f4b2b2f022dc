"""The store: what readers see, and what listeners are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.api.networking import Ingress
from atsk8s.errors import Reason
from atsk8s.source.interface import KindStatus, SyncBarrier, is_synced
from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, KINDS, SECRET, SERVICE, AnyKind
from atsk8s.source.store import Change, Rejection, Store


def a(name: str, version: str = "1", namespace: str = "ns") -> tuple[ObjectKey, Ingress]:
    return ObjectKey(namespace, name), Ingress(metadata=ObjectMeta(name=name, namespace=namespace, resource_version=version))


def make() -> tuple[Store[Ingress], list[list[tuple[str, bool, bool]]]]:
    told: list[list[tuple[str, bool, bool]]] = []

    def listen(_: AnyKind, changes: Sequence[Change[Any]]) -> None:
        told.append([(str(c.key), c.old is not None, c.new is not None) for c in changes])

    return Store(INGRESS, [listen]), told


def test_one_change_is_one_call() -> None:
    store, told = make()
    store.put(*a("x"))
    store.put(*a("x"))
    store.put(*a("x", "2"))
    store.delete(ObjectKey("ns", "x"))
    store.delete(ObjectKey("ns", "x"))
    assert told == [[("ns/x", False, True)], [("ns/x", True, True)], [("ns/x", True, False)]]


def test_replace_of_one_namespace_leaves_the_others() -> None:
    store, told = make()
    store.replace(dict([a("x", namespace="one"), a("y", namespace="two")]))
    store.replace(dict([a("z", namespace="one")]), namespace="one")
    assert sorted(str(key) for key in store.snapshot()) == ["one/z", "two/y"]
    assert sorted(told[1]) == [("one/x", True, False), ("one/z", False, True)]


def test_replace_by_nothing_is_told_too() -> None:
    """A listener learns that the list is in, even an empty one."""
    store, told = make()
    store.replace({})
    assert told == [[]]


def test_rejection_is_forgotten_with_its_cause() -> None:
    store, _ = make()
    key, obj = a("x")
    store.reject(key, Rejection(reason=Reason.MALFORMED, message="m"))
    assert store.n_rejected == 1
    store.put(key, obj)
    assert not store.rejected
    store.reject(key, Rejection(reason=Reason.MALFORMED, message="m"))
    store.delete(key)
    assert not store.rejected


def test_snapshot_is_the_callers() -> None:
    store, _ = make()
    store.put(*a("x"))
    store.snapshot().clear()
    assert len(store) == 1
    assert ObjectKey("ns", "x") in store


def test_table_of_kinds() -> None:
    assert {kind.name for kind in KINDS if kind.mandatory} == {"Ingress", "Service", "EndpointSlice"}
    assert INGRESS.path() == "/apis/networking.k8s.io/v1/ingresses"
    assert SERVICE.path("x") == "/api/v1/namespaces/x/services"
    assert ENDPOINT_SLICE.path() == "/apis/discovery.k8s.io/v1/endpointslices"
    assert SECRET.path() == "/api/v1/secrets"
    assert not INGRESS_CLASS.namespaced


def state(*, mandatory: bool, synced: bool, settled: bool) -> KindStatus:
    return KindStatus(
        name="x", mandatory=mandatory, synced=synced, settled=settled, reason="", n_objects=0, n_rejected=0, n_relists=0,
        n_events=0, n_requests=0, staleness_s=0,
    )  # fmt: skip


def test_point_19_barrier() -> None:
    assert is_synced((state(mandatory=True, synced=True, settled=True), state(mandatory=False, synced=False, settled=True)))
    assert not is_synced((state(mandatory=True, synced=False, settled=True),))
    assert not is_synced((state(mandatory=False, synced=False, settled=False),))
    barrier = SyncBarrier()
    assert barrier.wait(lambda: True, 0)
    assert not barrier.wait(lambda: False, 0.01)
    barrier.close()
    assert not barrier.wait(lambda: True, 10)
