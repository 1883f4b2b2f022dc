"""Policies in a blob: what is written once, whose scope a limit has, and records that no reader takes."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import Sections, decode
from atsk8s.compile.encode import encode
from atsk8s.compile.faults import BlobError
from atsk8s.compile.layout import (
    BODY,
    EXEMPT,
    LIMITS,
    NONE,
    POLICY,
    TIMEOUTS,
    LimitsRecord,
    PolicyRecord,
)
from atsk8s.compile.policy_records import RECORDS, check_row, read_policy
from atsk8s.model.ir import Backend, HostKey, PathMatchKind, Place, Rule, ServiceKey, VirtualHost
from atsk8s.model.policies import BodyLimit, Limits, Policy, PolicyKind, Timeouts

HOST = HostKey(place=Place.EXACT, host="a.example")
BACKENDS = (Backend(service=ServiceKey(namespace="shop", name="a", port=80)),)
LIMIT = Limits(client_rate_milli=5000, client_burst=25, exempt=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
BODY_LIMIT = BodyLimit(max_bytes=1 << 20)


def rule(path: str, *policies: Policy, owner: str = "web") -> Rule:
    return Rule(
        object=ObjectKey("shop", owner),
        kind=PathMatchKind.PREFIX,
        path=path,
        path_as_written=path,
        backends=BACKENDS,
        policies=policies,
    )


def sections(*rules: Rule, default: Rule | None = None) -> Sections:
    blob = encode(VirtualHost(key=HOST, rules=rules, default=default))
    assert decode(blob, HOST).rules == rules
    return Sections(blob.data)


def test_no_policies_take_no_byte() -> None:
    made = sections(rule("/"))

    assert (made.header.n_policies, made.header.policies_off) == (0, made.header.strings_off)


def test_equal_policies_are_one_row_and_equal_records_one_record() -> None:
    """The row is the same whether the tuples are one object or only equal: the same value gives the same bytes."""
    one, equal = rule("/a", BODY_LIMIT, owner="x"), rule("/b", replace(BODY_LIMIT), owner="y")
    more = rule("/c", Timeouts(read_ms=0), BODY_LIMIT)
    made = sections(one, equal, more, rule("/d"))

    assert [(r.first_policy, r.n_policies) for r in made.rules] == [(0, 1), (0, 1), (1, 2), (0, 0)]
    assert made.header.strings_off - made.header.policies_off == 3 * POLICY.size + BODY.size + TIMEOUTS.size
    shared = [rule("/a", *one.policies), rule("/b", *one.policies)]
    apart = [rule("/a", BodyLimit(max_bytes=1 << 20)), rule("/b", BodyLimit(max_bytes=1 << 20))]
    assert encode(VirtualHost(key=HOST, rules=tuple(shared))) == encode(VirtualHost(key=HOST, rules=tuple(apart)))


def test_a_limits_scope_is_the_first_rule_of_its_object() -> None:
    """Two objects with equal limits count apart; an object's default backend counts with its rules."""
    rules = rule("/a"), rule("/b", LIMIT), rule("/c", LIMIT, owner="other"), rule("/d", LIMIT)
    blob = encode(VirtualHost(key=HOST, rules=rules, default=rule("/", LIMIT, owner="other")))
    made = Sections(blob.data)

    def scope(place: int) -> int:
        off = blob.data[made.header.policies_off + made.rules[place].first_policy * POLICY.size :]
        record = PolicyRecord._make(POLICY.unpack_from(off))
        return LimitsRecord._make(LIMITS.unpack_from(blob.data, record.off)).scope

    assert [scope(place) for place in (1, 2, 3, 4)] == [1, 2, 1, 2]


_TEXT = b"x-userX-Userid\r\n" + EXEMPT.pack(bytes(16), 4, 33) + EXEMPT.pack(bytes(4) + b"\1" + bytes(11), 4, 8)
_GOOD = {
    PolicyKind.BALANCE: (4, 3, 0, 6, 125, 0),
    PolicyKind.AFFINITY: (0, 6, 0, 6, 0, 0),
    PolicyKind.RETRY: (1 | 16, 2, NONE, 2, 502, 503, *[0] * 6),
    PolicyKind.TIMEOUTS: (1, 0, NONE, 0),
    PolicyKind.LIMITS: (1, 1, 0, 0, 0, 1, 0, 0, 0, 0),
    PolicyKind.BODY: (0,),
    PolicyKind.SNIPPET: (int.from_bytes(sha256(b"x-user").digest()[:8], "little"), 0, 6),
}


def read(kind: int, fields: tuple[int, ...], *, off: int = 0, size: int | None = None, reserved: int = 0) -> Policy:
    data = RECORDS[PolicyKind(kind)].pack(*fields) if kind in RECORDS else bytes(8)

    def text(at: int, n: int) -> bytes:
        return _TEXT[at : at + n]

    record = PolicyRecord(kind=kind, size=len(data) if size is None else size, off=off, reserved=reserved)
    return read_policy(record, data, range(len(data)), text, 1)


@pytest.mark.parametrize("kind", PolicyKind)
def test_good_records_are_read(kind: PolicyKind) -> None:
    read(kind, _GOOD[kind])
    for bad in ({"off": 8}, {"off": 4}, {"size": 4}, {"reserved": 1}):
        with pytest.raises(BlobError):
            read(kind, _GOOD[kind], **bad)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        (PolicyKind.BALANCE, 0, 5),  # no such algorithm
        (PolicyKind.BALANCE, 0, 1),  # round robin with a hash source
        (PolicyKind.BALANCE, 1, 0),  # hash without one
        (PolicyKind.BALANCE, 1, 1),  # by address, with a name
        (PolicyKind.BALANCE, 1, 5),
        (PolicyKind.BALANCE, 2, 6),  # "X-User": a header in upper case
        (PolicyKind.BALANCE, 3, 0),  # no name
        (PolicyKind.BALANCE, 4, 100),
        (PolicyKind.BALANCE, 4, 1001),
        (PolicyKind.BALANCE, 5, 1),
        (PolicyKind.AFFINITY, 1, 0),
        (PolicyKind.AFFINITY, 3, 16),  # attributes with CR and LF
        (PolicyKind.AFFINITY, 4, 3),
        (PolicyKind.AFFINITY, 5, 1),
        (PolicyKind.RETRY, 0, 16),  # not given, and a bit
        (PolicyKind.RETRY, 0, 1 | 64),
        (PolicyKind.RETRY, 0, 1),  # statuses without their bit
        (PolicyKind.RETRY, 1, 9),
        (PolicyKind.RETRY, 3, 0),  # their bit without statuses
        (PolicyKind.RETRY, 3, 9),
        (PolicyKind.RETRY, 4, 503),  # twice
        (PolicyKind.RETRY, 4, 99),
        (PolicyKind.RETRY, 5, 600),
        (PolicyKind.RETRY, 11, 504),  # beyond n_statuses
        (PolicyKind.TIMEOUTS, 0, 0),
        (PolicyKind.LIMITS, 0, 0),  # a burst without a rate
        (PolicyKind.LIMITS, 1, 0),
        (PolicyKind.LIMITS, 3, 1),
        (PolicyKind.LIMITS, 8, 1),  # a range that is not there
        (PolicyKind.LIMITS, 9, 1),  # no such route
        (PolicyKind.SNIPPET, 2, 0),
    ],
)
def test_bad_fields_are_refused(kind: PolicyKind, place: int, value: int) -> None:
    fields = list(_GOOD[kind])
    fields[place] = value

    with pytest.raises(BlobError):
        read(kind, tuple(fields))


@pytest.mark.parametrize("off", [16, 34, 8])
def test_bad_exempt_ranges_are_refused(off: int) -> None:
    """33 bits of IPv4, an IPv4 address with more bytes, no family."""
    with pytest.raises(BlobError):
        read(PolicyKind.LIMITS, (1, 1, 0, 0, 0, 0, off, 18, 1, 0))


def test_unknown_kinds_and_rows_out_of_order_are_refused() -> None:
    with pytest.raises(BlobError):
        read(8, ())
    check_row([1, 3, 7])
    for row in ([1, 1], [2, 1]):
        with pytest.raises(BlobError):
            check_row(row)
