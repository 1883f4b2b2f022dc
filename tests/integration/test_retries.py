"""Second attempts: what is tried again, how often, for how long, at whose word, and when the process has had enough of them."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import Json, app, ingress, path
from tests.harness.patience import stretched

GOOD = Pod(app="good", ip="127.0.7.1")
RESETS = Pod(app="resets", ip="127.0.7.2", behaviour="reset=before")
SILENT = Pod(app="silent", ip="127.0.7.3", behaviour="slow_ms=8000")
BUSY = Pod(app="busy", ip="127.0.7.4", behaviour="status=503")
BUSY_TOO = Pod(app="busy-too", ip="127.0.7.5", behaviour="status=503")
REFUSES = "127.0.7.9"  # nobody listens
PODS = (GOOD, RESETS, SILENT, BUSY, BUSY_TOO)

# host -> the pods behind it, and what its Ingress says
SITES: dict[str, tuple[list[str], dict[str, str]]] = {
    "default": ([RESETS.ip, GOOD.ip], {}),
    "off": ([RESETS.ip, GOOD.ip], {"retry-on": "off"}),
    "off-refused": ([REFUSES, GOOD.ip], {"retry-on": "off"}),
    "connect": ([RESETS.ip, GOOD.ip], {"retry-on": "connect"}),
    "connect-refused": ([REFUSES, GOOD.ip], {"retry-on": "connect"}),
    "one-try": ([REFUSES, GOOD.ip], {"retry-tries": "1"}),
    "status": ([BUSY.ip, GOOD.ip], {"retry-on": "503"}),
    "other-status": ([BUSY.ip, GOOD.ip], {"retry-on": "502 504"}),
    "any": ([BUSY.ip, GOOD.ip], {"retry-on": "503 non-idempotent"}),
    "all-busy": ([BUSY.ip, BUSY_TOO.ip], {"retry-on": "503"}),
    "short": ([SILENT.ip, GOOD.ip], {"retry-timeout": "500ms", "read-timeout": "1s"}),
    "nginx": ([BUSY.ip, GOOD.ip], {"nginx.ingress.kubernetes.io/proxy-next-upstream": "error timeout http_503"}),
    "outage": ([RESETS.ip, "127.0.7.2"], {}),
}


def objects() -> list[Json]:
    """Each host with an Ingress and a Service of its own."""
    made: list[Json] = []
    for name, (addresses, said) in SITES.items():
        made += [ingress(name, {f"{name}.test": [path(name)]}, annotations=said), *app(name, sorted(set(addresses)))]
    return made


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends(PODS, directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends) -> Generator[Ats]:
    """One server for the module; each pod stays a choice, however often it has failed."""
    with ats_directory() as directory:
        made = Ats(build, directory, options=Options(plugin_options=["--health-max-failures=0"]))
        made.write("site.yaml", objects())
        with made:
            yield made


def statuses(ats: Ats, name: str, n: int, method: str = "GET", body: bytes | None = None) -> list[int]:
    """Ask n times, in turn: each pod is the first choice as often."""
    return sorted(ats.get("/", host=f"{name}.test", method=method, body=body).status for _ in range(n))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("default", [200, 200]),
        ("off", [200, 502]),
        ("off-refused", [200, 502]),
        ("connect", [200, 502]),
        ("connect-refused", [200, 200]),
        ("one-try", [200, 502]),
        ("status", [200, 200]),
        ("nginx", [200, 200]),
        ("other-status", [200, 503]),
        ("all-busy", [503, 503]),
    ],
)
def test_what_is_tried_again(ats: Ats, name: str, wanted: list[int]) -> None:
    assert statuses(ats, name, 2) == wanted


def test_status_goes_to_each_pod_once(ats: Ats, backends: Backends) -> None:
    """And the last one's answer is the answer, whole."""
    answer = ats.get("/", host="all-busy.test")
    assert (answer.status, len(backends.requests())) == (503, 2)
    assert answer.json()["app"] in ("busy", "busy-too")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_status_of_what_is_not_safe_is_the_answer(ats: Ats, backends: Backends, method: str) -> None:
    assert statuses(ats, "status", 2, method, b"x" if method != "DELETE" else None) == [200, 503]
    assert len(backends.requests()) == 2


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_non_idempotent_without_a_body_is_tried_again(ats: Ats, backends: Backends, method: str) -> None:
    """As the Ingress allows it."""
    assert statuses(ats, "any", 2, method) == [200, 200]
    assert len(backends.requests()) == 3


def test_non_idempotent_with_a_body_is_not(ats: Ats, backends: Backends) -> None:
    """Traffic Server does not keep the body."""
    assert statuses(ats, "any", 2, "POST", b"body") == [200, 503]
    assert len(backends.requests()) == 2


def test_safe_request_with_a_body_is_not_sent_twice(ats: Ats, backends: Backends) -> None:
    """Its body is gone: an answer at once, not a wait for it."""
    before = time.monotonic()
    assert statuses(ats, "default", 2, "GET", b"body") == [200, 502]
    assert time.monotonic() - before < stretched(5)
    assert len(backends.requests()) == 2


def test_no_attempt_after_its_time(ats: Ats) -> None:
    """The first one's silence has used it up."""
    before = ats.counter("atsk8s_retries_refused_total", result="time")
    assert statuses(ats, "short", 2) == [200, 504]
    assert ats.counter("atsk8s_retries_refused_total", result="time") == before + 1


def test_budget_ends_an_outage_of_retries(build: Build, backends: Backends) -> None:
    """One of two pods resets everything.  Without a budget each of its requests would be sent again."""
    with ats_directory() as directory:
        options = Options(plugin_options=["--health-max-failures=0", "--retry-budget-percent=0"])
        made = Ats(build, directory, options=options)
        made.write("site.yaml", objects())
        with made:
            assert statuses(made, "default", 10) == [200] * 5 + [502] * 5
            assert made.counter("atsk8s_retries_refused_total", result="budget") == 5
            # What made no connection cost nobody anything: it is always tried again.
            assert statuses(made, "connect-refused", 10) == [200] * 10
            # A status that may not be tried again is the answer.
            assert statuses(made, "status", 4) == [200, 200, 503, 503]
