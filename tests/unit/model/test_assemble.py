"""Who gets what: the cases that need many rules, or none."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.encode import encode
from atsk8s.compile.layout import BLOB_MAX
from atsk8s.errors import Reason
from atsk8s.model import assemble
from atsk8s.model.assemble import Owner, assemble_fallback, assemble_tls, assemble_vhost
from atsk8s.model.ingress import RouteClaim, translate
from atsk8s.model.names import NO_HOST, host_key
from atsk8s.model.precedence import object_precedence
from tests.unit.model.objects import ingress

HOST = host_key("a.example", "")


def claims_of(*ingresses: tuple[str, int, list[str]], namespace: str = "shop") -> list[RouteClaim]:
    found = []
    for name, created_s, paths in ingresses:
        obj = ingress(name, *(("a.example", path, "s") for path in paths), created_s=created_s, namespace=namespace)
        found += [claim for _, claim in translate(obj.key, obj).routes]
    return sorted(found, key=lambda claim: claim.precedence)


def test_no_claims_no_host() -> None:
    assert assemble_vhost(HOST, []) == (None, ())
    assert assemble_fallback([], None) == (None, ())
    assert assemble_tls(HOST, []) == (None, ())


def test_one_condition_for_many_lost_paths() -> None:
    paths = [f"/p{i}" for i in range(50)]
    claims = claims_of(("old", 1, paths), ("young", 2, paths))
    vhost, conditions = assemble_vhost(HOST, claims)

    assert vhost is not None
    assert {rule.object.name for rule in vhost.rules} == {"old"}
    [condition] = conditions
    assert condition.object.name == "young"
    assert condition.reason == Reason.CONFLICT
    assert "and 47 more belong to Ingress shop/old" in condition.message


def test_tie_is_broken_by_the_whole_name() -> None:
    """ "a-b/x" sorts before "a/x", which a comparison of namespaces first would not have."""
    assert object_precedence(1, ObjectKey("a-b", "x")) < object_precedence(1, ObjectKey("a", "x"))


def test_nobody_owns_it() -> None:
    vhost, conditions = assemble_vhost(HOST, claims_of(("web", 1, ["/"])), owner=Owner(namespace=None, why="contested"))

    assert vhost is None
    assert [c.message for c in conditions] == ["host a.example is not served from this Ingress: contested"]


def test_rules_beyond_the_room_of_a_blob_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "BLOB_ROOM", 20_000)
    deep = "/x" * 100
    claims = claims_of(("old", 1, [f"/o{i}{deep}" for i in range(3)]), ("young", 2, [f"/y{i}{deep}" for i in range(20)]))
    vhost, conditions = assemble_vhost(HOST, claims)

    assert vhost is not None
    assert sum(rule.object.name == "old" for rule in vhost.rules) == 3
    assert len(encode(vhost).data) <= 20_000 + 1000
    [condition] = conditions
    assert (condition.object.name, condition.reason) == ("young", Reason.TOO_LARGE)


def test_room_is_less_than_a_blob() -> None:
    assert assemble.BLOB_ROOM < BLOB_MAX


def test_hosts_without_a_name_are_owned_too() -> None:
    one = ingress("one", ("", "/", "s"), created_s=1)
    two = ingress("two", ("", "/", "s"), created_s=2, namespace="other")
    claims = [claim for obj in (one, two) for _, claim in translate(obj.key, obj).routes]
    vhost, conditions = assemble_vhost(NO_HOST, claims)

    assert vhost is not None
    assert [rule.object.name for rule in vhost.rules] == ["one"]
    assert len(conditions) == 1
