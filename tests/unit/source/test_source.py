"""A whole source over real sockets: which kinds it waits for, in which namespaces it looks, and how it stops."""

from __future__ import annotations

import threading
from time import monotonic

from atsk8s.source.kinds import CONFIG_MAP, ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, KINDS, NAMESPACE, SECRET, SERVICE
from atsk8s.source.kube.source import KubeSource
from tests.harness.fakeapi import Exchange, FakeApi, refuse
from tests.unit.source.live import PATH, a, plain, source


def test_point_15_one_kind_that_is_forbidden_stops_no_other() -> None:
    with FakeApi() as api, source(api) as it:
        api.always(SECRET.path(), refuse(403, "Forbidden"))
        api.put(PATH, a("x"))
        it.start()
        assert it.wait_synced(10)
        states = {state.name: state for state in it.kinds()}
        assert [name for name, state in states.items() if not state.synced] == ["Secret"]
        assert states["Secret"].settled
        assert "403" in states["Secret"].reason
        assert "RBAC" in states["Secret"].reason
        assert len(it.store(INGRESS)) == 1
        api.always(SECRET.path(), None)
        api.wait_for(lambda: all(state.synced for state in it.kinds()))


def test_point_19_nothing_is_synced_before_every_mandatory_kind_is() -> None:
    with FakeApi() as api, source(api) as it:
        api.always(ENDPOINT_SLICE.path(), refuse(403, "Forbidden"))
        it.start()
        api.wait_for(lambda: [k.name for k in it.kinds() if not k.synced] == ["EndpointSlice"])
        assert not it.wait_synced(0.05)
        (waiting,) = [k for k in it.kinds() if not k.synced]
        assert waiting.mandatory
        assert "403" in waiting.reason
        api.always(ENDPOINT_SLICE.path(), None)
        assert it.wait_synced(10)


def test_point_19_optional_kinds_are_waited_for_until_they_are_refused() -> None:
    released = threading.Event()

    def late(exchange: Exchange) -> None:
        released.wait(10)
        refuse(403, "Forbidden")(exchange)

    with FakeApi() as api, source(api) as it:
        api.always(INGRESS_CLASS.path(), late)
        it.start()
        api.wait_for(lambda: [k.name for k in it.kinds() if not k.synced] == ["IngressClass"])
        assert not it.wait_synced(0.05)
        released.set()
        assert it.wait_synced(10)


def test_point_21_stop_before_start_and_twice() -> None:
    with FakeApi() as api:
        it = KubeSource(plain(api))
        assert it.stop()
        assert it.stop()
        it.start()  # too late: nothing starts
        assert not api.requests
        assert not it.wait_synced(10)


def test_what_is_ignored_is_not_asked_for() -> None:
    with FakeApi() as api:
        it = KubeSource(plain(api), ignore_namespaces=("b", "a"), own_namespaces=("a",), also_mandatory=(NAMESPACE,))
        it.start()
        assert it.wait_synced(10)
        assert it.stop()
        assert {kind.name for kind in it.kinds() if kind.mandatory} == {"Ingress", "Service", "EndpointSlice", "Namespace"}
    without = "metadata.namespace!=a,metadata.namespace!=b"
    fields = {kind.name: {one.query.get("fieldSelector", "") for one in api.asked(kind.path())} for kind in KINDS}
    assert fields["Ingress"] == fields["Service"] == fields["EndpointSlice"] == {without}
    assert fields["Secret"] == {f"type=kubernetes.io/tls,{without}"}
    assert fields["IngressClass"] == fields["Namespace"] == {""}
    assert api.asked(CONFIG_MAP.path("a"))


def test_point_21_stop_ends_every_thread_of_a_source() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with FakeApi() as api:
        it = KubeSource(plain(api), watch_namespaces=("a", "b"))
        it.start()
        assert it.wait_synced(10)
        started = monotonic()
        assert it.stop()
        assert monotonic() - started < 1
        assert it.stop()
    assert {thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")} <= before


def test_namespaces_are_watched_one_by_one() -> None:
    with (
        FakeApi() as api,
        source(api, watch_namespaces=("one", "two"), ignore_namespaces=("two", "own"), own_namespaces=("own", "named")) as it,
    ):
        for namespace in ("one", "two", "three"):
            api.put(SERVICE.path(namespace), {"metadata": {"name": "s", "namespace": namespace}})
        for namespace in ("one", "own", "named"):
            api.put(CONFIG_MAP.path(namespace), {"metadata": {"name": "c", "namespace": namespace}})
        it.start()
        assert it.wait_synced(10)
        assert [str(key) for key in it.store(SERVICE).snapshot()] == ["one/s"]
        assert sorted(str(key) for key in it.store(CONFIG_MAP).snapshot()) == ["named/c", "own/c"]
        assert {r.path for r in api.requests} == {
            *(kind.path(n) for kind in KINDS if kind.namespaced and not kind.is_own for n in ("one", "two")),
            *(CONFIG_MAP.path(n) for n in ("own", "named")),
            *(kind.path() for kind in KINDS if not kind.namespaced),
        }
        api.put(SERVICE.path("one"), {"metadata": {"name": "t", "namespace": "one"}})
        api.wait_for(lambda: len(it.store(SERVICE)) == 2)
