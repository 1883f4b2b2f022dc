"""A rule's policies to records and back: the sections policies[] and policy data of a blob.

Equal records are written once, and rules with equal policies share their row.  The reader trusts nothing, as the one in C does
(plugin_c/blob/policies.c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise
from struct import Struct
from typing import Final, TypeAlias, assert_never

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.faults import require
from atsk8s.compile.layout import (
    AFFINITY,
    BALANCE,
    BODY,
    EXEMPT,
    LIMITS,
    NONE,
    POLICY,
    RETRY,
    SNIPPET,
    TIMEOUTS,
    AffinityRecord,
    BalanceRecord,
    BodyRecord,
    EndpointFamily,
    LimitsRecord,
    PolicyRecord,
    RetryRecord,
    SnippetRecord,
    TimeoutsRecord,
)
from atsk8s.model.policies import (
    COOKIE_ATTRIBUTES_MAX,
    COOKIE_NAME_MAX,
    EXEMPT_MAX,
    HASH_NAME_MAX,
    KIND_OF,
    LOAD_PERCENT_MAX,
    LOAD_PERCENT_MIN,
    SNIPPET_MAX,
    STATUSES_MAX,
    Affinity,
    Algorithm,
    Balance,
    BodyLimit,
    CookieSecure,
    HashSource,
    Limits,
    Policy,
    PolicyKind,
    Retry,
    RetryOn,
    Snippet,
    Timeouts,
)
from atsk8s.values import TRIES_MAX, Network

AddString: TypeAlias = Callable[[bytes], tuple[int, int]]
Text: TypeAlias = Callable[[int, int], bytes]

RECORDS: Final = {
    PolicyKind.BALANCE: BALANCE,
    PolicyKind.AFFINITY: AFFINITY,
    PolicyKind.RETRY: RETRY,
    PolicyKind.TIMEOUTS: TIMEOUTS,
    PolicyKind.LIMITS: LIMITS,
    PolicyKind.BODY: BODY,
    PolicyKind.SNIPPET: SNIPPET,
}
# RFC 9110 section 5.6.2.
_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ALL_CAUSES: Final = sum(RetryOn)


class PolicyWriter:
    """The two sections while a blob is made."""

    __slots__ = ("_add_string", "_data", "_places", "_rows", "_rows_by_id", "_scopes", "_written")

    def __init__(self, add_string: AddString) -> None:
        self._add_string = add_string
        self._written: list[tuple[PolicyKind, int]] = []  # kind, and offset in the data
        self._data = bytearray()
        self._places: dict[tuple[PolicyKind, bytes], int] = {}
        self._rows: dict[tuple[tuple[PolicyKind, int], ...], int] = {}
        # Rules of one object have one tuple of policies: looking at it once is enough.  It stays alive as long as the rules do.
        self._rows_by_id: dict[tuple[int, int], int] = {}
        self._scopes: dict[ObjectKey, int] = {}

    @property
    def n(self) -> int:
        """Records in policies[]."""
        return len(self._written)

    def add(self, policies: tuple[Policy, ...], owner: ObjectKey, route: int) -> tuple[int, int]:
        """First policy, and how many, of a rule that has some.

        Args:
            policies: sorted by kind.
            owner: the rule's object: its rules share what limits count.
            route: the rule's index among the routes.
        """
        scope = self._scopes.setdefault(owner, route) if any(isinstance(policy, Limits) for policy in policies) else NONE
        found = self._rows_by_id.get((id(policies), scope))
        if found is None:
            row = tuple((KIND_OF[type(policy)], self._place(policy, scope)) for policy in policies)
            found = self._rows.get(row)
            if found is None:
                found = self._rows[row] = len(self._written)
                self._written += row
            self._rows_by_id[id(policies), scope] = found
        return found, len(policies)

    def sections(self, policies_off: int) -> bytes:
        """policies[] and the policy data, which starts where policies[] ends.  `policies_off`: in the blob."""
        base = policies_off + len(self._written) * POLICY.size
        records = [POLICY.pack(kind, RECORDS[kind].size, base + off, 0) for kind, off in self._written]
        return b"".join((*records, self._data))

    def _place(self, policy: Policy, scope: int) -> int:
        kind, data = KIND_OF[type(policy)], self._packed(policy, scope)
        off = self._places.get((kind, data))
        if off is None:
            off = self._places[kind, data] = len(self._data)
            self._data += data  # every record's size is a multiple of the alignment
        return off

    def _packed(self, policy: Policy, scope: int) -> bytes:
        add = self._add_string
        match policy:
            case Balance():
                return BALANCE.pack(policy.algorithm, policy.hash_source, *add(policy.name.encode()), policy.load_percent, 0)
            case Affinity():
                return AFFINITY.pack(*add(policy.name.encode()), *add(policy.attributes.encode()), policy.secure, 0)
            case Retry():
                statuses = (*policy.statuses, *[0] * (STATUSES_MAX - len(policy.statuses)))
                return RETRY.pack(policy.on, policy.tries or 0, _or_none(policy.time_ms), len(policy.statuses), *statuses)
            case Timeouts():
                return TIMEOUTS.pack(
                    *map(_or_none, (policy.connect_ms, policy.read_ms, policy.send_ms, policy.request_ms)),
                )
            case Limits():
                return LIMITS.pack(
                    policy.client_rate_milli,
                    policy.client_burst,
                    policy.client_concurrency,
                    policy.total_rate_milli,
                    policy.total_burst,
                    policy.total_concurrency,
                    *add(b"".join(map(_exempt, policy.exempt))),
                    len(policy.exempt),
                    scope,
                )
            case BodyLimit():
                return BODY.pack(policy.max_bytes)
            case Snippet():
                text = policy.text.encode("utf-8", "replace")
                return SNIPPET.pack(_snippet_id(text), *add(text))
            case _:
                assert_never(policy)


def _or_none(value: int | None) -> int:
    return NONE if value is None else value


def _exempt(network: Network) -> bytes:
    family = EndpointFamily.IPV4 if network.version == 4 else EndpointFamily.IPV6
    return EXEMPT.pack(network.network_address.packed, family, network.prefixlen)


def _snippet_id(text: bytes) -> int:
    return int.from_bytes(sha256(text).digest()[:8], "little")


def check_row(kinds: Sequence[int]) -> None:
    """Raises BlobError unless a rule's policies are sorted by kind, no kind twice."""
    require(all(a < b for a, b in pairwise(kinds)), "a rule's policies out of order")


def read_policy(record: PolicyRecord, blob: bytes, data: range, text: Text, n_routes: int) -> Policy:
    """One policy of a blob.

    Args:
        record: of policies[].
        blob: all bytes.
        data: where the policy data stands in them.
        text: a string of the strings section; raises BlobError.
        n_routes: routes of the blob.

    Raises:
        BlobError: it is none.
    """
    require(record.kind in tuple(PolicyKind), "a policy of unknown kind")
    kind = PolicyKind(record.kind)
    layout = RECORDS[kind]
    require(record.size == layout.size and record.reserved == 0, "a policy's size or reserved field")
    require(record.off % 8 == 0 and data.start <= record.off <= data.stop - layout.size, "a policy outside the policy data")
    fields = layout.unpack_from(blob, record.off)
    match kind:
        case PolicyKind.BALANCE:
            return _balance(BalanceRecord._make(fields), text)
        case PolicyKind.AFFINITY:
            return _affinity(AffinityRecord._make(fields), text)
        case PolicyKind.RETRY:
            return _retry(RetryRecord._make(fields))
        case PolicyKind.TIMEOUTS:
            return _timeouts(TimeoutsRecord._make(fields))
        case PolicyKind.LIMITS:
            return _limits(LimitsRecord._make(fields), text, n_routes)
        case PolicyKind.BODY:
            return BodyLimit(max_bytes=BodyRecord._make(fields).max_bytes)
        case PolicyKind.SNIPPET:
            return _snippet(SnippetRecord._make(fields), text)


def _given(value: int) -> int | None:
    return None if value == NONE else value


def _token(raw: bytes, n_max: int) -> str:
    require(0 < len(raw) <= n_max and _TOKEN_BYTES.issuperset(raw), "a policy's name that is no token")
    return raw.decode()


def _balance(record: BalanceRecord, text: Text) -> Balance:
    require(record.algorithm in tuple(Algorithm) and record.hash_source in tuple(HashSource), "an unknown algorithm or hash source")
    require(record.reserved == 0, "a reserved field")
    algorithm, source = Algorithm(record.algorithm), HashSource(record.hash_source)
    name = text(record.name_off, record.name_len)
    is_named = source in (HashSource.HEADER, HashSource.COOKIE)
    require((algorithm is Algorithm.HASH) == (source is not HashSource.NONE), "a hash source without, or with, hash")
    require(is_named or record.name_off == record.name_len == 0, "a name that nothing asks for")
    bound = record.load_percent
    require(bound == 0 or (algorithm is Algorithm.HASH and LOAD_PERCENT_MIN <= bound <= LOAD_PERCENT_MAX), "a bound on load")
    require(source is not HashSource.HEADER or name == name.lower(), "a header's name in upper case")
    return Balance(
        algorithm=algorithm, hash_source=source, name=_token(name, HASH_NAME_MAX) if is_named else "", load_percent=bound
    )


def _affinity(record: AffinityRecord, text: Text) -> Affinity:
    attributes = text(record.attributes_off, record.attributes_len)
    require(len(attributes) <= COOKIE_ATTRIBUTES_MAX and all(0x20 <= c <= 0x7E for c in attributes), "a cookie's attributes")
    require(record.secure in tuple(CookieSecure) and record.reserved == 0, "a cookie's secure or reserved field")
    name = _token(text(record.name_off, record.name_len), COOKIE_NAME_MAX)
    return Affinity(name=name, attributes=attributes.decode(), secure=CookieSecure(record.secure))


def _retry(record: RetryRecord) -> Retry:
    statuses = record[4 : 4 + STATUSES_MAX]
    require(record.on & ~_ALL_CAUSES == 0 and (record.on == 0 or bool(record.on & RetryOn.GIVEN)), "a retry's causes")
    require(record.tries <= TRIES_MAX and record.n_statuses <= STATUSES_MAX, "a retry's tries or statuses")
    require(bool(record.on & RetryOn.STATUS) == (record.n_statuses > 0), "statuses without, or with, their bit")
    given, rest = statuses[: record.n_statuses], statuses[record.n_statuses :]
    require(all(a < b for a, b in pairwise(given)) and all(100 <= s <= 599 for s in given) and not any(rest), "a retry's statuses")
    return Retry(on=RetryOn(record.on), statuses=given, tries=record.tries or None, time_ms=_given(record.time_ms))


def _timeouts(record: TimeoutsRecord) -> Timeouts:
    require(record.connect_ms > 0, "a connect timeout of 0")
    return Timeouts(
        connect_ms=_given(record.connect_ms),
        read_ms=_given(record.read_ms),
        send_ms=_given(record.send_ms),
        request_ms=_given(record.request_ms),
    )


def _limits(record: LimitsRecord, text: Text, n_routes: int) -> Limits:
    for rate, burst in ((record.client_rate_milli, record.client_burst), (record.total_rate_milli, record.total_burst)):
        require((rate > 0) == (burst > 0), "a rate without, or with, a burst")
    require(record.scope < n_routes, "a limit's scope outside the routes")
    exempt = text(record.exempt_off, record.exempt_len)
    require(record.n_exempt <= EXEMPT_MAX and len(exempt) == record.n_exempt * EXEMPT.size, "a limit's exempt ranges")
    return Limits(
        client_rate_milli=record.client_rate_milli,
        client_burst=record.client_burst,
        client_concurrency=record.client_concurrency,
        total_rate_milli=record.total_rate_milli,
        total_burst=record.total_burst,
        total_concurrency=record.total_concurrency,
        exempt=tuple(_network(*fields) for fields in _struct_rows(EXEMPT, exempt)),
    )


def _snippet(record: SnippetRecord, text: Text) -> Snippet:
    lua = text(record.text_off, record.text_len)
    require(0 < len(lua) <= SNIPPET_MAX, "a snippet's size")
    return Snippet(text=lua.decode(errors="replace"))  # neither reader judges the bytes, nor whether the id is theirs


def _struct_rows(record: Struct, data: bytes) -> list[tuple[bytes, int, int]]:
    return list(record.iter_unpack(data))


def _network(addr: bytes, family: int, bits: int) -> Network:
    if family == EndpointFamily.IPV4:
        require(not any(addr[4:]) and bits <= 32, "an exempt range of IPv4")
        return IPv4Network((addr[:4], bits), strict=False)
    require(family == EndpointFamily.IPV6 and bits <= 128, "an exempt range's family or bits")
    return IPv6Network((addr, bits), strict=False)
