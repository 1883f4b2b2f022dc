"""The backends that tests put behind an ingress answer, count and misbehave as asked."""

from __future__ import annotations

import http.client
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import podnet, processes
from tests.harness.backends import Backends, Fetched, Pod, Seen, WebSocket, exchange, fetch, http_connection
from tests.harness.podnet import PodNet

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
]

PODS = (
    Pod(app="shop", ip="10.244.1.5"),
    Pod(app="shop", ip="fd00:10:244:1::5"),
    Pod(app="blog", ip="10.244.1.6", port=80, behaviour="status=503"),
)


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    """One pod network for the module."""
    with PodNet() as made:
        yield made


@pytest.fixture(scope="module")
def running_backends(net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """One process that is every pod."""
    with Backends(PODS, directory=tmp_path_factory.mktemp("backends"), place=net) as made:
        yield made


@pytest.fixture
def backends(running_backends: Backends) -> Backends:
    """The process, with nothing counted and every pod as it started."""
    running_backends.clear()
    for pod in PODS:
        running_backends.behave(pod, pod.behaviour)
    return running_backends


def ask(net: PodNet, pod: Pod, target: str, *, method: str = "GET", body: bytes | None = None) -> Fetched:
    """Send one request to a pod."""
    return fetch(net, pod.ip, pod.port, target, method=method, body=body)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.ip)
def test_says_what_it_received(net: PodNet, backends: Backends, pod: Pod) -> None:
    """The answer names app, pod, client and the request exactly as it came; the pod's own behaviour applies."""
    headers = [("Host", "shop.test"), ("X-Odd", "a"), ("x-odd", "b")]
    target = "/a%2Fb//c/../d?x=1&x=2"
    answer = fetch(net, pod.ip, pod.port, target, method="POST", headers=headers, body=b"12345")
    assert answer.status == (503 if pod.app == "blog" else 200)
    said = answer.json()
    assert (said["app"], said["pod"], said["method"], said["target"]) == (pod.app, pod.name, "POST", target)
    assert said["headers"] == [[name, value] for name, value in [*headers, ("Content-Length", "5")]]
    assert said["body_bytes"] == 5
    assert said["peer"].rpartition(":")[0].strip("[]") == (podnet.NODE_IP6 if ":" in pod.ip else podnet.NODE_IP)
    assert (answer.header("X-App"), answer.header("x-pod")) == (pod.app, pod.name)


def test_counts_by_pod(net: PodNet, backends: Backends) -> None:
    """Requests and connections are counted at the pod they reached, in the order they came."""
    connection = http_connection(net, PODS[0].ip, PODS[0].port)
    for target in ("/1", "/2"):
        assert exchange(connection, target).status == 200
    counts = backends.counts()
    assert (counts[PODS[0].name].requests, counts[PODS[0].name].connections, counts[PODS[0].name].open) == (2, 1, 1)
    assert counts[PODS[1].name].requests == 0
    connection.close()
    ask(net, PODS[1], "/3", method="HEAD")
    assert backends.requests() == [
        Seen(pod=PODS[0].name, method="GET", target="/1"),
        Seen(pod=PODS[0].name, method="GET", target="/2"),
        Seen(pod=PODS[1].name, method="HEAD", target="/3"),
    ]
    processes.await_condition("the closed connection is seen", lambda: backends.counts()[PODS[0].name].open == 0)


def test_answers_as_asked(net: PodNet, backends: Backends) -> None:
    """Status, text, echo, headers, Cache-Control, HEAD and connection close."""
    pod = PODS[0]
    assert ask(net, pod, "/x?format=text").body == b"shop 10.244.1.5:8080 GET /x?format=text\n"
    assert ask(net, pod, "/?status=404").status == 404
    assert ask(net, pod, "/?status=204").body == b""
    assert ask(net, pod, "/?echo=1", method="PUT", body=b"\0\xff" * 500_000).body == b"\0\xff" * 500_000
    answer = ask(net, pod, "/?cache_control=max-age%3D60&header=Vary:Accept&header=ETag:%22a%22&close=after")
    assert [answer.header(name) for name in ("Cache-Control", "Vary", "ETag")] == ["max-age=60", "Accept", '"a"']
    assert answer.header("Connection") == "close"
    head = ask(net, pod, "/?size=1000", method="HEAD")
    assert (head.header("Content-Length"), head.body) == ("1000", b"")


@pytest.mark.parametrize("size", [0, 1, 100, 65536, 3_000_001])
@pytest.mark.parametrize("framing", ["", "&chunked=1"])
def test_big_bodies(net: PodNet, backends: Backends, size: int, framing: str) -> None:
    """A body of any size, framed by length or chunks, is the fixed pattern, and the connection goes on."""
    connection = http_connection(net, PODS[0].ip, PODS[0].port)
    body = exchange(connection, f"/?size={size}{framing}").body
    assert len(body) == size
    assert body[:200] == bytes(32 + i % 95 for i in range(min(size, 200)))
    assert body[-1:] == (bytes([32 + (size - 1) % 95]) if size else b"")
    assert exchange(connection, "/").status == 200
    connection.close()


def test_chunked_request_body(net: PodNet, backends: Backends) -> None:
    """A chunked body, in pieces and with a trailer, is taken whole and leaves the next request alone."""
    with net.connect(PODS[0].ip, PODS[0].port) as sock:
        sock.sendall(b"POST /?echo=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
        sock.sendall(b"c\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\nGET /?close=after HTTP/1.1\r\nHost: a\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert b"\r\n\r\nabcdefgHTTP/1.1 200" in received


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/?reset=before", ConnectionResetError),
        ("/?reset=mid&size=100000", ConnectionResetError),
        ("/?reset=mid&chunked=1", ConnectionResetError),
        ("/?close=before", http.client.RemoteDisconnected),
        ("/?close=mid&size=100000", http.client.IncompleteRead),
    ],
)
def test_broken_answers(net: PodNet, backends: Backends, target: str, error: type[Exception]) -> None:
    """Resets and early ends arrive as such; the request was counted."""
    with pytest.raises(error):
        ask(net, PODS[0], target)
    assert backends.counts()[PODS[0].name].requests == 1


def test_slow_answers(net: PodNet, backends: Backends) -> None:
    """A pod told to be slow is, until told otherwise."""
    backends.behave(PODS[0], "slow_ms=60000")
    with pytest.raises(TimeoutError):
        fetch(net, PODS[0].ip, PODS[0].port, "/", timeout_s=0.2)
    assert fetch(net, PODS[0].ip, PODS[0].port, "/?slow_ms=1").status == 200
    backends.behave(PODS[0], "")
    assert ask(net, PODS[0], "/").status == 200
    assert len(ask(net, PODS[0], "/?size=200000&drip_ms=20").body) == 200_000


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1_000_000])
def test_websocket_echo(net: PodNet, backends: Backends, size: int) -> None:
    """Frames of every length form come back; ping gets pong; close is answered."""
    websocket = WebSocket(net.connect(PODS[1].ip, PODS[1].port), "shop.test", "/chat")
    payload = bytes(i % 251 for i in range(size))
    websocket.send(payload)
    assert websocket.receive() == (2, payload)
    websocket.send(b"hi", opcode=9)
    assert websocket.receive() == (10, b"hi")
    websocket.send(b"\x03\xe8", opcode=8)
    assert websocket.receive() == (8, b"\x03\xe8")
    websocket.close()


@pytest.mark.parametrize(
    "junk", [b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_junk_is_answered_400(net: PodNet, backends: Backends, junk: bytes) -> None:
    """What is no HTTP is refused, and counted as no request."""
    with net.connect(PODS[0].ip, PODS[0].port) as sock:
        sock.sendall(junk)
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert backends.counts()[PODS[0].name].requests == 0


def test_stop_lets_requests_end(net: PodNet, tmp_path: Path) -> None:
    """SIGTERM: no new connection, idle ones end, the request in flight is answered, status 0."""
    pod = Pod(app="late", ip="10.244.7.7")
    with Backends([pod], directory=tmp_path, place=net) as backends:
        idle = http_connection(net, pod.ip, pod.port)
        exchange(idle, "/")
        with net.connect(pod.ip, pod.port) as sock:
            sock.sendall(b"GET /?slow_ms=300 HTTP/1.1\r\nHost: a\r\n\r\n")
            processes.await_condition("the request is in flight", lambda: backends.counts()[pod.name].requests == 2)
            assert backends.child.stop() == 0
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            net.connect(pod.ip, pod.port)


def test_taken_address_is_an_error_that_says_so(net: PodNet, backends: Backends, tmp_path: Path) -> None:
    """A second process on a pod's address does not start, and its log is in the error."""
    with (
        pytest.raises(processes.ProcessError, match="address already in use"),
        Backends([PODS[0]], directory=tmp_path, place=net, name="second"),
    ):
        pass
