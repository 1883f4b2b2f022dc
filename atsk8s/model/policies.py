"""Policies: what a rule does with a request beside sending it to a backend.  Typed, immutable, free of Kubernetes and of bytes.

A policy says only what its object says: a field that is None (or a kind that is missing) means what the options say.  The
integers of the enums, and the bounds, are those of plugin_c/blob/atsk_format.h; a lint test holds them equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, unique
from typing import Final, TypeAlias

from atsk8s.values import Network, duration_text

STATUSES_MAX: Final = 8  # ATSK_RETRY_STATUSES_MAX
HASH_NAME_MAX: Final = 256  # bytes; ATSK_HASH_NAME_MAX
COOKIE_NAME_MAX: Final = 128  # bytes; ATSK_COOKIE_NAME_MAX
COOKIE_ATTRIBUTES_MAX: Final = 1024  # bytes; ATSK_COOKIE_ATTRIBUTES_MAX
LOAD_PERCENT_MIN: Final = 101  # ATSK_LOAD_PERCENT_MIN
LOAD_PERCENT_MAX: Final = 1000  # ATSK_LOAD_PERCENT_MAX
EXEMPT_MAX: Final = 256  # ATSK_EXEMPT_MAX
SNIPPET_MAX: Final = 65_536  # bytes; ATSK_SNIPPET_MAX


@unique
class PolicyKind(IntEnum):
    """enum atsk_policy_kind: also the order of a rule's policies."""

    BALANCE = 1
    AFFINITY = 2
    RETRY = 3
    TIMEOUTS = 4
    LIMITS = 5
    BODY = 6
    SNIPPET = 7


@unique
class Algorithm(IntEnum):
    """enum atsk_balance, how an endpoint is chosen."""

    DEFAULT = 0
    ROUND_ROBIN = 1
    LEAST_REQUEST = 2
    RANDOM = 3
    HASH = 4


@unique
class HashSource(IntEnum):
    """enum atsk_hash_source, what equal requests have in common."""

    NONE = 0
    ADDRESS = 1
    URI = 2
    HEADER = 3
    COOKIE = 4


@unique
class CookieSecure(IntEnum):
    """enum atsk_cookie_secure."""

    BY_SCHEME = 0
    ALWAYS = 1
    NEVER = 2


@unique
class RetryOn(IntFlag):
    """enum atsk_retry_on.  GIVEN alone is "never"; no bit is "as by default"."""

    GIVEN = 1
    CONNECT = 2
    TIMEOUT = 4
    RESET = 8
    STATUS = 16
    NON_IDEMPOTENT = 32


NOT_GIVEN: Final = RetryOn(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Which endpoint.  With HASH: `hash_source` is not NONE, `name` is the header (lower case) or cookie that it asks for, and
    `load_percent` bounds an endpoint's load to so much of the mean, 0 not at all.  Without, all three are empty."""

    algorithm: Algorithm
    hash_source: HashSource = HashSource.NONE
    name: str = ""
    load_percent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """A client's requests go to the endpoint that answered its first.  `attributes` follow "name=value" in Set-Cookie."""

    name: str
    attributes: str
    secure: CookieSecure = CookieSecure.BY_SCHEME


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When another endpoint is tried.  `statuses` are sorted, and there are some exactly if STATUS is in `on`."""

    on: RetryOn = NOT_GIVEN
    statuses: tuple[int, ...] = ()
    tries: int | None = None  # attempts in all
    time_ms: int | None = None  # no new attempt after it; 0: no bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long what may take; 0: for ever (`connect_ms` is 1 or more)."""

    connect_ms: int | None = None
    read_ms: int | None = None
    send_ms: int | None = None
    request_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, and all together, may ask of the object; 0: no limit.  A rate has a burst of 1 or more, and only a rate has.

    The counts are the object's: all its rules of a virtual host share them.
    """

    client_rate_milli: int = 0  # requests in 1000 s
    client_burst: int = 0
    client_concurrency: int = 0
    total_rate_milli: int = 0
    total_burst: int = 0
    total_concurrency: int = 0
    exempt: tuple[Network, ...] = ()  # clients that the client_ limits are not for


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimit:
    """The largest body of a request [bytes]; 0: unlimited, whatever the options say."""

    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """Lua that is run for each request: 1 to SNIPPET_MAX bytes as UTF-8."""

    text: str


Policy: TypeAlias = Balance | Affinity | Retry | Timeouts | Limits | BodyLimit | Snippet

KIND_OF: Final[Mapping[type[Policy], PolicyKind]] = {
    Balance: PolicyKind.BALANCE,
    Affinity: PolicyKind.AFFINITY,
    Retry: PolicyKind.RETRY,
    Timeouts: PolicyKind.TIMEOUTS,
    Limits: PolicyKind.LIMITS,
    BodyLimit: PolicyKind.BODY,
    Snippet: PolicyKind.SNIPPET,
}


def in_order(policies: list[Policy]) -> tuple[Policy, ...]:
    """A rule's policies: sorted by kind, no kind twice."""
    return tuple(sorted(policies, key=lambda policy: KIND_OF[type(policy)]))


def plain(policy: Policy) -> tuple[str, str]:
    """A policy's name, and in words what it says, for people."""
    match policy:
        case Balance():
            return "balance", _balance(policy)
        case Affinity():
            return "affinity", f"cookie {policy.name}{policy.attributes}; Secure {_dashed(policy.secure)}"
        case Retry():
            return "retry", _retry(policy)
        case Timeouts():
            times = (
                ("connect", policy.connect_ms),
                ("read", policy.read_ms),
                ("send", policy.send_ms),
                ("request", policy.request_ms),
            )
            return "timeouts", ", ".join(
                f"{name} {duration_text(time) if time else 'none'}" for name, time in times if time is not None
            )
        case Limits():
            return "limits", _limits(policy)
        case BodyLimit():
            return "body", f"at most {policy.max_bytes} bytes" if policy.max_bytes else "unlimited"
        case Snippet():
            return "snippet", f"{len(policy.text.encode())} bytes of Lua, {policy.text.count(chr(10)) + 1} lines"


def _dashed(member: Enum) -> str:
    return member.name.lower().replace("_", "-")


def _balance(policy: Balance) -> str:
    text = _dashed(policy.algorithm)
    if policy.algorithm is not Algorithm.HASH:
        return text
    bound = f"at most {policy.load_percent} % of the mean load" if policy.load_percent else "whatever the load"
    return f"{text} by {_dashed(policy.hash_source)}{f' {policy.name}' if policy.name else ''}, {bound}"


def _retry(policy: Retry) -> str:
    said: list[str] = []
    if policy.on:
        words = [
            _dashed(bit) for bit in (RetryOn.CONNECT, RetryOn.TIMEOUT, RetryOn.RESET, RetryOn.NON_IDEMPOTENT) if bit in policy.on
        ]
        said.append(f"on {' '.join([*words, *map(str, policy.statuses)])}" if policy.on != RetryOn.GIVEN else "off")
    if policy.tries is not None:
        said.append(f"{policy.tries} tries")
    if policy.time_ms is not None:
        said.append(f"within {duration_text(policy.time_ms)}" if policy.time_ms else "without a bound on time")
    return ", ".join(said)


def _limits(policy: Limits) -> str:
    said: list[str] = []
    for whose, rate, burst, concurrency in (
        ("client", policy.client_rate_milli, policy.client_burst, policy.client_concurrency),
        ("total", policy.total_rate_milli, policy.total_burst, policy.total_concurrency),
    ):
        if rate:
            said.append(f"{whose} {rate / 1000:g} requests/s, burst {burst}")
        if concurrency:
            said.append(f"{whose} {concurrency} requests at a time")
    if policy.exempt:
        said.append(f"exempt {' '.join(map(str, policy.exempt[:8]))}{' ...' if len(policy.exempt) > 8 else ''}")
    return ", ".join(said)
