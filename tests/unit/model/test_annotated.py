"""Annotations: each spelling's values, which name decides, what a bad one costs, and the policies that follow."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from atsk8s.errors import Reason
from atsk8s.model.annotated import (
    UNKNOWN_NAMED_MAX,
    Fault,
    health_check_of,
    ingress_annotations,
    policies_of,
    service_annotations,
)
from atsk8s.model.annotations import ANCESTOR, ANNOTATIONS, NGINX, OURS, VALUE_CHARS_MAX, Scope
from atsk8s.model.ir import HealthCheck
from atsk8s.model.policies import (
    Affinity,
    Algorithm,
    Balance,
    BodyLimit,
    CookieSecure,
    HashSource,
    Limits,
    Policy,
    Retry,
    RetryOn,
    Timeouts,
    plain,
)


def policies(**ours: str) -> tuple[Policy, ...]:
    """Of an Ingress with these of our annotations, none of which is bad."""
    return of({OURS + name.replace("_", "-"): value for name, value in ours.items()})


def of(annotations: dict[str, str]) -> tuple[Policy, ...]:
    said, faults = ingress_annotations(annotations)
    made, useless = policies_of(said)
    assert [*faults, *useless] == []
    return made


def faults_of(annotations: dict[str, str]) -> list[Fault]:
    said, faults = ingress_annotations(annotations)
    return [*faults, *policies_of(said)[1]]


def test_nothing_said_is_nothing() -> None:
    assert of({}) == ()
    assert of({"kubernetes.io/ingress.class": "x", "cert-manager.io/issuer": "y"}) == ()
    assert of({NGINX + "proxy-buffering": "on", ANCESTOR + "cache-enable": "false"}) == (), (
        "others' annotations are others' business"
    )


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({OURS + "load-balance": "least-request"}, Balance(algorithm=Algorithm.LEAST_REQUEST)),
        ({NGINX + "load-balance": "ewma"}, Balance(algorithm=Algorithm.LEAST_REQUEST)),
        ({NGINX + "load-balance": "round_robin"}, Balance(algorithm=Algorithm.ROUND_ROBIN)),
        (
            {OURS + "load-balance": "hash"},
            Balance(algorithm=Algorithm.HASH, hash_source=HashSource.ADDRESS, load_percent=125),
        ),
        (
            {OURS + "hash-by": "header:X-User", OURS + "hash-balance-factor": "0"},
            Balance(algorithm=Algorithm.HASH, hash_source=HashSource.HEADER, name="x-user"),
        ),
        (
            {OURS + "hash-by": "cookie:Sid", OURS + "hash-balance-factor": "200"},
            Balance(algorithm=Algorithm.HASH, hash_source=HashSource.COOKIE, name="Sid", load_percent=200),
        ),
        (
            {NGINX + "upstream-hash-by": "$request_uri"},
            Balance(algorithm=Algorithm.HASH, hash_source=HashSource.URI, load_percent=125),
        ),
        (
            {NGINX + "upstream-hash-by": "$http_x_real_user"},
            Balance(algorithm=Algorithm.HASH, hash_source=HashSource.HEADER, name="x-real-user", load_percent=125),
        ),
        ({OURS + "affinity": "cookie"}, Affinity(name="INGRESSCOOKIE", attributes="; Path=/; HttpOnly")),
        (
            {
                NGINX + "affinity": "cookie",
                NGINX + "session-cookie-name": "route",
                NGINX + "session-cookie-path": "/app",
                NGINX + "session-cookie-domain": ".Shop.example",
                NGINX + "session-cookie-expires": "172800",
                NGINX + "session-cookie-secure": "true",
                NGINX + "session-cookie-samesite": "lax",
            },
            Affinity(
                name="route",
                attributes="; Path=/app; Domain=shop.example; Max-Age=172800; HttpOnly; SameSite=Lax",
                secure=CookieSecure.ALWAYS,
            ),
        ),
        ({OURS + "retry-on": "off"}, Retry(on=RetryOn.GIVEN)),
        (
            {OURS + "retry-on": "connect, 503 502", OURS + "retry-tries": "2", OURS + "retry-timeout": "1500ms"},
            Retry(on=RetryOn.GIVEN | RetryOn.CONNECT | RetryOn.STATUS, statuses=(502, 503), tries=2, time_ms=1500),
        ),
        (
            {NGINX + "proxy-next-upstream": "error timeout http_502 non_idempotent", NGINX + "proxy-next-upstream-tries": "0"},
            Retry(
                on=RetryOn.GIVEN | RetryOn.CONNECT | RetryOn.RESET | RetryOn.TIMEOUT | RetryOn.STATUS | RetryOn.NON_IDEMPOTENT,
                statuses=(502,),
                tries=8,
            ),
        ),
        (
            {NGINX + "proxy-connect-timeout": "5", NGINX + "proxy-read-timeout": "3600", OURS + "request-timeout": "2m"},
            Timeouts(connect_ms=5000, read_ms=3_600_000, request_ms=120_000),
        ),
        ({ANCESTOR + "read-response-timeout": "30", OURS + "send-timeout": "0"}, Timeouts(read_ms=30_000, send_ms=0)),
        ({OURS + "limit-rps": "10"}, Limits(client_rate_milli=10_000, client_burst=50)),
        ({OURS + "limit-rps": "10", OURS + "limit-rpm": "60"}, Limits(client_rate_milli=1000, client_burst=300)),
        (
            {
                NGINX + "limit-connections": "7",
                NGINX + "limit-whitelist": "10.1.2.3/8, 2001:db8::/32",
                OURS + "limit-total-rps": "100",
                OURS + "limit-total-concurrency": "9",
                OURS + "limit-burst-multiplier": "2",
            },
            Limits(
                client_concurrency=7,
                total_rate_milli=100_000,
                total_burst=200,
                total_concurrency=9,
                exempt=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
            ),
        ),
        ({NGINX + "proxy-body-size": "8m"}, BodyLimit(max_bytes=8 << 20)),
        ({OURS + "body-size": "0"}, BodyLimit(max_bytes=0)),
    ],
    ids=lambda value: "" if isinstance(value, dict) else plain(value)[0],
)
def test_values(annotations: dict[str, str], expected: Policy) -> None:
    assert of(annotations) == (expected,)
    name, text = plain(expected)
    assert name and text


def test_policies_are_in_order_of_their_kinds() -> None:
    made = policies(body_size="1", limit_rps="1", read_timeout="1", retry_tries="1", affinity="cookie", load_balance="random")

    assert [plain(policy)[0] for policy in made] == ["balance", "affinity", "retry", "timeouts", "limits", "body"]


def test_ours_decides_before_the_ancestors_which_decides_before_ingress_nginxs() -> None:
    annotations = {NGINX + "proxy-read-timeout": "1", ANCESTOR + "read-response-timeout": "2", OURS + "read-timeout": "3"}
    assert of(annotations) == (Timeouts(read_ms=3000),)
    del annotations[OURS + "read-timeout"]
    assert of(annotations) == (Timeouts(read_ms=2000),)
    del annotations[ANCESTOR + "read-response-timeout"]
    assert of(annotations) == (Timeouts(read_ms=1000),)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            OURS + "load-balance",
            "ip_hash",
            "'ip_hash' is none of round-robin, least-request, random, hash: correct it; until then the default counts",
        ),
        (NGINX + "load-balance", "least-request", "neither round_robin nor ewma: correct it"),
        (OURS + "hash-by", "header:", "is no name of a header"),
        (OURS + "hash-by", "address:x", "none of address, uri"),
        (NGINX + "upstream-hash-by", "$host$uri", "hash by one of them"),
        (OURS + "hash-balance-factor", "100", "from 101 to 1000"),
        (OURS + "affinity", "ip", "the only kind"),
        (OURS + "session-cookie-name", "a=b", "is no name of a cookie"),
        (OURS + "session-cookie-name", "x" * 129, "at most 128"),
        (OURS + "session-cookie-path", "/a;Domain=evil.example", "without ';'"),
        (OURS + "session-cookie-path", "/a\r\nSet-Cookie: x", "is no path"),
        (OURS + "session-cookie-domain", "a b", "not a DNS name"),
        (OURS + "session-cookie-max-age", "-1", "whole number of seconds"),
        (OURS + "session-cookie-secure", "", "neither true nor false"),
        (OURS + "session-cookie-samesite", "maybe", "None, Lax, Strict"),
        (OURS + "service-weights", "a", "entry 'a' that is not SERVICE=WEIGHT"),
        (OURS + "service-weights", "a=1 a=2", "twice"),
        (OURS + "service-weights", "a=0 b=0", "no Service with a weight above 0: "),
        (OURS + "service-weights", "a=x", "the weight 'x' for 'a', which is not a whole number"),
        (OURS + "service-weights", " ".join(f"s{i}=1" for i in range(65)), "more than 64"),
        (OURS + "retry-on", "", "is empty"),
        (OURS + "retry-on", "off connect", "off beside other words"),
        (OURS + "retry-on", "200", "status '200', which is none of"),
        (OURS + "retry-on", " ".join(map(str, range(500, 509))), "9 statuses; at most 8"),
        (OURS + "retry-on", "5٠3", "which is none of"),
        (NGINX + "proxy-next-upstream", "error connect", "the word 'connect'"),
        (OURS + "retry-tries", "9", "from 1 to 8"),
        (OURS + "connect-timeout", "0", "outside 1ms to 10m"),
        (OURS + "read-timeout", "1.5s", "not a duration"),
        (OURS + "read-timeout", "721h", "outside 0 to 720h"),
        (OURS + "limit-rps", "ten", "this limit is NOT in force"),
        (NGINX + "limit-connections", "99999999", "this limit is NOT in force"),
        (OURS + "limit-exempt", "10.0.0.1/8", "no address range (CIDR)"),
        (OURS + "body-size", "8mb", "NOT in force, the option --body-size counts"),
        (OURS + "body-size", "9" * 15 + "g", "larger than any body"),
        (OURS + "body-size", "1" * (VALUE_CHARS_MAX + 1), f"longer than {VALUE_CHARS_MAX}"),
    ],
)
def test_bad_values_cost_themselves_and_say_what_to_do(name: str, value: str, says: str) -> None:
    said, faults = ingress_annotations({name: value, OURS + "send-timeout": "1s"})

    assert [fault.reason for fault in faults] == [Reason.INVALID_ANNOTATION]
    assert says in faults[0].message
    assert name in faults[0].message
    assert policies_of(said)[0] == (Timeouts(send_ms=1000),), "the others count"


def test_a_bad_value_is_not_made_good_by_another_name() -> None:
    said, faults = ingress_annotations({OURS + "limit-rps": "x", NGINX + "limit-rps": "5"})

    assert (said.limit_rps, len(faults)) == (None, 1)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({OURS + "session-cookie-name": "a"}, "session-cookie-* has no effect without affinity: cookie"),
        ({OURS + "hash-balance-factor": "150"}, "without load-balance: hash"),
        ({OURS + "load-balance": "random", OURS + "hash-by": "uri"}, "no effect beside hash-by"),
        (
            {OURS + "limit-burst-multiplier": "3", OURS + "limit-connections": "1"},
            "without limit-rps, limit-rpm or limit-total-rps",
        ),
    ],
)
def test_what_has_no_effect_is_said(annotations: dict[str, str], says: str) -> None:
    (fault,) = faults_of(annotations)

    assert says in fault.message


def test_unknown_names_of_ours_are_faults_and_bounded() -> None:
    (fault,) = faults_of({OURS + "read-timeuot": "1s"})
    assert (fault.reason, "there is none of this name" in fault.message) == (Reason.UNKNOWN_ANNOTATION, True)
    (fault,) = faults_of({OURS + "health-check-path": "/"})
    assert "it is for objects of kind Service" in fault.message

    many = faults_of({f"{OURS}x{i}": "" for i in range(100)})

    assert len(many) == UNKNOWN_NAMED_MAX + 1
    assert "100 annotations" in many[-1].message


def test_service_annotations() -> None:
    said, faults = service_annotations({OURS + "health-check-path": "/up?x=1", OURS + "health-check-interval": "1s"})
    assert (health_check_of(said), faults) == ((HealthCheck(path="/up?x=1", interval_ms=1000), []), [])

    said, faults = service_annotations({OURS + "health-check-port": "80", OURS + "health-max-failures": "0"})
    check, useless = health_check_of(said)
    assert (check, said.health_max_failures, faults) == (None, 0, [])
    assert "health-check-port has no effect without health-check-path" in useless[0].message

    _, faults = service_annotations({OURS + "health-check-path": "/a b", OURS + "limit-rps": "1", NGINX + "affinity": "cookie"})
    assert [fault.reason for fault in faults] == [Reason.INVALID_ANNOTATION, Reason.UNKNOWN_ANNOTATION]


def test_no_name_is_in_the_table_twice() -> None:
    names = [name for row in ANNOTATIONS for name in (OURS + row.name, *(alias.name for alias in row.aliases))]

    assert len(names) == len(set(names))
    assert {row.scope for row in ANNOTATIONS} == set(Scope)
