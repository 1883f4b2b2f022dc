"""Answers that last: silent long polls, events now and then, WebSockets that say nothing.  No default of Traffic Server cuts them,
and nothing keeps their bytes back.

The server's limits are short here, so that a minute's defaults show within seconds: a header may take 3 s, a pod be silent for 3 s
where its rule says nothing, an HTTP/2 connection for 4 s.
"""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod, WebSocket
from tests.harness.manifests import app, ingress, path, tls_secret

POD = Pod(app="pod", ip="127.0.12.1")
SILENCE_S = 8
TCP_TIMER_KEEPALIVE = "02"  # /proc/net/tcp, "tr"
TICKS_S = 100  # of its "tm->when"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((POD,), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ats]:
    pair = Authority(tmp_path_factory.mktemp("authority") / "ca.pem").pair(["long.test"])
    records = {"proxy.config.http.transaction_active_timeout_in": 3, "proxy.config.http2.no_activity_timeout_in": 4}
    with ats_directory() as directory:
        options = Options(plugin_options=["--read-timeout-ms=3000", "--default-certificate=test/pair"], records=records)
        made = Ats(build, directory, options=options)
        made.write(
            "site.yaml",
            [
                ingress("long", {"long.test": [path("pod")]}, annotations={"read-timeout": "1m"}),
                ingress("plain", {"plain.test": [path("pod")]}),
                *app("pod", [POD.ip]),
                tls_secret("pair", pair.certificate, pair.key),
            ],
        )
        with made:
            yield made


def http2(ats: Ats, target: str) -> tuple[str, float]:
    """The status that curl got over HTTP/2, and how long it took [s]."""
    command = ["curl", "--silent", "--insecure", "--http2", "--max-time", "30", "--output", "/dev/null"]
    command += ["--write-out", "%{http_version} %{http_code} %{size_download}", "--header", "Host: long.test"]
    before = time.monotonic()
    done = subprocess.run(
        [*command, f"https://{ats.options.address}:{ats.https_port}{target}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    return done.stdout, time.monotonic() - before


def test_long_poll(ats: Ats) -> None:
    """A minute of silence, as its Ingress allows: 8 s here."""
    before = time.monotonic()
    answer = ats.get(f"/?slow_ms={SILENCE_S * 1000}", host="long.test")
    assert answer.status == 200 and time.monotonic() - before >= SILENCE_S


def test_long_poll_over_http2(ats: Ats) -> None:
    """Its connection has a limit of its own, which would end it before."""
    said, took_s = http2(ats, f"/?slow_ms={SILENCE_S * 1000}&size=10")
    assert said == "2 200 10" and took_s >= SILENCE_S


def test_silence_between_events_over_http2(ats: Ats) -> None:
    said, took_s = http2(ats, f"/?slow_ms=1&size=1000&chunked=1&drip_ms={SILENCE_S * 1000}")
    assert said == "2 200 1000" and took_s >= SILENCE_S


def test_events_come_when_they_are_sent(ats: Ats) -> None:
    """What a pod has sent is with the client while the pod is silent, and the rest follows."""
    request = b"GET /?slow_ms=1&size=1000&chunked=1&drip_ms=6000 HTTP/1.1\r\nHost: long.test\r\nConnection: close\r\n\r\n"
    before = time.monotonic()
    with processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=20) as sock:
        sock.sendall(request)
        first = b""
        while first.count(b"\r\n") < 8 or len(first) < 600:
            first += sock.recv(65536)
        assert time.monotonic() - before < 6, "the first half waited for the second"
        rest = b""
        while part := sock.recv(65536):
            rest += part
    assert rest.endswith(b"0\r\n\r\n") and time.monotonic() - before >= 6


def kernel_timer(sock: socket.socket) -> tuple[str, float]:
    """The kernel's timer of the other end of a connection on loopback: which, and when it fires [s]."""
    wanted = f":{sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(wanted):
            timer, when = fields[5].split(":")
            return timer, int(when, 16) / TICKS_S
    raise AssertionError(f"no connection from {wanted}")


def test_websocket_may_be_silent(ats: Ats) -> None:
    """Longer than anything else may; and the kernel looks whether the client is there, every minute or so."""
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=20)
    websocket = WebSocket(sock, "plain.test")
    websocket.send(b"first")
    assert websocket.receive()[1] == b"first"
    readable, _, _ = select.select([sock], [], [], SILENCE_S)
    assert not readable, "the connection ended, or somebody spoke"
    timer, when_s = kernel_timer(sock)
    assert timer == TCP_TIMER_KEEPALIVE and when_s <= 60
    websocket.send(b"second")
    assert websocket.receive()[1] == b"second"
    websocket.close()


def test_kernel_looks_after_every_connection(ats: Ats) -> None:
    sock = processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=20)
    with sock:
        sock.sendall(b"GET /?slow_ms=5000 HTTP/1.1\r\nHost: long.test\r\nConnection: close\r\n\r\n")
        processes.await_condition("the kernel looks after it", lambda: kernel_timer(sock)[0] == TCP_TIMER_KEEPALIVE)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_download_under_way_is_not_cut_by_age(ats: Ats) -> None:
    """It takes longer than a header may."""
    with processes.connect(ats.place, ats.options.address, ats.http_port, timeout_s=20) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(b"GET /?size=30000000 HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
        n, before = 0, time.monotonic()
        while part := sock.recv(65536):
            n += len(part)
            if time.monotonic() - before < 6:
                select.select([], [], [], 0.05)  # a slow client
    assert n > 30_000_000 and time.monotonic() - before >= 6
