"""Blobs: what is decoded is what was encoded, and the matchers agree, Python's three and C's."""

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import BlobError, Sections, decode, decode_endpoints, slow_match
from atsk8s.compile.encode import encode, encode_endpoints
from atsk8s.model.ir import Endpoint, PathMatchKind, Rule, Service, ServiceKey, VirtualHost
from atsk8s.model.matching import match_rule
from atsk8s.model.names import NO_HOST
from atsk8s.model.policies import Snippet
from atsk8s.model.precedence import endpoint_order, match_rank, object_precedence, rule_order
from tests.property.creader import ATSK_OK, CReader
from tests.property.strategies import tables

SNIPPET = VirtualHost(
    key=NO_HOST,
    rules=(
        Rule(
            object=ObjectKey("shop", "site"),
            kind=PathMatchKind.EXACT,
            path="/",
            path_as_written="",
            backends=(),
            policies=(Snippet(text="return"),),
        ),
    ),
)


@given(tables.vhosts())
def test_decode_inverts_encode(vhost: VirtualHost) -> None:
    blob = encode(vhost)

    assert decode(blob, vhost.key) == vhost
    assert len(blob.data) % 8 == 0


@given(tables.vhosts(), st.randoms(use_true_random=False))
def test_permuting_rules_changes_no_byte(vhost: VirtualHost, rnd: random.Random) -> None:
    rules = list(vhost.rules)
    rnd.shuffle(rules)

    assert encode(VirtualHost(key=vhost.key, rules=tuple(rules), default=vhost.default)) == encode(vhost)


@given(vhost=tables.vhosts(), path=tables.request_paths())
def test_all_readers_choose_the_same_rule(c_reader: CReader, vhost: VirtualHost, path: str) -> None:
    """The rule that the intermediate representation has, the slow reader of the blob, and C."""
    blob = encode(vhost)
    rule = match_rule(vhost, path)
    expected = None if rule is None else len(vhost.rules) if rule is vhost.default else vhost.rules.index(rule)

    assert slow_match(blob.data, path.encode()) == expected
    assert c_reader.validate(blob.data) == ATSK_OK
    assert c_reader.match(blob.data, path.encode()) == expected


@given(vhost=tables.vhosts(), path=st.binary(max_size=8))
def test_readers_agree_on_any_bytes_as_path(c_reader: CReader, vhost: VirtualHost, path: bytes) -> None:
    data = encode(vhost).data

    assert c_reader.match(data, path) == slow_match(data, path)


@given(vhost=tables.vhosts(), cuts=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4))
@example(vhost=VirtualHost(key=NO_HOST), cuts=[(0, 0)])
@example(vhost=SNIPPET, cuts=[(encode(SNIPPET).data.index(b"return"), 0)])
def test_both_readers_refuse_the_same_bytes(c_reader: CReader, vhost: VirtualHost, cuts: list[tuple[int, int]]) -> None:
    """A damaged blob is refused by both or read alike by both, and never read out of bounds."""
    data = bytearray(encode(vhost).data)
    for place, value in cuts:
        data[place % len(data)] = value
    damaged = bytes(data)
    try:
        Sections(damaged)
    except BlobError:
        is_blob = False
    else:
        is_blob = True

    assert (c_reader.validate(damaged) == ATSK_OK) == is_blob
    if is_blob:
        for path in (b"/", b"/a", b"/a/ab/", b"/%2F/b", b"/zzzz"):
            assert c_reader.match(damaged, path) == slow_match(damaged, path)


@given(data=st.binary(max_size=200), cut=st.integers(0, 300), vhost=tables.vhosts())
def test_a_cut_or_padded_blob_is_none(c_reader: CReader, data: bytes, cut: int, vhost: VirtualHost) -> None:
    whole = encode(vhost).data
    for bad in (data, whole[: cut % len(whole)], whole + data[:8].ljust(8, b"\0")):
        assert c_reader.validate(bad) != ATSK_OK


@given(st.lists(tables.ir_endpoints, max_size=5, unique_by=endpoint_order))
def test_endpoints_survive(endpoints: list[Endpoint]) -> None:
    in_order = tuple(sorted(endpoints, key=endpoint_order))
    service = Service(key=ServiceKey(namespace="a", name="s", port=80), endpoints=in_order)

    assert decode_endpoints(encode_endpoints(service)) == in_order


@given(st.lists(tables.rules(), max_size=8), st.lists(tables.object_keys, max_size=8), st.integers(0, 3))
def test_orders_are_total(rules: list[Rule], keys: list[ObjectKey], created_s: int) -> None:
    """What differs does not compare equal, so that no order depends on what came first."""
    assert len({object_precedence(created_s, key) for key in keys}) == len(set(keys))
    unique = {rule_order(rule): rule for rule in rules}
    assert sorted(unique) == sorted(unique, reverse=True)[::-1]
    # Of the rules that match one path no two have the same rank.
    for path in ("/a/ab/abc", "/a/", "/"):
        ranks = [match_rank(r) for r in unique.values() if match_rule(VirtualHost(key=NO_HOST, rules=(r,)), path)]
        assert len(ranks) == len(set(ranks))
