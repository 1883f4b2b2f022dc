"""A proxy before a real API server that can go wrong: it terminates TLS, looks at each request, and passes bytes on, or does not.

Modes, changed at any time:
  stall()     half-open: connections that are open stay so for ever; what is sent is taken and acknowledged, and nothing is passed
              on or answered.  New connections work.
  refuse()    answers that the API server never gave, by path
  spoil_token()  requests reach the API server with a token that it does not know
  cut()       every connection ends now
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import processes
from tests.harness.authority import Authority
from tests.harness.controlplane import ControlPlane

HEAD_BYTES_MAX = 64 << 10
_STEP_S = 0.1
_TOKEN = re.compile(rb"(?i)(authorization: *bearer +)[^\r\n]+")


class ApiProxy:
    """One listening address in front of `plane`.  Use it as a context manager."""

    def __init__(self, plane: ControlPlane, *, place: processes.Place, ip: str, directory: Path) -> None:
        """Prepare.

        Args:
            plane: the API server.
            place: where it listens and connects.
            ip: to listen on; clients verify its certificate for NAME.
            directory: an existing one for certificate, key and kubeconfig.
        """
        self._plane, self._place, self.ip, self._directory = plane, place, ip, directory
        self._authority = Authority(directory / "proxy-ca.pem")
        pair = self._authority.pair([self.NAME])
        (directory / "proxy.pem").write_bytes(pair.certificate + pair.key)
        (directory / "proxy.pem").chmod(0o600)
        self._server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server_tls.load_cert_chain(directory / "proxy.pem")
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._epoch = 0  # a connection of an epoch before this one is stalled
        self._is_token_spoilt = False
        self._refusals: list[tuple[str, Callable[[bool], bytes]]] = []
        self._ended = threading.Event()
        self.n_requests = 0
        self.asked: list[tuple[float, str]] = []  # when (monotonic) and for what

    NAME = "api.test"

    def __enter__(self) -> Self:
        """Listen."""
        self._listener = processes.listen(self._place, self.ip, 0)
        self.port = int(self._listener.getsockname()[1])
        self._listener.settimeout(_STEP_S)
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End."""
        self._ended.set()
        self._listener.close()
        self.cut()

    def kubeconfig(self, path: Path, *, token: str) -> Path:
        """Write a kubeconfig that leads here, readable to all, and return it."""
        authority = base64.b64encode(self._authority.path.read_bytes()).decode()
        cluster = {
            "server": f"https://{self.ip}:{self.port}",
            "certificate-authority-data": authority,
            "tls-server-name": self.NAME,
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "users": [{"name": "proxy", "user": {"token": token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        path.chmod(0o644)
        return path

    # --- what goes wrong ------------------------------------------------------------------------------

    def stall(self) -> None:
        """Pass nothing on of what is open now."""
        self._epoch += 1

    def spoil_token(self, is_spoilt: bool) -> None:
        """Replace the bearer token of every request from now on, or no more."""
        self._is_token_spoilt = is_spoilt

    def refuse(self, pattern: str, status: int, *, in_stream: bool = False) -> None:
        """Answer requests whose target matches `pattern` (a regular expression) by a Status; 0 ends that.

        `in_stream`: by 200 and an ERROR event in the stream of a watch, as API servers also do.
        """
        kept = [one for one in self._refusals if one[0] != pattern]
        self._refusals = [*kept, (pattern, lambda is_watch: _refusal(status, in_stream and is_watch))] if status else kept

    def cut(self) -> None:
        """End every connection now."""
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    # --- within -----------------------------------------------------------------------------------------

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                raw, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._spawn(self._serve, raw)

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            raw.settimeout(30)
            epoch = self._epoch
            client = stack.enter_context(self._server_tls.wrap_socket(raw, server_side=True))
            client.settimeout(None)
            self._keep(stack, client)
            upstream: ssl.SSLSocket | None = None
            data = b""
            # One thread for both directions: OpenSSL lets no two threads use one connection, not even one reading and one writing.
            while True:
                for side in _readable(client, upstream):
                    part = side.recv(65536)
                    if not part:
                        return self._end(client, epoch)
                    if side is upstream:
                        if epoch == self._epoch:
                            client.sendall(part)
                        continue
                    data += part
                    if len(data) > HEAD_BYTES_MAX:
                        return None
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        upstream = self._forward(head + b"\r\n\r\n", client, upstream, epoch, stack)

    def _forward(
        self, head: bytes, client: ssl.SSLSocket, upstream: ssl.SSLSocket | None, epoch: int, stack: contextlib.ExitStack
    ) -> ssl.SSLSocket | None:
        """Answer a request, or pass it on; the connection that it went by."""
        self.n_requests += 1
        target = head.split(b" ", 2)[1].decode("latin-1")
        if epoch != self._epoch:
            return upstream  # read and never answered
        self.asked.append((time.monotonic(), target))
        refusal = next((make for pattern, make in self._refusals if re.search(pattern, target)), None)
        if refusal is not None:
            client.sendall(refusal("watch=true" in target))
            return upstream
        if upstream is None:
            upstream = stack.enter_context(self._connect())
            self._keep(stack, upstream)
        upstream.sendall(_TOKEN.sub(rb"\1wrong", head) if self._is_token_spoilt else head)
        return upstream

    def _end(self, client: ssl.SSLSocket, epoch: int) -> None:
        """One side has closed; a half-open client is not told, and is kept until it goes itself."""
        while epoch != self._epoch and client.recv(65536):
            pass

    def _keep(self, stack: contextlib.ExitStack, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)

        def forget() -> None:
            with self._lock:
                self._sockets.discard(sock)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        stack.callback(forget)

    def _connect(self) -> ssl.SSLSocket:
        sock = processes.connect(self._place, self._plane.address, self._plane.port, timeout_s=30)
        context = ssl.create_default_context(cafile=str(self._plane.ca_path))
        tls = context.wrap_socket(sock, server_hostname=self._plane.address)
        tls.settimeout(None)
        return tls


def _readable(*sides: ssl.SSLSocket | None) -> list[ssl.SSLSocket]:
    """Those of which something can be read; waits for one."""
    open_sides = [side for side in sides if side is not None]
    return [side for side in open_sides if side.pending()] or select.select(open_sides, [], [])[0]


def _refusal(status: int, in_stream: bool) -> bytes:
    reason = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}[status]
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": status,
        "message": f"refused: {reason}",
    }
    if in_stream:
        line = json.dumps({"type": "ERROR", "object": body}).encode() + b"\n"
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text
