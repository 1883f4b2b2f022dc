"""Who gets a request, by what the Ingress says: balancing, hashing, affinity by cookie, weights; and endpoints that fail."""

from __future__ import annotations

import collections
import re
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod
from tests.harness.manifests import ANNOTATION_PREFIX, Json, app, ingress, path

N_PODS = 4
PODS = tuple(Pod(app="pod", ip=f"127.0.10.{n}") for n in range(1, N_PODS + 1))
BAD = Pod(app="bad", ip="127.0.10.20", behaviour="reset=before")

# By default a pod that has more than its share goes without a while; the request before may still be counted as under way.
UNBOUNDED = {"hash-balance-factor": "0"}

SITES: dict[str, tuple[list[str], dict[str, str]]] = {
    "turns": ([pod.ip for pod in PODS], {}),
    "random": ([pod.ip for pod in PODS], {"load-balance": "random"}),
    "least": ([pod.ip for pod in PODS], {"load-balance": "least-request"}),
    "by-address": ([pod.ip for pod in PODS], {"hash-by": "address", **UNBOUNDED}),
    "by-uri": ([pod.ip for pod in PODS], {"hash-by": "uri", **UNBOUNDED}),
    "by-header": ([pod.ip for pod in PODS], {"hash-by": "header:X-User", **UNBOUNDED}),
    "by-cookie": ([pod.ip for pod in PODS], {"hash-by": "cookie:user", **UNBOUNDED}),
    "sticky": ([pod.ip for pod in PODS], {"affinity": "cookie"}),
    "named": (
        [pod.ip for pod in PODS],
        {
            "affinity": "cookie",
            "session-cookie-name": "route",
            "session-cookie-path": "/app",
            "session-cookie-max-age": "600",
            "session-cookie-samesite": "Lax",
            "session-cookie-secure": "true",
        },
    ),
    "sick": ([BAD.ip, PODS[0].ip], {}),
}


def objects() -> list[Json]:
    made: list[Json] = []
    for name, (addresses, said) in SITES.items():
        made += [ingress(name, {f"{name}.test": [path(name)]}, annotations=said), *app(name, addresses)]
    return made


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((*PODS, BAD), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends) -> Generator[Ats]:
    with ats_directory() as directory:
        made = Ats(build, directory, options=Options(plugin_options=["--health-max-failures=3", "--health-ejection-ms=60000"]))
        made.write("site.yaml", objects())
        with made:
            yield made


def pod_of(answer: Fetched) -> str:
    assert answer.status == 200, answer
    return str(answer.json()["pod"])


def counts(ats: Ats, name: str, n: int, target: str = "/", *headers: tuple[str, str]) -> collections.Counter[str]:
    """Which pod answered how many of n."""
    return collections.Counter(pod_of(ats.get(target, host=f"{name}.test", headers=headers)) for _ in range(n))


def test_in_turn(ats: Ats) -> None:
    assert sorted(counts(ats, "turns", 5 * N_PODS).values()) == [5] * N_PODS


@pytest.mark.parametrize("name", ["random", "least"])
def test_by_chance_reaches_all(ats: Ats, name: str) -> None:
    got = counts(ats, name, 40 * N_PODS)
    assert len(got) == N_PODS and min(got.values()) >= 10


def test_equal_requests_meet(ats: Ats) -> None:
    assert len(counts(ats, "by-address", 10)) == 1
    assert len(counts(ats, "by-uri", 10, "/a?b=c")) == 1
    assert len(counts(ats, "by-header", 10, "/", ("X-User", "alice"))) == 1
    assert len(counts(ats, "by-cookie", 10, "/", ("Cookie", "a=b; user=alice; c=d"))) == 1


def test_different_ones_spread(ats: Ats) -> None:
    n = 60
    by_uri = {pod_of(ats.get(f"/?{i}", host="by-uri.test")) for i in range(n)}
    by_path = {pod_of(ats.get(f"/{i}", host="by-uri.test")) for i in range(n)}
    by_header = {pod_of(ats.get("/", host="by-header.test", headers=[("x-user", f"u{i}")])) for i in range(n)}
    by_cookie = {pod_of(ats.get("/", host="by-cookie.test", headers=[("Cookie", f"user=u{i}")])) for i in range(n)}
    by_address = {pod_of(ats.get("/", host="by-address.test", source=f"127.0.10.{100 + i}")) for i in range(n)}
    assert {len(found) for found in (by_uri, by_path, by_header, by_cookie, by_address)} == {N_PODS}


def test_without_what_is_hashed_in_turn(ats: Ats) -> None:
    assert len(counts(ats, "by-header", 4 * N_PODS)) == N_PODS


def cookie_of(answer: Fetched) -> str | None:
    return answer.header("set-cookie")


def test_affinity(ats: Ats) -> None:
    first = ats.get("/", host="sticky.test")
    cookie = cookie_of(first)
    assert cookie is not None
    match = re.fullmatch(r"(INGRESSCOOKIE=[0-9a-f]{16})((?:; [A-Za-z]+(?:=[^;]+)?)*)", cookie)
    assert match is not None and "; Path=/" in match[2] and "; HttpOnly" in match[2] and "Secure" not in match[2], cookie
    assert "127" not in match[2] and "10." not in cookie
    kept = ats.counter("atsk8s_affinity_total", result="kept")
    for _ in range(8):
        answer = ats.get("/", host="sticky.test", headers=[("Cookie", f"x=y; {match[1]}")])
        assert pod_of(answer) == pod_of(first) and cookie_of(answer) is None
    assert ats.counter("atsk8s_affinity_total", result="kept") == kept + 8


def test_affinity_of_nobody(ats: Ats) -> None:
    """Who has no cookie, or one that is none of ours, gets one of each endpoint's."""
    for headers in ([], [("Cookie", "INGRESSCOOKIE=0123456789abcdef")], [("Cookie", "INGRESSCOOKIE=10.0.0.1:80")]):
        got = {cookie_of(ats.get("/", host="sticky.test", headers=headers)) for _ in range(2 * N_PODS)}
        assert len(got) == N_PODS and None not in got


def test_cookie_as_it_was_asked_for(ats: Ats) -> None:
    cookie = cookie_of(ats.get("/app", host="named.test"))
    assert cookie is not None
    assert re.match(r"route=[0-9a-f]{16}; ", cookie), cookie
    for part in ("Path=/app", "Max-Age=600", "SameSite=Lax", "Secure"):
        assert f"; {part}" in cookie, cookie


def test_affinity_moves_when_its_endpoint_fails(ats: Ats, backends: Backends) -> None:
    first = ats.get("/", host="sticky.test")
    pod = next(pod for pod in PODS if pod.name == pod_of(first))
    value = (cookie_of(first) or "").split(";")[0]
    backends.behave(pod, "reset=before")
    try:
        answer = ats.get("/", host="sticky.test", headers=[("Cookie", value)])
        assert pod_of(answer) != pod.name
        assert (cookie_of(answer) or "").split(";")[0] not in ("", value)
    finally:
        backends.behave(pod, "")


def test_endpoint_that_fails_is_left_out(ats: Ats, backends: Backends) -> None:
    """After three failures in a row nobody asks it for a while; nobody notices."""
    ejected = ats.counter("atsk8s_endpoint_health_changes_total", result="ejected")
    for _ in range(30):
        assert pod_of(ats.get("/", host="sick.test")) == PODS[0].name
    assert ats.counter("atsk8s_endpoint_health_changes_total", result="ejected") == ejected + 1
    assert backends.counts()[BAD.name].requests == 3


def test_a_service_s_own_number_of_failures(ats: Ats, backends: Backends) -> None:
    """Sooner than the option says, or never; an annotation that changes counts at once, and one that goes leaves the option's 3."""

    def put(said: str | None) -> None:
        about, endpoints = app("own", [BAD.ip, PODS[0].ip])
        if said is not None:
            assert isinstance(about["metadata"], dict)
            about["metadata"]["annotations"] = {f"{ANNOTATION_PREFIX}/health-max-failures": said}
        ats.put("own.yaml", [ingress("own", {"own.test": [path("own")]}), about, endpoints])

    def n_asked() -> int:
        backends.clear()
        assert {pod_of(ats.get("/", host="own.test")) for _ in range(20)} == {PODS[0].name}
        return backends.counts()[BAD.name].requests

    try:
        put("0")
        assert n_asked() > 5
        put("1")
        assert n_asked() == 1
        ats.put("own.yaml", [])
        put("1")  # nobody's past
        assert n_asked() == 1
        ats.put("own.yaml", [])
        put(None)
        assert n_asked() == 3
    finally:
        ats.write("own.yaml", [])


def test_two_proxies_with_one_key_have_the_same_cookies(build: Build, backends: Backends) -> None:
    """And so has one that was started again; who has another key, or none, has others."""
    given: list[dict[str, str]] = []
    for key in ("0123456789abcdef" * 2, "0123456789abcdef" * 2, ""):
        with ats_directory() as directory:
            key_file = directory.parent / "session.key"
            key_file.write_text(key, encoding="ascii")
            key_file.chmod(0o644)
            made = Ats(build, directory, options=Options(plugin_options=[f"--session-key-file={key_file}"] if key else []))
            made.write("site.yaml", objects())
            with made:
                answers = [made.get("/", host="sticky.test") for _ in range(N_PODS)]
                given.append({pod_of(answer): (cookie_of(answer) or "").split(";")[0] for answer in answers})
    assert len(given[0]) == N_PODS and given[0] == given[1] != given[2]
    assert not set(given[0].values()) & set(given[2].values())
