"""Blobs: the layout of a small one, byte by byte, and what cannot be encoded."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import Sections
from atsk8s.compile.encode import (
    encode,
    encode_endpoints,
    route_identities,
    route_identity,
    services_in_order,
)
from atsk8s.compile.layout import BACKEND, HEADER, NODE, NONE, RULE, RuleAction
from atsk8s.errors import InvariantError
from atsk8s.model.ir import Backend, Endpoint, HostKey, PathMatchKind, Place, Rule, Service, ServiceKey, VirtualHost
from atsk8s.model.names import FALLBACK, NO_HOST

A = ServiceKey(namespace="shop", name="a", port=80)
B = ServiceKey(namespace="shop", name="b", port="http")
HOST = HostKey(place=Place.EXACT, host="a.example")


def rule(kind: PathMatchKind, path: str, *services: ServiceKey) -> Rule:
    backends = tuple(Backend(service=service) for service in services)
    return Rule(object=ObjectKey("shop", "web"), kind=kind, path=path, path_as_written=path, backends=backends)


def test_a_host_without_rules_is_a_root() -> None:
    blob = encode(VirtualHost(key=NO_HOST))
    sections = Sections(blob.data)

    assert len(blob.data) == HEADER.size + NODE.size
    assert (blob.services, blob.routes) == ((), ())
    assert sections.nodes == [(0, 0, 0, 0, NONE, 0, NONE, 0)]
    assert sections.header.default_rule == NONE


def test_nodes_are_breadth_first_and_sorted() -> None:
    paths = ("/b", "/b/x", "/a", "/a/y", "/aa", "/a.")
    sections = Sections(encode(VirtualHost(key=HOST, rules=tuple(rule(PathMatchKind.EXACT, p, A) for p in paths))).data)
    segments = [sections.text(node.segment_off, node.segment_len) for node in sections.nodes]

    assert segments == [b"", b"a", b"a.", b"aa", b"b", b"y", b"x"]
    assert [(node.first_child, node.n_children) for node in sections.nodes] == [
        (1, 4),
        (5, 1),
        (0, 0),
        (0, 0),
        (6, 1),
        (0, 0),
        (0, 0),
    ]


def test_rules_of_one_path() -> None:
    exact, prefix = rule(PathMatchKind.EXACT, "/foo", A), rule(PathMatchKind.PREFIX, "/foo", B, A)
    blob = encode(VirtualHost(key=HOST, rules=(prefix, exact), default=rule(PathMatchKind.PREFIX, "/")))
    sections = Sections(blob.data)

    assert blob.services == (A, B)
    assert blob.routes == (
        "shop/web EXACT a.example /foo EXACT",
        "shop/web EXACT a.example /foo PREFIX",
        "shop/web EXACT a.example * DEFAULT",
    )
    assert [r.action for r in sections.rules] == [RuleAction.FORWARD, RuleAction.FORWARD, RuleAction.NO_BACKEND]
    assert [r.route for r in sections.rules] == [0, 1, 2]
    assert [b.service for b in sections.backends] == [0, 1, 0]
    assert sections.header.default_rule == 2
    assert sections.nodes[1][4:] == (0, 1, 1, 1)
    # Each string once, padded to 8: "shop/web", "/foo", "/", "foo".
    assert len(blob.data) == HEADER.size + 2 * NODE.size + 3 * RULE.size + 3 * BACKEND.size + 16


def test_trailing_slash_is_an_empty_segment_of_an_exact_path() -> None:
    sections = Sections(
        encode(VirtualHost(key=HOST, rules=(rule(PathMatchKind.EXACT, "/foo/"), rule(PathMatchKind.EXACT, "/")))).data
    )

    assert sections.paths == [(), (b"",), (b"foo",), (b"foo", b"")]


def test_identities_tell_places_apart() -> None:
    some = rule(PathMatchKind.PREFIX, "/", A)
    keys = (HOST, HostKey(place=Place.WILDCARD, host="a.example"), NO_HOST, FALLBACK, HostKey(place=Place.NO_HOST, local_port=8080))
    identities = {route_identity(key, some, is_default=is_default) for key in keys for is_default in (False, True)}

    assert len(identities) == 2 * len(keys)


def test_two_rules_for_one_path() -> None:
    twice = (rule(PathMatchKind.PREFIX, "/foo", A), rule(PathMatchKind.PREFIX, "/foo", B))
    with pytest.raises(InvariantError, match="second PREFIX rule"):
        encode(VirtualHost(key=HOST, rules=twice))


def test_too_deep() -> None:
    with pytest.raises(InvariantError, match="segments"):
        encode(VirtualHost(key=HOST, rules=(rule(PathMatchKind.EXACT, "/x" * 5000),)))


def test_endpoint_records() -> None:
    endpoints = (Endpoint(addr=bytes([10, 0, 0, 1]), port=8080), Endpoint(addr=b"\x20\x01" + bytes(14), port=1, weight=7))
    records = encode_endpoints(Service(key=A, endpoints=endpoints))

    assert records[:24] == bytes([10, 0, 0, 1]) + bytes(12) + b"\x90\x1f\x04\x03\x01\0\0\0"
    assert records[24:] == b"\x20\x01" + bytes(14) + b"\x01\0\x06\x03\x07\0\0\0"


@pytest.mark.parametrize("default", [None, rule(PathMatchKind.PREFIX, "/", B, A)])
@pytest.mark.parametrize("services", [(), (A,), (B, A), (A, B, A)])
def test_services_and_routes_are_known_without_encoding(default: Rule | None, services: tuple[ServiceKey, ...]) -> None:
    rules = (rule(PathMatchKind.EXACT, "/b", *services), rule(PathMatchKind.PREFIX, "/a", B))
    for some in (rules, rules[:1], ()):
        vhost = VirtualHost(key=HOST, rules=some, default=default)
        blob = encode(vhost)

        assert blob.services == services_in_order(vhost)
        assert list(blob.routes) == route_identities(vhost)
