"""What the load over HTTP/2 makes of a server that closes its connection between two requests: in order, it is a new connection."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Generator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.harness import processes
from tests.harness.authority import Authority
from tests.harness.load import Load, Request

HOST = "app.test"
N_REQUESTS = 3  # of a connection
UNREAD_S = 0.05
NO_ERROR, PROTOCOL_ERROR = 0, 1  # RFC 9113 section 7


class Server:
    """Answers N_REQUESTS on each connection, one connection at a time; `last` is what it says before it closes it."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.last = ""
        self._tls = tls
        self.sock = processes.listen(processes.LOOPBACK, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def end(self) -> None:
        """Take no more connections."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.sock.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self.sock.accept()
            except OSError:
                return
            with self._tls.wrap_socket(accepted, server_side=True) as connection:
                self._answer(connection)

    def _answer(self, connection: ssl.SSLSocket) -> None:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http2.initiate_connection()
        n_left = N_REQUESTS
        while n_left:
            connection.sendall(http2.data_to_send())
            data = connection.recv(65536)
            if not data:
                return
            for event in http2.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    http2.send_headers(event.stream_id, [(":status", "200"), ("x-app", "app")], end_stream=True)
                    n_left -= 1
        connection.sendall(http2.data_to_send())
        select.select([connection], [], [], UNREAD_S)  # what follows comes after the answer, and is read by nobody
        match self.last:
            case "ping":
                http2.ping(bytes(8))
            case "GOAWAY":
                http2.close_connection(NO_ERROR)
            case "error":
                http2.close_connection(PROTOCOL_ERROR)
        connection.sendall(http2.data_to_send())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path / "ca.pem")


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Generator[Server]:
    """The server, listening."""
    pair, path = authority.pair([HOST]), tmp_path / "pair.pem"
    path.write_bytes(pair.certificate + pair.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    tls.set_alpn_protocols(["h2"])
    made = Server(tls)
    yield made
    made.end()


def load_on(server: Server, authority: Authority, tmp_path: Path) -> Load:
    """A request every fifth of a second: the server's end has come by the time of the next one."""
    return Load(
        [Request(host=HOST, app="app")],
        ip="127.0.0.1",
        port=server.sock.getsockname()[1],
        directory=tmp_path,
        protocol="h2",
        ca_file=authority.path,
        connections=1,
        requests_per_s=5,
    )


@pytest.mark.parametrize("last", ["", "ping", "GOAWAY"])
def test_an_end_between_requests_is_no_failure(server: Server, authority: Authority, tmp_path: Path, last: str) -> None:
    """Whatever frames came before it, and were read by nobody."""
    server.last = last
    with load_on(server, authority, tmp_path) as load:
        load.await_more(2 * N_REQUESTS)
    load.finished.expect_no_failure(at_least=2 * N_REQUESTS)
    assert load.finished.n_connections > 2


def test_an_error_between_requests_is_a_failure(server: Server, authority: Authority, tmp_path: Path) -> None:
    server.last = "error"
    with load_on(server, authority, tmp_path) as load:
        processes.await_condition("it has failed", lambda: load.now().n_failed)
    assert set(load.finished.failures) == {"malformed"}
