"""Commits: the order of calls, ids that last, and what is left alone.  That the core takes any of them is a property test's."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.diff import (
    Call,
    DropService,
    DropVhost,
    EmptyCertificate,
    NameService,
    Published,
    PutCertificate,
    PutService,
    PutTls,
    PutVhost,
)
from atsk8s.errors import InvariantError
from atsk8s.model.changes import Changes
from atsk8s.model.ir import (
    Backend,
    Certificate,
    Endpoint,
    HostKey,
    PathMatchKind,
    Place,
    Rule,
    Service,
    ServiceKey,
    TlsPolicy,
    VirtualHost,
)

A = ServiceKey(namespace="shop", name="a", port=80)
B = ServiceKey(namespace="shop", name="b", port=80)
HOST = HostKey(place=Place.EXACT, host="a.example")
SECRET = ObjectKey("shop", "s")
POD = Endpoint(addr=bytes([10, 0, 0, 1]), port=8080)


def vhost(**services: ServiceKey) -> VirtualHost:
    """One prefix a service, named by it."""
    return VirtualHost(
        key=HOST,
        rules=tuple(
            Rule(
                object=ObjectKey("shop", "web"),
                kind=PathMatchKind.PREFIX,
                path=f"/{path}",
                path_as_written=f"/{path}",
                backends=(Backend(service=key),),
            )
            for path, key in services.items()
        ),
    )


def commit(published: Published, changes: Changes) -> tuple[Call, ...]:
    plan = published.plan(changes)
    published.accept(plan)
    return plan.calls


def test_what_is_new_comes_first_and_what_is_gone_goes_last() -> None:
    published = Published()
    calls = commit(published, Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A, endpoints=(POD,))}))
    assert [type(call) for call in calls] == [PutService, PutVhost]
    calls = commit(published, Changes(vhosts={HOST: vhost(x=B)}, services={A: None, B: Service(key=B)}))
    assert [type(call) for call in calls] == [PutService, PutVhost, DropService]
    calls = commit(published, Changes(vhosts={HOST: None}, services={B: None}))
    assert [type(call) for call in calls] == [DropVhost, DropService]
    assert set(published.sizes().values()) == {0}


def test_equal_is_left_alone() -> None:
    published = Published()
    changes = Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A)}, empty_certificates=frozenset({SECRET}))
    assert commit(published, changes)

    assert commit(published, changes) == ()


def test_a_plan_that_is_given_up_changes_nothing() -> None:
    published = Published()
    changes = Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A)})
    first = published.plan(changes)

    assert set(published.sizes().values()) == {0}
    assert [type(call) for call in published.plan(changes).calls] == [type(call) for call in first.calls]


def test_routes_keep_their_ids() -> None:
    published = Published()
    [_, first] = commit(published, Changes(vhosts={HOST: vhost(x=A, y=A)}, services={A: Service(key=A)}))
    [second] = commit(published, Changes(vhosts={HOST: vhost(w=A, y=A)}))
    assert isinstance(first, PutVhost)
    assert isinstance(second, PutVhost)

    assert first.routes[1] == second.routes[1]
    assert len({*first.routes, *second.routes}) == 3


def test_ids_are_not_used_again() -> None:
    published = Published()
    [put, _] = commit(published, Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A)}))
    commit(published, Changes(vhosts={HOST: None}, services={A: None}))
    [again, _] = commit(published, Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A)}))
    assert isinstance(put, PutService)
    assert isinstance(again, PutService)

    assert put.id != again.id
    assert published.service_id(A) == again.id


def test_a_service_stays_while_a_host_that_is_held_back_needs_it() -> None:
    """The model has moved the host from A to B; until that is published, A is in use."""
    published = Published()
    commit(published, Changes(vhosts={HOST: vhost(x=A)}, services={A: Service(key=A)}))
    calls = commit(published, Changes(services={A: None, B: Service(key=B)}))
    assert [type(call) for call in calls] == [PutService]
    calls = commit(published, Changes(vhosts={HOST: vhost(x=B)}))

    assert [type(call) for call in calls] == [PutVhost, DropService]


def test_a_service_becomes_a_name_and_back() -> None:
    published = Published()
    pods, named = Service(key=A, endpoints=(POD,)), Service(key=A, external_name="o.example", external_port=80)
    [one] = commit(published, Changes(services={A: pods}))
    [two] = commit(published, Changes(services={A: named}))
    [three] = commit(published, Changes(services={A: pods}))
    assert isinstance(two, NameService)
    assert isinstance(one, PutService)

    assert one == three
    assert two == NameService(one.id, "o.example", 80)


def test_a_service_s_own_failures_are_published_as_they_change() -> None:
    published = Published()
    for said in (None, 3, 0, None):
        service = Service(key=A, endpoints=(POD,), max_failures=said)
        [put] = commit(published, Changes(services={A: service}))
        assert isinstance(put, PutService)
        assert put.max_failures == said
        assert commit(published, Changes(services={A: service})) == ()
    [name] = commit(published, Changes(services={A: Service(key=A, external_name="o", external_port=1, max_failures=9)}))
    assert isinstance(name, NameService)
    assert name.max_failures == 9


def test_certificates() -> None:
    published = Published()
    material = Certificate(key=SECRET, chain_der=b"chain", key_der=b"hunter2", names=(), not_after_s=0)
    policy = TlsPolicy(key=HOST, certificates=(SECRET,))
    [empty, tls] = commit(published, Changes(tls={HOST: policy}, empty_certificates=frozenset({SECRET})))
    assert isinstance(empty, EmptyCertificate)
    assert tls == PutTls(HOST, (empty.id,))
    calls = commit(published, Changes(certificates={SECRET: material}))
    assert calls == (PutCertificate(empty.id, material),)
    assert "hunter2" not in repr(calls)
    calls = commit(published, Changes(certificates={SECRET: None}, tls={HOST: None}))

    assert len(calls) == 2
    assert set(published.sizes().values()) == {0}


def test_a_reference_to_nothing() -> None:
    with pytest.raises(InvariantError, match="never brought in"):
        Published().plan(Changes(vhosts={HOST: vhost(x=A)}))


def test_what_was_never_published_is_not_dropped() -> None:
    changes = Changes(vhosts={HOST: None}, tls={HOST: None}, services={A: None}, certificates={SECRET: None})

    assert Published().plan(changes).calls == ()
