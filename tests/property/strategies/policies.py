"""Policies of rules: everything that a blob can hold."""

from __future__ import annotations

from functools import reduce
from ipaddress import IPv4Network, IPv6Network
from operator import or_

from hypothesis import strategies as st

from atsk8s.model import policies
from atsk8s.values import TIMEOUT_MS_MAX, TRIES_MAX
from tests.property.strategies.pools import weighted

_bounded = st.sampled_from((0, 1, 1000, 2**31))
_maybe_ms = st.none() | st.integers(0, TIMEOUT_MS_MAX)
_tokens = st.sampled_from(("x-user", "a", "x" * 128, "!#$%&'*+-.^_`|~0"))
_balances = st.one_of(
    st.builds(policies.Balance, algorithm=st.sampled_from([a for a in policies.Algorithm if a is not policies.Algorithm.HASH])),
    st.builds(
        policies.Balance,
        algorithm=st.just(policies.Algorithm.HASH),
        hash_source=st.sampled_from((policies.HashSource.ADDRESS, policies.HashSource.URI)),
        load_percent=st.sampled_from((0, 101, 125, 1000)),
    ),
    st.builds(
        policies.Balance,
        algorithm=st.just(policies.Algorithm.HASH),
        hash_source=st.sampled_from((policies.HashSource.HEADER, policies.HashSource.COOKIE)),
        name=_tokens,
        load_percent=st.sampled_from((0, 1000)),
    ),
)
_affinities = st.builds(
    policies.Affinity,
    name=_tokens,
    attributes=st.sampled_from(("", "; Path=/", "; Path=/; HttpOnly; SameSite=Lax", "~" * 1024)),
    secure=st.sampled_from(policies.CookieSecure),
)
_causes = st.sets(st.sampled_from([bit for bit in policies.RetryOn if bit is not policies.RetryOn.STATUS])).map(
    lambda bits: reduce(or_, bits, policies.RetryOn.GIVEN)
)
_retries = st.one_of(
    st.builds(
        policies.Retry,
        on=st.just(policies.NOT_GIVEN) | _causes,
        tries=st.none() | st.integers(1, TRIES_MAX),
        time_ms=_maybe_ms,
    ),
    st.builds(
        policies.Retry,
        on=_causes.map(lambda bits: bits | policies.RetryOn.STATUS),
        statuses=st.sets(st.sampled_from((404, 429, *range(500, 520))), min_size=1, max_size=8).map(lambda s: tuple(sorted(s))),
    ),
)
_timeouts = st.builds(
    policies.Timeouts, connect_ms=st.none() | st.integers(1, 600_000), read_ms=_maybe_ms, send_ms=_maybe_ms, request_ms=_maybe_ms
)
_networks = st.one_of(
    st.builds(lambda addr, bits: IPv4Network((addr, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda addr, bits: IPv6Network((addr, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)
_limits = st.builds(
    lambda client_rate, client_burst, total_rate, total_burst, **fields: policies.Limits(
        client_rate_milli=client_rate,
        client_burst=client_burst if client_rate else 0,
        total_rate_milli=total_rate,
        total_burst=total_burst if total_rate else 0,
        **fields,
    ),
    _bounded,
    st.integers(1, 2**32 - 1),
    _bounded,
    st.integers(1, 2**32 - 1),
    client_concurrency=_bounded,
    total_concurrency=_bounded,
    exempt=st.lists(_networks, max_size=3).map(tuple),
)
_bodies = st.builds(policies.BodyLimit, max_bytes=st.sampled_from((0, 1, 2**60, 2**64 - 1)))
_snippets = st.builds(policies.Snippet, text=st.sampled_from(("return", "ts.debug('ä')", "-- a\n" * 100)))
_kinds: tuple[st.SearchStrategy[policies.Policy], ...] = (
    _balances,
    _affinities,
    _retries,
    _timeouts,
    _limits,
    _bodies,
    _snippets,
)
_no_policies: st.SearchStrategy[tuple[policies.Policy, ...]] = st.just(())
rule_policies = weighted(
    (2, _no_policies),
    (1, st.sets(st.integers(0, 6)).flatmap(lambda kinds: st.tuples(*(_kinds[kind] for kind in sorted(kinds))))),
)
