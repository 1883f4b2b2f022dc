"""Time limits, by option and by rule: what ends a request that takes too long, with which answer, and what does not.

Traffic Server looks at its clocks once a second: an end may come up to two seconds late, and never early.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod
from tests.harness.manifests import Json, app, ingress, path
from tests.harness.patience import stretched

POD = Pod(app="pod", ip="127.0.8.1")
OTHER = Pod(app="other", ip="127.0.8.2")
LATE_S = 3.0  # Traffic Server's clock, and what a test costs

SITES: dict[str, tuple[list[str], dict[str, str]]] = {
    "read": ([POD.ip], {"read-timeout": "1s"}),
    "read-long": ([POD.ip], {"read-timeout": "20s"}),
    "read-none": ([POD.ip], {"read-timeout": "0"}),
    "request": ([POD.ip], {"request-timeout": "1500ms"}),
    "request-two": ([POD.ip, OTHER.ip], {"request-timeout": "2s"}),
    "send": ([POD.ip], {"send-timeout": "1s", "read-timeout": "60s"}),
    "options": ([POD.ip], {}),
    "nginx": ([POD.ip], {"nginx.ingress.kubernetes.io/proxy-read-timeout": "1"}),
}


def objects() -> list[Json]:
    made: list[Json] = []
    for name, (addresses, said) in SITES.items():
        made += [ingress(name, {f"{name}.test": [path(name)]}, annotations=said), *app(name, addresses)]
    return made


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((POD, OTHER), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends) -> Generator[Ats]:
    """Options of three seconds, where rules say nothing; a header may take four."""
    with ats_directory() as directory:
        options = Options(
            plugin_options=["--read-timeout-ms=3000", "--health-max-failures=0"],
            records={"proxy.config.http.transaction_active_timeout_in": 4},
        )
        made = Ats(build, directory, options=options)
        made.write("site.yaml", objects())
        with made:
            yield made


def timed(ats: Ats, name: str, target: str, *, method: str = "GET", body: bytes | None = None) -> tuple[Fetched, float]:
    """One answer, and how long it took [s]."""
    before = time.monotonic()
    answer = ats.get(target, host=f"{name}.test", method=method, body=body)
    return answer, time.monotonic() - before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("name", "limit_s"), [("read", 1.0), ("nginx", 1.0), ("options", 3.0), ("request", 1.5)])
def test_silent_pod_is_504(ats: Ats, name: str, limit_s: float, method: str) -> None:
    answer, took_s = timed(ats, name, "/?slow_ms=15000", method=method, body=b"x" if method == "POST" else None)
    assert answer.status == 504
    assert b"did not answer in time" in answer.body
    assert limit_s <= took_s < limit_s + stretched(LATE_S)


@pytest.mark.parametrize("name", ["read-long", "read-none"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_rule_may_wait_longer_than_the_option(ats: Ats, name: str, method: str) -> None:
    """And longer than a header may take."""
    answer, took_s = timed(ats, name, "/?slow_ms=7000", method=method, body=b"x" if method == "POST" else None)
    assert answer.status == 200 and took_s >= 7


def test_silence_within_an_answer_is_no_end_before_the_limit(ats: Ats) -> None:
    answer, took_s = timed(ats, "read-long", "/?slow_ms=1&size=100000&drip_ms=6000")
    assert (answer.status, len(answer.body)) == (200, 100_000) and took_s >= 6


def test_silence_within_an_answer_ends_it(ats: Ats) -> None:
    """Its header is out: all that is left is to cut it, and its length tells the client."""
    before = time.monotonic()
    answer = ats.raw(b"GET /?slow_ms=1&size=100000&drip_ms=15000 HTTP/1.1\r\nHost: read.test\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"200 OK" in head and b"Content-Length: 100000" in head
    assert 0 < len(body) < 100_000
    assert time.monotonic() - before < 1 + stretched(LATE_S)


def test_request_timeout_covers_every_attempt(ats: Ats, backends: Backends) -> None:
    """It has no second attempt's time, and is not asked again."""
    answer, took_s = timed(ats, "request-two", "/?slow_ms=15000")
    assert answer.status == 504 and 2 <= took_s < 2 + stretched(LATE_S)
    assert len(backends.requests()) == 1


def test_request_timeout_of_a_quick_request_is_nothing(ats: Ats) -> None:
    for _ in range(3):
        answer, _ = timed(ats, "request", "/")
        assert answer.status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 1000\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
def test_stalled_body_is_408(ats: Ats, framing: str) -> None:
    before = time.monotonic()
    answer = ats.raw(f"POST / HTTP/1.1\r\nHost: send.test\r\n{framing}".encode())
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:200]
    assert b"did not come in time" in answer and b"<" not in answer
    assert 1 <= time.monotonic() - before < 1 + stretched(LATE_S + 1)


def test_answer_to_an_upload_may_take_longer_than_its_body(ats: Ats) -> None:
    """The limit for the client's silence ends with the client's body."""
    answer, took_s = timed(ats, "send", "/?slow_ms=4000", method="POST", body=b"x" * 100_000)
    assert answer.status == 200 and took_s >= 4
    answer, took_s = timed(ats, "send", "/?slow_ms=1&size=100000&drip_ms=4000", method="POST", body=b"x" * 100_000)
    assert (answer.status, len(answer.body)) == (200, 100_000) and took_s >= 4


def test_slow_header_is_cut(ats: Ats) -> None:
    """That it goes on dripping does not help, once in some seconds; what drips faster: test_slow_clients.py."""
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=2.5)
    before = time.monotonic()
    with sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: options.test\r\n")
        while time.monotonic() - before < 20:
            try:
                sock.sendall(b"X-Slow: 1\r\n")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert 4 <= time.monotonic() - before < 20


def test_body_may_take_longer_than_a_header(ats: Ats) -> None:
    """What moves is not cut by the header's limit."""
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=1.0)
    before = time.monotonic()
    with sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: options.test\r\nConnection: close\r\nContent-Length: 100\r\n\r\n")
        n = 0
        while time.monotonic() - before < 7:
            sock.sendall(b"x")
            n += 1
            with pytest.raises(TimeoutError):
                sock.recv(1)
        sock.sendall(b"x" * (100 - n))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
