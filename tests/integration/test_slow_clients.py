"""What drips: a header, a body or an answer of which a little comes several times a second, so that Traffic Server's clocks, which
look only at connections on which nothing came for a second, never end it.  And what may drip for as long as it likes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Generator, Iterator

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod, WebSocket
from tests.harness.manifests import app, ingress, path, tls_secret

POD = Pod(app="pod", ip="127.0.13.1")
DRIPPER = "127.0.13.2"
POD_PORT = 8080
DRIP_S = 0.15
HEADER_S = 3.0  # what a header may take
REQUEST_S = 1.5  # request-timeout
FLOOD_BYTES = 400_000_000
LATE_S = 8.0  # a round of looks, Traffic Server's clocks and ours behind them, and a busy machine
CUT = "atsk8s_headers_cut_total"
REQUESTS_CUT = "atsk8s_requests_cut_total"
UPLOAD = b"POST / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


# Target of a dripping pod -> how its header goes on, what comes again and again, and how often [s].
DRIPS = {
    b"/header": (b"", b"X-Slow: 1\r\n", DRIP_S),
    b"/body": (b"Content-Length: 100000\r\n\r\n", b"x", DRIP_S),
    b"/events": (b"Transfer-Encoding: chunked\r\n\r\n", b"9\r\ndata: 1\n\n\r\n", DRIP_S),
    b"/flood": (b"Content-Length: %d\r\n\r\n" % FLOOD_BYTES, b"x" * 65536, 0.0),
}


class Dripper:
    """A pod whose answers drip without an end: see DRIPS."""

    def __init__(self) -> None:
        self._socket = socket.create_server((DRIPPER, POD_PORT))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Dripper:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._socket.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(one,)))
                self._threads[-1].start()

    def _serve(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (part := one.recv(65536)):
                head += part
            if not head:
                return
            target = head.split(b" ", 2)[1]
            framing, part, pause_s = DRIPS[target]
            one.sendall(b"HTTP/1.1 200 OK\r\n" + framing)
            while not self._over.wait(pause_s):
                one.sendall(part)


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Dripper(), Backends((POD,), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")


@contextlib.contextmanager
def running(build: Build, authority: Authority, header_s: int) -> Generator[Ats]:
    pair = authority.pair(["plain.test"])
    timely = {"request-timeout": f"{REQUEST_S * 1000:.0f}ms", "read-timeout": "60s", "send-timeout": "60s"}
    objects = [
        ingress("plain", {"plain.test": [path("pod")]}),
        ingress("drips", {"drips.test": [path("drips")]}),
        ingress("timely", {"timely.test": [path("pod")]}, annotations=timely),
        ingress("timely-drips", {"timely-drips.test": [path("drips")]}, annotations=timely),
        *app("pod", [POD.ip]),
        *app("drips", [DRIPPER]),
        tls_secret("pair", pair.certificate, pair.key),
    ]
    options = Options(
        plugin_options=["--default-certificate=test/pair", "--health-max-failures=0"],
        records={"proxy.config.http.transaction_active_timeout_in": header_s},
    )
    with ats_directory() as directory:
        made = Ats(build, directory, options=options)
        made.write("site.yaml", objects)
        made.tree.write("remap.config", f"map http://foreign.test/ http://{DRIPPER}:{POD_PORT}/\n{made.rule()}\n")
        with made:
            yield made


@pytest.fixture(scope="module")
def server(build: Build, backends: Backends, authority: Authority) -> Generator[Ats]:
    with running(build, authority, int(HEADER_S)) as made:
        yield made


@pytest.fixture
def ats(server: Ats) -> Generator[Ats]:
    """The server; its logs are looked at after each test."""
    yield server
    server.check_logs()


@contextlib.contextmanager
def client(ats: Ats, authority: Authority | None = None) -> Generator[socket.socket]:
    """A connection, over TLS with an authority, on which waiting takes a drip's time."""
    address, port = ats.options.address, ats.https_port if authority else ats.http_port
    sock = processes.connect(ats.place, address, port, timeout_s=10)
    with authority.client_context().wrap_socket(sock, server_hostname="plain.test") if authority else sock as made:
        yield made


def drip(sock: socket.socket, part: bytes, most_s: float) -> tuple[float, bytes]:
    """Send `part` again and again until the connection ends, or `most_s` have passed: how long that took [s], and what came."""
    before = time.monotonic()
    came = b""
    sock.settimeout(DRIP_S)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while time.monotonic() - before < most_s:
            sock.sendall(part)
            try:
                got = sock.recv(65536)
            except TimeoutError:
                continue
            if not got:
                break
            came += got
    took_s = time.monotonic() - before
    sock.settimeout(10)
    return took_s, came


def answered(sock: socket.socket) -> bytes:
    """One answer that says its length, whole."""
    sock.settimeout(10)
    head, came = b"", b""
    while not (head and len(came) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])):
        part = sock.recv(65536)
        assert part, "the connection ended"
        came += part
        if not head and b"\r\n\r\n" in came:
            head, _, came = came.partition(b"\r\n\r\n")
    return head


def whole_request(sock: socket.socket, host: str = "plain.test") -> None:
    """A request on a connection that stays, and nothing of its answer is left."""
    sock.sendall(f"GET /?format=text HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answered(sock).startswith(b"HTTP/1.1 200 ")


# --- headers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tls", [False, True])
def test_header_that_drips_is_cut(ats: Ats, authority: Authority, is_tls: bool) -> None:
    before = ats.counter(CUT)
    with client(ats, authority if is_tls else None) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: plain.test\r\n")
        took_s, came = drip(sock, b"X: 1\r\n", HEADER_S + LATE_S)
    assert HEADER_S <= took_s < HEADER_S + LATE_S and not came
    assert ats.counter(CUT) == before + 1


@pytest.mark.parametrize("is_tls", [False, True])
def test_header_of_a_later_request_has_its_own_time(ats: Ats, authority: Authority, is_tls: bool) -> None:
    """A connection may be idle for longer than a header may take, and the next header has all its time."""
    before = ats.counter(CUT)
    with client(ats, authority if is_tls else None) as sock:
        whole_request(sock)
        sock.settimeout(HEADER_S + 1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        whole_request(sock)
        took_s, came = drip(sock, b"G", HEADER_S + LATE_S)
    assert HEADER_S <= took_s < HEADER_S + LATE_S and not came
    assert ats.counter(CUT) == before + 1


def test_slow_header_within_its_time_is_answered(ats: Ats) -> None:
    before = ats.counter(CUT)
    with client(ats) as sock:
        for _ in range(3):
            sock.sendall(b"GET /?format=text HTTP/1.1\r\nHost: plain.test\r\n")
            drip(sock, b"X: 1\r\n", HEADER_S / 2)
            sock.sendall(b"\r\n")
            assert answered(sock).startswith(b"HTTP/1.1 200 ")
    assert ats.counter(CUT) == before


def is_cut(sock: socket.socket) -> bool:
    """Send a little; has the connection ended?"""
    try:
        sock.sendall(b"X")
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_many_are_cut_and_given_back(ats: Ats) -> None:
    """While others come and go; no connection is left."""
    n, n_before, before = 150, ats.n_fds(), ats.counter(CUT)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(client(ats)) for _ in range(n)]
        for sock in held:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            sock.setblocking(False)
        began = time.monotonic()

        def all_cut() -> bool:
            held[:] = [sock for sock in held if not is_cut(sock)]
            assert ats.get("/?format=text", host="plain.test").status == 200
            return not held

        processes.await_condition("all are cut", all_cut, timeout_s=HEADER_S + LATE_S)
        assert time.monotonic() - began >= HEADER_S - 1
        assert ats.counter(CUT) == before + n
    processes.await_condition("no connection is left", lambda: ats.n_fds() <= n_before + 4)


def test_without_the_record_no_header_is_cut(build: Build, backends: Backends, authority: Authority) -> None:
    with running(build, authority, 0) as ats, client(ats) as sock:
        sock.sendall(b"GET /?format=text HTTP/1.1\r\nHost: plain.test\r\n")
        drip(sock, b"X: 1\r\n", HEADER_S * 2)
        sock.sendall(b"\r\n")
        assert answered(sock).startswith(b"HTTP/1.1 200 ")


# --- what may take its time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_upload_that_drips_lives_on(ats: Ats, authority: Authority, is_tls: bool, is_first: bool) -> None:
    before = ats.counter(CUT)
    with client(ats, authority if is_tls else None) as sock:
        if not is_first:
            whole_request(sock)
        sock.sendall(UPLOAD % (b"plain.test", 1000))
        began = time.monotonic()
        sock.settimeout(DRIP_S)
        n = 0
        while time.monotonic() - began < 3 * HEADER_S:
            sock.sendall(b"x")
            n += 1
            with pytest.raises(TimeoutError):
                sock.recv(1)
        sock.settimeout(10)
        sock.sendall(b"x" * (1000 - n))
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert ats.counter(CUT) == before


@pytest.mark.parametrize("host", ["drips.test", "foreign.test"])
def test_events_live_on_while_the_client_sends(ats: Ats, host: str) -> None:
    """Their answer goes on while the next request's bytes come, also by a rule that is not ours."""
    before = ats.counter(CUT)
    with client(ats) as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        took_s, came = drip(sock, b"G", 3 * HEADER_S)
        assert took_s >= 3 * HEADER_S and came.count(b"data: 1") > 20
    assert ats.counter(CUT) == before


def test_websocket_lives_on(ats: Ats) -> None:
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=10)
    websocket = WebSocket(sock, "plain.test")
    began = time.monotonic()
    while time.monotonic() - began < 3 * HEADER_S:
        websocket.send(b"word")
        assert websocket.receive()[1] == b"word"
        threading.Event().wait(DRIP_S)
    websocket.close()


# --- request-timeout -------------------------------------------------------------------------------------------------------------


def is_timely(took_s: float) -> bool:
    return REQUEST_S <= took_s < REQUEST_S + LATE_S


@pytest.mark.parametrize("target", ["/body", "/events"])
def test_answer_that_drips_is_cut(ats: Ats, target: str) -> None:
    """Whose client is not silent either, or Traffic Server's clock of its side would end it."""
    before = ats.counter(REQUESTS_CUT)
    with client(ats) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: timely-drips.test\r\n\r\n".encode())
        took_s, answer = drip(sock, b"G", REQUEST_S + LATE_S)
    assert is_timely(took_s)
    assert answer.startswith(b"HTTP/1.1 200 ") and not answer.endswith(b"\r\n0\r\n\r\n")
    assert ats.counter(REQUESTS_CUT) == before + 1


def test_header_of_an_answer_that_drips_is_504(ats: Ats) -> None:
    before, began = ats.counter(REQUESTS_CUT), time.monotonic()
    answer = ats.get("/header", host="timely-drips.test")
    assert is_timely(time.monotonic() - began)
    assert answer.status == 504 and b"did not answer in time" in answer.body
    assert ats.counter(REQUESTS_CUT) == before + 1


def test_body_that_drips_is_504(ats: Ats) -> None:
    """By Traffic Server's clock of the silent pod's connection, if it comes first."""
    with client(ats) as sock:
        sock.sendall(UPLOAD % (b"timely.test", 1000))
        took_s, came = drip(sock, b"x", REQUEST_S + LATE_S)
    assert is_timely(took_s)
    assert came.startswith(b"HTTP/1.1 504 ") and b"did not answer in time" in came


def test_answer_that_is_read_in_drips_is_cut(ats: Ats) -> None:
    """By whichever clock; what the kernels hold of it still comes."""
    with client(ats) as sock:
        sock.sendall(b"GET /flood HTTP/1.1\r\nHost: timely-drips.test\r\n\r\n")
        began, n = time.monotonic(), 0
        pause = threading.Event()
        with contextlib.suppress(ConnectionError):
            while (part := sock.recv(65536)) and time.monotonic() - began < 4 * LATE_S:
                n += len(part)
                sock.sendall(b"G")
                pause.wait(0.01)
        assert n < FLOOD_BYTES / 2 and time.monotonic() - began >= REQUEST_S


def test_websocket_ends_with_its_request_timeout(ats: Ats) -> None:
    """However much is said."""
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=10)
    websocket = WebSocket(sock, "timely.test")
    began = time.monotonic()
    with contextlib.suppress(OSError, AssertionError), sock:
        while time.monotonic() - began < REQUEST_S + LATE_S:
            websocket.send(b"word")
            websocket.receive()
            threading.Event().wait(DRIP_S)
    assert is_timely(time.monotonic() - began)


def curl(ats: Ats, host: str, target: str, body: Iterator[bytes] | None = None) -> str:
    """Status and curl's exit status of a request over HTTP/2."""
    command = ["curl", "--silent", "--insecure", "--http2", "--no-buffer", "--max-time", "30", "--output", "/dev/null"]
    command += ["--write-out", "%{http_code} %{exitcode}", "--header", f"Host: {host}"]
    command += ["--upload-file", "-", "--request", "POST"] if body else []
    url = f"https://{ats.options.address}:{ats.https_port}{target}"
    with subprocess.Popen([*command, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        with contextlib.suppress(BrokenPipeError):
            for part in body or ():
                child.stdin.write(part)
                child.stdin.flush()
                if child.poll() is not None:
                    break
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        return child.stdout.read().decode()


def drops(most_s: float) -> Iterator[bytes]:
    began = time.monotonic()
    while time.monotonic() - began < most_s:
        yield b"x"
        threading.Event().wait(DRIP_S)


def test_http2_stream_that_drips_ends(ats: Ats) -> None:
    before = ats.counter(REQUESTS_CUT)
    for host, target, body, wanted in (
        ("timely-drips.test", "/header", None, "504 0"),
        ("timely-drips.test", "/body", None, "200 18"),  # CURLE_PARTIAL_FILE
        ("timely.test", "/", drops(REQUEST_S + LATE_S), "504 0"),
    ):
        began = time.monotonic()
        assert curl(ats, host, target, body) == wanted, target
        assert is_timely(time.monotonic() - began)
    assert ats.counter(REQUESTS_CUT) >= before + 2


def test_request_that_ended_leaves_nothing_to_cut(ats: Ats) -> None:
    before = ats.counter(REQUESTS_CUT)
    with client(ats) as sock:
        for _ in range(2):
            whole_request(sock, "timely.test")
            sock.settimeout(REQUEST_S + 5)
            with pytest.raises(TimeoutError):
                sock.recv(1)
    assert ats.counter(REQUESTS_CUT) == before
