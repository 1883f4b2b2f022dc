"""The prober against sockets on loopback that behave in every way."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from atsk8s.model.ir import Endpoint, HealthCheck, Service, ServiceKey
from atsk8s.probes import prober as module
from atsk8s.probes.exchange import Answer, Exchange, Result, request_bytes
from atsk8s.probes.prober import Prober
from atsk8s.probes.targets import Place, Verdict

LOOPBACK = bytes((127, 0, 0, 1))


class Pod:
    """A listener that answers every connection with the same bytes; None: never."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.hold = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.requests.append(connection.recv(4096))
            if self.answer is None:
                self.hold.wait(10)
            else:
                connection.sendall(self.answer)

    def close(self) -> None:
        self.hold.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def pod() -> Iterator[Callable[[bytes | None], Pod]]:
    made: list[Pod] = []

    def make(answer: bytes | None) -> Pod:
        made.append(Pod(answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


class World:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.holds: dict[Place, int] = {}
        self.n_verdicts = 0
        self.prober = Prober(self._ring)

    def _ring(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def look(self) -> None:
        for verdict in self.prober.verdicts():
            assert isinstance(verdict, Verdict)
            self.n_verdicts += 1
            self.holds[verdict.place] = verdict.hold_ms

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while True:
                self.look()
                if condition():
                    return
                assert time.monotonic() < deadline, (self.holds, self.prober.report)
                self.changed.wait(0.01)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.prober.stop(10)
    assert made.prober._thread is None or not made.prober._thread.is_alive()


def service(*ports: int, name: str = "svc", timeout_ms: int = 5000, path: str = "/healthz") -> dict[ServiceKey, Service | None]:
    key = ServiceKey(namespace="ns", name=name, port=80)
    endpoints = tuple(Endpoint(addr=LOOPBACK, port=port) for port in ports)
    return {key: Service(key=key, endpoints=endpoints, health_check=HealthCheck(path=path, interval_ms=10, timeout_ms=timeout_ms))}


def place(port: int, name: str = "svc") -> Place:
    return Place(ServiceKey(namespace="ns", name=name, port=80), LOOPBACK, port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_without_checks_there_is_no_thread(world: World) -> None:
    key = ServiceKey(namespace="ns", name="plain", port=80)
    world.prober.take({key: Service(key=key, endpoints=(Endpoint(addr=LOOPBACK, port=1),))})
    assert world.prober._thread is None


def test_it_fails_is_left_out_and_comes_back(world: World, pod: Callable[[bytes | None], Pod]) -> None:
    good, bad = pod(b"HTTP/1.1 204 No Content\r\n\r\n"), pod(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    world.prober.take(service(good.port, bad.port, path="/healthz?deep=1"))
    world.wait_for(lambda: world.holds == {place(bad.port): 3 * 10 + 5000})
    key = place(bad.port).service
    assert world.prober.says(key)[f"127.0.0.1:{bad.port}"] == "left out: status 503"
    assert bad.requests[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % bad.port)
    n = world.n_verdicts
    world.wait_for(lambda: world.n_verdicts > n)  # said again while it lasts
    bad.answer = b"HTTP/1.0 200 OK\r\n\r\n"
    world.wait_for(lambda: world.holds == {place(bad.port): 0})
    assert world.prober.says(key)[f"127.0.0.1:{good.port}"] == "healthy"
    world.prober.take({key: None})
    world.wait_for(lambda: world.prober.report.n_targets == 0)
    assert world.prober.says(key) == {}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100"),
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is no HTTP/1"),
        (b"HTTP/2 200\r\n", "the answer is no HTTP/1"),
        (b"x" * 100_000, "the answer is no HTTP/1"),
        (None, "no answer within 100 ms"),
    ],
    ids=["404", "100", "closed", "ssh", "http2", "endless", "silent"],
)
def test_each_bad_answer_is_named(world: World, pod: Callable[[bytes | None], Pod], answer: bytes | None, why: str) -> None:
    one = pod(answer)
    world.prober.take(service(one.port, timeout_ms=100 if answer is None else 5000))
    world.wait_for(lambda: world.holds.get(place(one.port)))
    said = world.prober.says(place(one.port).service)[f"127.0.0.1:{one.port}"]
    assert said in (f"left out: {why}", "left out: connection reset by peer")


def test_refused(world: World) -> None:
    port = free_port()
    world.prober.take(service(port))
    world.wait_for(lambda: world.holds.get(place(port)))
    assert world.prober.says(place(port).service)[f"127.0.0.1:{port}"] == "left out: connection refused"


def test_redirects_are_healthy_and_not_followed(world: World, pod: Callable[[bytes | None], Pod]) -> None:
    one = pod(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
    world.prober.take(service(one.port))
    world.wait_for(lambda: world.prober.report.n_healthy > 5)
    assert world.prober.report.n_unhealthy == 0


def test_no_more_at_once_than_the_bound(world: World, pod: Callable[[bytes | None], Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = [0]
    most: list[int] = [0]

    class Counted(Exchange):
        def __init__(self, addr: bytes, port: int, path: str) -> None:
            super().__init__(addr, port, path)
            opened[0] += 1
            most[0] = max(most[0], opened[0])

        def close(self) -> None:
            super().close()
            opened[0] -= 1

    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(module, "Exchange", Counted)
    one = pod(None)
    for number in range(20):
        world.prober.take(service(one.port, name=f"svc-{number}", timeout_ms=50))
    world.wait_for(lambda: world.prober.report.n_unhealthy >= 30)
    assert most == [3]


def test_no_more_a_second_than_the_bound(world: World, pod: Callable[[bytes | None], Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many endpoints, and however often somebody wants them asked."""
    monkeypatch.setattr(module, "PER_S", 100.0)
    monkeypatch.setattr(module, "BURST", 5.0)
    world.prober._tokens = 5.0
    one = pod(b"HTTP/1.1 200 OK\r\n\r\n")
    started = time.monotonic()
    for number in range(50):
        world.prober.take(service(one.port, name=f"svc-{number}"))
    world.wait_for(lambda: world.prober.report.n_healthy >= 60)
    assert len(one.requests) <= 5 + 100.0 * (time.monotonic() - started) + 1
    assert world.prober.report.n_late > 0


def test_no_thread_to_be_had_is_tried_again(
    world: World, pod: Callable[[bytes | None], Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pod(b"HTTP/1.1 500 No\r\n\r\n")

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            world.prober.take(service(one.port))
    world.wait_for(lambda: world.holds.get(place(one.port)))


def test_no_sockets_are_no_verdict(world: World, pod: Callable[[bytes | None], Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    one = pod(b"HTTP/1.1 200 OK\r\n\r\n")
    left = [5]

    class Starved(Exchange):
        def __init__(self, addr: bytes, port: int, path: str) -> None:
            super().__init__(addr, port, path)
            if left[0] > 0:
                left[0] -= 1
                self.close()
                self.socket, self.failed = None, Answer(Result.UNKNOWN, "too many open files")

    monkeypatch.setattr(module, "REST_S", 0.01)
    monkeypatch.setattr(module, "Exchange", Starved)
    world.prober.take(service(one.port))
    world.wait_for(lambda: world.prober.report.n_healthy)
    assert world.prober.report.n_unknown == 5
    assert world.prober.report.n_unhealthy == 0
    assert world.holds == {}


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOBUFS])
def test_what_is_our_own_fault_is_not_the_endpoints(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        exchange = Exchange(LOOPBACK, 80, "/")
    assert exchange.failed is not None
    assert exchange.failed.result is Result.UNKNOWN


def test_a_thread_that_ended_asks_everybody_anew(world: World, pod: Callable[[bytes | None], Pod]) -> None:
    one = pod(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
    fail = [True]
    start = world.prober._start_due

    def once(selector: object, flights: object) -> float:
        if fail.pop() if fail else False:
            raise SystemExit
        return start(selector, flights)  # type: ignore[arg-type]

    world.prober._start_due = once  # type: ignore[assignment,method-assign]
    world.prober.take(service(one.port))
    assert world.prober._thread is not None
    world.prober._thread.join(10)
    world.prober._keeper.tend()
    world.wait_for(lambda: world.holds.get(place(one.port)))
    assert world.prober._keeper.restarts.counts() == {"probes": 1}


def test_requests_are_ascii_whatever_the_path_is() -> None:
    made = request_bytes("/a b\r\nX: y/ü", LOOPBACK, 80)
    assert made.startswith(b"GET /a%20b%0D%0AX:%20y/%C3%BC HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
    assert b"\r\nHost: [::1]:8080\r\n" in request_bytes("/", bytes(15) + b"\1", 8080)
