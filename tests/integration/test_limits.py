"""Limits: how many requests a client and all clients may make, at a time and in a second, and how large a body may be."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod
from tests.harness.manifests import Json, app, ingress, path

POD = Pod(app="pod", ip="127.0.9.1")
FRIEND = "127.0.9.50"  # exempt
PROXY = "127.0.9.60"  # trusted

SITES: dict[str, dict[str, str]] = {
    "rate": {"limit-rps": "1", "limit-burst-multiplier": "3", "limit-exempt": f"{FRIEND}/32"},
    "minute": {"limit-rpm": "2", "limit-burst-multiplier": "1"},
    "forwarded": {"limit-rpm": "1", "limit-burst-multiplier": "1"},
    "at-once": {"limit-connections": "2"},
    "all-rate": {"limit-total-rps": "1"},
    "all-at-once": {"limit-total-concurrency": "2"},
    "nginx": {"nginx.ingress.kubernetes.io/limit-rps": "1", "nginx.ingress.kubernetes.io/limit-whitelist": f"{FRIEND}/32"},
    "body": {"body-size": "1k"},
    "body-nginx": {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"},
    "body-any": {"body-size": "0"},
    "free": {},
}


def objects() -> list[Json]:
    made: list[Json] = [*app("pod", [POD.ip])]
    for name, said in SITES.items():
        made.append(ingress(name, {f"{name}.test": [path("pod")]}, annotations=said))
    return made


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((POD,), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends) -> Generator[Ats]:
    """Bodies of 64 KiB, where a rule says nothing."""
    with ats_directory() as directory:
        options = Options(plugin_options=["--body-size=64k", f"--trusted-proxies={PROXY}/32"])
        made = Ats(build, directory, options=options)
        made.write("site.yaml", objects())
        with made:
            yield made


def ask(ats: Ats, name: str, n: int = 1, *, source: str = "127.0.9.20", target: str = "/", said: str = "") -> list[Fetched]:
    headers = [("X-Forwarded-For", said)] if said else []
    return [ats.get(target, host=f"{name}.test", source=source, headers=headers) for _ in range(n)]


def statuses(answers: list[Fetched]) -> list[int]:
    return [answer.status for answer in answers]


def assert_limited(answer: Fetched) -> int:
    """A 429 that says when; return the seconds."""
    assert answer.status == 429
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("cache-control") == "no-store"
    assert b"too many requests" in answer.body and answer.header("x-request-id") is not None
    after = answer.header("retry-after")
    assert after is not None and after.isdigit()
    return int(after)


def test_rate_of_a_client(ats: Ats, backends: Backends) -> None:
    before = ats.counter("atsk8s_requests_total", result="limited")
    began_s = time.monotonic()
    answers = ask(ats, "rate", 12)
    assert statuses(answers)[:3] == [200] * 3
    limited = [answer for answer in answers if answer.status != 200]
    assert limited and len(answers) - len(limited) <= 3 + 1 + (time.monotonic() - began_s)  # one a second comes back
    assert {assert_limited(answer) for answer in limited} == {1}
    assert ats.counter("atsk8s_requests_total", result="limited") - before == len(limited)
    assert len(backends.requests()) == len(answers) - len(limited)


def test_other_clients_and_friends_are_not_in_its_count(ats: Ats) -> None:
    assert 429 in statuses(ask(ats, "rate", 12, source="127.0.9.21"))
    assert statuses(ask(ats, "rate", 3, source="127.0.9.22")) == [200] * 3
    assert statuses(ask(ats, "rate", 10, source=FRIEND)) == [200] * 10
    assert statuses(ask(ats, "free", 20, source="127.0.9.21")) == [200] * 20


def test_retry_after_is_when(ats: Ats) -> None:
    """Two a minute: half a minute for each."""
    answers = ask(ats, "minute", 4, source="127.0.9.23")
    assert statuses(answers) == [200, 200, 429, 429]
    assert 25 <= assert_limited(answers[2]) <= 31


def test_token_comes_back(ats: Ats) -> None:
    ask(ats, "rate", 6, source="127.0.9.24")
    processes.await_condition("a token is back", lambda: statuses(ask(ats, "rate", source="127.0.9.24")) == [200])


def test_client_behind_a_trusted_proxy_is_itself(ats: Ats) -> None:
    assert statuses(ask(ats, "forwarded", 2, source=PROXY, said="192.0.2.1")) == [200, 429]
    assert statuses(ask(ats, "forwarded", 1, source=PROXY, said="192.0.2.2")) == [200]
    # What a client writes before the proxy's entry is nobody's.
    assert statuses(ask(ats, "forwarded", 1, source=PROXY, said="198.51.100.1, 192.0.2.2")) == [429]
    # And nobody but the proxy is believed.
    assert statuses(ask(ats, "forwarded", 1, source="127.0.9.25", said="192.0.2.50")) == [200]
    assert statuses(ask(ats, "forwarded", 1, source="127.0.9.25", said="192.0.2.51")) == [429]


def test_nginx_names(ats: Ats) -> None:
    answers = ask(ats, "nginx", 15, source="127.0.9.26")
    assert statuses(answers)[:5] == [200] * 5 and 429 in statuses(answers)
    assert statuses(ask(ats, "nginx", 10, source=FRIEND)) == [200] * 10


def test_rate_of_all(ats: Ats) -> None:
    began_s = time.monotonic()
    got = [statuses(ask(ats, "all-rate", source=f"127.0.9.{100 + n}"))[0] for n in range(20)]
    assert got[0] == 200 and 429 in got
    assert got.count(200) <= 5 + 1 + (time.monotonic() - began_s)  # a burst of five, and one a second


def await_idle(ats: Ats, name: str) -> None:
    """Wait until nothing is under way: a request has its answer a moment before it gives back what it had."""

    def is_idle() -> bool:
        endpoints = ats.explain(f"http://{name}.test/")["endpoints"]
        assert isinstance(endpoints, list)
        return all(one["in_flight"] == 0 for one in endpoints)

    processes.await_condition("nothing is under way", is_idle)


@contextlib.contextmanager
def held(ats: Ats, name: str, n: int, source: str, backends: Backends) -> Generator[list[Fetched]]:
    """N requests that wait at their pod inside the block; their answers after it."""
    answers: list[Fetched] = []

    def one() -> None:
        answers.extend(ask(ats, name, source=source, target="/?slow_ms=4000"))

    await_idle(ats, name)
    seen = len(backends.requests())
    threads = [threading.Thread(target=one) for _ in range(n)]
    for thread in threads:
        thread.start()
    processes.await_condition("they are at the pod", lambda: len(backends.requests()) >= seen + n)
    yield answers
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("name", "others"), [("at-once", 200), ("all-at-once", 429)])
def test_concurrency(ats: Ats, backends: Backends, name: str, others: int) -> None:
    for _ in range(2):  # what is given back can be had again
        with held(ats, name, 2, "127.0.9.30", backends) as answers:
            refused = ask(ats, name, source="127.0.9.30")[0]
            assert assert_limited(refused) == 1
            assert statuses(ask(ats, name, source="127.0.9.31")) == [others]
        assert statuses(answers) == [200, 200]
    for _ in range(5):
        await_idle(ats, name)
        assert statuses(ask(ats, name, source="127.0.9.30")) == [200]


def test_concurrency_is_given_back_by_clients_that_go(ats: Ats, backends: Backends) -> None:
    request = b"GET /?slow_ms=60000 HTTP/1.1\r\nHost: at-once.test\r\n\r\n"
    for _ in range(3):
        await_idle(ats, "at-once")
        socks = [processes.connect(ats.place, ats.options.address, ats.http_port, source="127.0.9.32") for _ in range(2)]
        seen = len(backends.requests())
        for sock in socks:
            sock.sendall(request)
        processes.await_condition("they are at the pod", lambda seen=seen: len(backends.requests()) >= seen + 2)  # type: ignore[misc]
        assert statuses(ask(ats, "at-once", source="127.0.9.32")) == [429]
        for sock in socks:
            sock.close()
        processes.await_condition("it is given back", lambda: statuses(ask(ats, "at-once", source="127.0.9.32")) == [200])


# --- bodies --------------------------------------------------------------------------------------------------------------------


def post(ats: Ats, name: str, size: int) -> int:
    return ats.get("/", host=f"{name}.test", method="POST", body=b"x" * size).status


@pytest.mark.parametrize(("name", "limit"), [("body", 1 << 10), ("body-nginx", 1 << 20), ("free", 64 << 10)])
def test_body_of_a_length(ats: Ats, backends: Backends, name: str, limit: int) -> None:
    assert post(ats, name, limit) == 200
    seen = len(backends.requests())
    answer = ats.raw(f"POST / HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: {limit + 1}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:100]
    assert b"body is too large" in answer
    assert len(backends.requests()) == seen


def test_body_without_a_limit(ats: Ats) -> None:
    assert post(ats, "body-any", 5 << 20) == 200


def chunks(size: int) -> bytes:
    return b"%x\r\n%s\r\n" % (size, b"z" * size)


def chunked(ats: Ats, name: str, n: int, size: int = 1000, *, pause_s: float = 0.0) -> bytes:
    """Send N chunks, and return what is answered, whenever it is."""
    head = f"POST / HTTP/1.1\r\nHost: {name}.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    answer = b""
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=pause_s or 10.0)
    with sock, contextlib.suppress(OSError):
        sock.sendall(head)
        for _ in range(n):
            sock.sendall(chunks(size))
            if pause_s:
                with contextlib.suppress(TimeoutError):
                    answer += sock.recv(65536)
                    break
        else:
            sock.sendall(b"0\r\n\r\n")
        sock.settimeout(10.0)
        while part := sock.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(("name", "n"), [("free", 60), ("body-any", 3000), ("body-nginx", 1000)])
def test_chunked_body_within_the_limit(ats: Ats, name: str, n: int) -> None:
    answer = chunked(ats, name, n)
    assert answer.startswith(b"HTTP/1.1 200 ") and f'"body_bytes": {n * 1000}'.encode() in answer


def test_chunked_body_over_the_limit_is_cut(ats: Ats, backends: Backends) -> None:
    """A body that goes on and on; the pod never sees its end."""
    before = ats.counter("atsk8s_bodies_cut_total")
    answer = chunked(ats, "free", 200, pause_s=0.01)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert b"body is too large" in answer
    assert ats.counter("atsk8s_bodies_cut_total") == before + 1
    assert ats.get("/", host="free.test").status == 200


# --- headers ---------------------------------------------------------------------------------------------------------------------


def test_header_over_the_limit_is_400(ats: Ats) -> None:
    for size, status in ((40_000, b"200"), (70_000, b"400")):
        fields = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 990) for n in range(size // 1000))
        answer = ats.raw(b"GET / HTTP/1.1\r\nHost: free.test\r\nConnection: close\r\n" + fields + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:100]
