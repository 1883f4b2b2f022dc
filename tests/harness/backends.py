"""Real HTTP backends for tests: starts backend_server.py in a Place, reads its counters, changes how its pods behave.

Also the plain clients tests send requests with: an HTTP connection and a WebSocket made inside a Place.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import struct
import sys
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.harness import processes

_PROGRAM = Path(__file__).with_name("backend_server.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One address that a backend answers at."""

    app: str
    ip: str
    port: int = 8080
    behaviour: str = ""  # a query string of backend_server.py: what each request gets that does not say otherwise

    @property
    def name(self) -> str:
        """ADDR:PORT, IPv6 in brackets: what answers carry as "pod" and X-Pod."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What happened at one pod since the start or clear()."""

    requests: int
    connections: int
    open: int  # connections open now


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it arrived."""

    pod: str
    method: str
    target: str


class Backends:
    """One process that is all of `pods`.  Use it as a context manager; two of them give pods that die apart."""

    def __init__(
        self, pods: Sequence[Pod], *, directory: Path, place: processes.Place = processes.LOOPBACK, name: str = "backends"
    ) -> None:
        """Prepare.

        Args:
            pods: the addresses to serve; `place` must be able to bind them.
            directory: exists; gets the log, `name`.log.
            place: where to run.
            name: what errors call it.
        """
        self.pods = tuple(pods)
        self._directory, self._place, self._name = directory, place, name

    def __enter__(self) -> Self:
        """Start it and wait until every address is bound.  Raises processes.ProcessError."""
        self._control_port = processes.free_ports(self._place, "127.0.0.1", 1)[0]
        command = [sys.executable, "-I", str(_PROGRAM), "--control", f"127.0.0.1:{self._control_port}"]
        for pod in self.pods:
            command += ["--listen", f"{pod.app}={pod.name}" + (f"?{pod.behaviour}" if pod.behaviour else "")]
        log_path = self._directory / f"{self._name}.log"
        self.child = processes.start(self._place, command, name=self._name, log_path=log_path)
        try:
            self.child.await_ready(
                "every address is bound", lambda: processes.is_listening(self._place, "127.0.0.1", self._control_port)
            )
        except BaseException:
            self.child.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it, letting requests in flight end; at once when the block failed."""
        if error is not None:
            self.child.kill()
        elif self.child.status is None:
            self.child.stop(timeout_s=15)

    def counts(self) -> dict[str, Counts]:
        """Return the counters by pod name."""
        return {
            name: Counts(requests=said["requests"], connections=said["connections"], open=said["open"])
            for name, said in self._control("/counts").items()
        }

    def requests(self) -> list[Seen]:
        """Return the requests seen since the start or clear(), oldest first; the last 10,000 at most."""
        return [Seen(**said) for said in self._control("/requests")]

    def clear(self) -> None:
        """Set the counters to zero and forget the requests seen."""
        self._control("/clear")

    def behave(self, pod: Pod, behaviour: str) -> None:
        """Change what `pod` does from the next request on: a query string of backend_server.py, "" is normal."""
        self._control(f"/behave?{urllib.parse.urlencode({'pod': pod.name, 'behaviour': behaviour})}")

    def _control(self, target: str) -> Any:
        answer = fetch(self._place, "127.0.0.1", self._control_port, target)
        if answer.status != 200:
            raise AssertionError(f"{self._name}: control {target} answered {answer.status}")
        return answer.json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One whole answer."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the first value of a header, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)


def http_connection(
    place: processes.Place,
    ip: str,
    port: int,
    *,
    timeout_s: float = 30.0,
    source: str | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> http.client.HTTPConnection:
    """Return a connected HTTP/1.1 client inside `place`; it never reconnects by itself.

    Args:
        place: where the connection is made.
        ip: to connect to.
        port: to connect to.
        timeout_s: bound of the connect, the handshake, and each send and receive.
        source: address to connect from; None leaves it to the place.
        tls: speaks TLS with this.
        server_name: SNI, and the name the certificate must have; None means `ip`, which is sent as no SNI.

    Raises:
        OSError: refused, or the TLS handshake failed.
    """
    sock = processes.connect(place, ip, port, timeout_s=timeout_s, source=source)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=server_name or ip)
    except BaseException:
        sock.close()
        raise
    connection = http.client.HTTPConnection(ip, port, timeout=timeout_s)
    connection.auto_open = 0
    connection.sock = sock
    return connection


def exchange(
    connection: http.client.HTTPConnection,
    target: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> Fetched:
    """Send one request on an open connection, `target` and `headers` as they are, and return the whole answer.

    Without a Host among `headers` it is the connection's address; without a length, that of `body`.

    Raises:
        OSError, http.client.HTTPException: no whole answer.
    """
    names = {name.lower() for name, _ in headers}
    connection.putrequest(method, target, skip_host="host" in names, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    return Fetched(status=response.status, headers=tuple(response.getheaders()), body=response.read())


def fetch(
    place: processes.Place,
    ip: str,
    port: int,
    target: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    timeout_s: float = 30.0,
    source: str | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Fetched:
    """Send one request on a connection of its own; as http_connection() and exchange()."""
    connection = http_connection(place, ip, port, timeout_s=timeout_s, source=source, tls=tls, server_name=server_name)
    try:
        return exchange(connection, target, method=method, headers=headers, body=body)
    finally:
        connection.close()


class WebSocket:
    """A WebSocket client (RFC 6455) on a connected socket, which it takes; enough to see an echo."""

    def __init__(self, sock: socket.socket, host: str, target: str = "/") -> None:
        """Shake hands.

        Raises:
            ConnectionError: the answer was not 101; the text is its head.
        """
        self._sock, self._data = sock, b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        while b"\r\n\r\n" not in self._data:
            self._receive()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        if not self.head.startswith("HTTP/1.1 101 "):
            sock.close()
            raise ConnectionError(self.head)

    def send(self, payload: bytes, *, opcode: int = 2) -> None:
        """Send one masked frame: opcode 1 text, 2 binary, 8 close, 9 ping."""
        mask = os.urandom(4)
        if len(payload) < 126:
            size = bytes((0x80 | len(payload),))
        elif len(payload) < 1 << 16:
            size = struct.pack("!BH", 0xFE, len(payload))
        else:
            size = struct.pack("!BQ", 0xFF, len(payload))
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._sock.sendall(bytes((0x80 | opcode,)) + size + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame.  Raises ConnectionError at the end, TimeoutError."""
        first, second = self._taken(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self._taken(2 if size == 126 else 8), "big")
        return first & 0x0F, self._taken(size)

    def close(self) -> None:
        """Close the socket, without a word."""
        self._sock.close()

    def _taken(self, size: int) -> bytes:
        while len(self._data) < size:
            self._receive()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _receive(self) -> None:
        part = self._sock.recv(65536)
        if not part:
            raise ConnectionError("the WebSocket ended")
        self._data += part
