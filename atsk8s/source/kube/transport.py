"""Connections to the API server: one GET, answered by a status and a stream of bytes.  Knows no kinds and decodes nothing.

A urllib3 pool and nothing on top of it: the kubernetes package would make the same pool, at 0.2 s of import, and its `call_api` has
another signature in each major version, raises on status in some, and retries inside the call (a `Retry-After` sleeps there, where
`stop` cannot reach it).  All retrying is the caller's.  docs/adr/0005.

`KubeTransport` is shared by all threads.  What belongs to one set of credentials is one immutable `_Access`, exchanged as a whole:
a request in flight keeps the one it started with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from atsk8s.errors import KubeError
from atsk8s.source.interface import Clock
from atsk8s.source.kube.credentials import Credentials, Load, is_expiring

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0  # covers TCP and, on its own, the TLS handshake
POOL_SIZE = 32  # connections kept open for reuse; one per kind and watched namespace is in use
PIECE_BYTES = 64 * 1024
FILE_CHECK_S = 10.0  # how often the files behind the credentials are looked at, at most

# A peer that is gone without a word is found after about 25 s (10 s idle + 3 probes of 5 s), and unacknowledged data after 20 s.
# It does not help where a load balancer acknowledges for a dead server: for that, every read has a time limit.
# Given in full because urllib3 replaces its own defaults by these: TCP_NODELAY is one of them.
SOCKET_OPTIONS: tuple[tuple[int, int, int], ...] = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
)


class ConnectionLostError(KubeError):
    """No answer, or the answer broke off.  What was read before is valid."""


class SilenceError(ConnectionLostError):
    """Nothing came for the read timeout.  The connection may be half open, or the server has nothing to say."""


class Response(Protocol):
    """The answer to one GET.  Belongs to the thread that asked; close it."""

    status: int
    retry_after_s: float | None  # the server's wish, not yet capped

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces of at most 64 KiB, as they arrive.

        Raises:
            ConnectionLostError: it broke off; SilenceError if nothing came for the read timeout.
        """
        ...

    def limit_silence(self, read_timeout_s: float) -> None:
        """Change the read timeout of what is still to come, where the connection lets us."""
        ...

    def close(self) -> None:
        """Give the connection up; a fully read body has already returned it to the pool."""
        ...


class Transport(Protocol):
    """Where a reflector sends its requests."""

    @property
    def server(self) -> str:
        """URL, for messages."""
        ...

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> Response:
        """Ask; returns as soon as the status is known, whatever it is.

        Raises:
            KubeError: no answer, with the reason in the message; SilenceError if none came for the read timeout.
        """
        ...

    def unauthorized(self) -> None:
        """The server answered 401: load the credentials again before the next request."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Access:
    credentials: Credentials
    pool: Any  # urllib3.PoolManager or ProxyManager
    signature: tuple[object, ...]  # of the files that the credentials came from
    headers: Mapping[str, str] = field(repr=False)


class _HttpResponse:
    def __init__(self, response: urllib3.BaseHTTPResponse, server: str) -> None:
        self._response = response
        self._server = server
        self.status = response.status
        self.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))

    def chunks(self) -> Iterator[bytes]:
        response = self._response
        try:
            # Each piece is handed on as it arrives; `read(n)` or `stream(None)` would wait for more of an unchunked body.
            if getattr(response, "chunked", False):
                yield from response.read_chunked(PIECE_BYTES, decode_content=False)
            else:
                while piece := response.read1(PIECE_BYTES, decode_content=False):
                    yield piece
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise SilenceError(f"{self._server}: {describe(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # ValueError, AttributeError: what urllib3 raises when `stop` closes the connection under a reader.
            raise ConnectionLostError(f"{self._server}: {describe(error)}") from None

    def limit_silence(self, read_timeout_s: float) -> None:
        # Without a socket here (the server announced to close) the old limit stays: one needless watch request later.
        sock = getattr(self._response.connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.settimeout(read_timeout_s)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # closing what is broken already is not worth a word
            self._response.close()


class KubeTransport:
    """See the module.  Loads the credentials at once, so that a configuration that can never work is an error at start.

    Args:
        load: returns fresh credentials or raises KubeError.
        clock: monotonic seconds.

    Raises:
        KubeError: from `load`.
    """

    def __init__(self, load: Load, clock: Clock = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._renewal = threading.Lock()  # one thread loads; the others wait, bounded by what `load` bounds
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._sockets_lock = threading.Lock()
        self._closed = False
        self._stale = False
        self._failed_at, self._failure = float("-inf"), ""  # the last renewal that failed
        self._checked_at = clock()
        self._access = self._open()

    @property
    def server(self) -> str:
        """URL, for messages."""
        return self._access.credentials.server

    @property
    def origin(self) -> str:
        """Where the credentials come from, for messages."""
        return self._access.credentials.origin

    def get(self, path: str, query: Mapping[str, str], read_timeout_s: float) -> Response:
        """See `Transport.get`."""
        access = self._current()
        url = f"{access.credentials.server}{path}?{urlencode(query)}" if query else f"{access.credentials.server}{path}"
        try:
            response = access.pool.request(
                "GET",
                url,
                headers=access.headers,
                preload_content=False,
                redirect=False,  # the token goes nowhere else
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if isinstance(error, urllib3.exceptions.SSLError | ssl.SSLError):
                self._stale = True  # the CA or our certificate may have been exchanged on disk
            if isinstance(error, urllib3.exceptions.ReadTimeoutError):
                raise SilenceError(f"{access.credentials.server}: {describe(error)}") from None
            raise ConnectionLostError(f"{access.credentials.server}: {describe(error)}") from None
        if self._closed:
            response.close()
            raise ConnectionLostError("stopped")
        return _HttpResponse(response, access.credentials.server)

    def unauthorized(self) -> None:
        """See `Transport.unauthorized`."""
        self._stale = True

    def close(self) -> None:
        """Cut every connection: threads blocked in a read return at once.  Later requests fail."""
        self._closed = True
        with self._sockets_lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                # The plain socket's method: SSLSocket.shutdown would pull the TLS object from under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _current(self) -> _Access:
        if self._closed:
            raise ConnectionLostError("stopped")
        access = self._access
        if not self._stale and not is_expiring(access.credentials):
            if self._clock() - self._checked_at < FILE_CHECK_S:
                return access
            self._checked_at = self._clock()
            if _signature(access.credentials) == access.signature:
                return access
        asked_at = self._clock()
        with self._renewal:
            if self._access is not access:  # another thread was faster
                return self._access
            if self._failed_at > asked_at:  # and it failed: six threads must not run a hanging exec plugin one after the other
                raise KubeError(self._failure)
            try:
                renewed = self._open()
            except KubeError as error:
                self._failed_at, self._failure = self._clock(), str(error)
                raise
            # Only now: until the new ones are here, the others wait for them rather than be refused with the old.
            self._access, self._stale = renewed, False
            access.pool.clear()  # idle connections; one that is in use lives until its response ends
            _log.info("credentials loaded again", extra={"origin": renewed.credentials.origin})
            return renewed

    def _open(self) -> _Access:
        credentials = self._load()
        options: dict[str, Any] = {"maxsize": POOL_SIZE, "retries": False, "socket_options": list(SOCKET_OPTIONS)}
        if credentials.tls is not None:
            options["ssl_context"] = credentials.tls
            options["cert_reqs"] = credentials.tls.verify_mode
        if credentials.tls_server_name:
            options["server_hostname"] = credentials.tls_server_name
        pool: Any = urllib3.ProxyManager(credentials.proxy, **options) if credentials.proxy else urllib3.PoolManager(**options)
        pool.pool_classes_by_scheme = {
            "http": _tracked(HTTPConnectionPool, HTTPConnection, self._track),
            "https": _tracked(HTTPSConnectionPool, HTTPSConnection, self._track),
        }
        headers = {"Accept": "application/json", "User-Agent": "atsk8s"}
        if credentials.authorization:
            headers["Authorization"] = credentials.authorization
        self._checked_at = self._clock()
        return _Access(credentials, pool, _signature(credentials), headers)

    def _track(self, sock: socket.socket | None) -> None:
        if sock is None:
            return
        with self._sockets_lock:
            self._sockets.add(sock)
        if self._closed:  # `close` may have gone by while this one was connecting
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _tracked(pool: type[Any], connection: type[Any], track: Callable[[socket.socket | None], None]) -> type[Any]:
    """A pool class whose connections report their socket, so that `KubeTransport.close` reaches a read before its response."""

    class Connection(connection):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            track(self.sock)

    class Pool(pool):  # type: ignore[misc]
        ConnectionCls = Connection

    return Pool


def _signature(credentials: Credentials) -> tuple[object, ...]:
    """Changes when a file does, also by the symlink exchange of a Secret or ConfigMap mount."""
    found: list[object] = []
    for file in credentials.files:
        try:
            info = os.stat(file)
            found.append((info.st_ino, info.st_dev, info.st_size, info.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def _retry_after_s(value: str | None) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date, of which only "later" is taken."""
    if not value:
        return None
    if value.strip().isdigit() and len(value) < 10:
        return float(value)
    try:
        parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return 1.0


def describe(error: Exception) -> str:
    """What went wrong with a connection in a few words; urllib3's own text wraps it in object addresses."""
    cause: BaseException = error
    while (inner := cause.__cause__ or (cause.__context__ if not cause.__suppress_context__ else None)) is not None:
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message} (check certificate-authority in the kubeconfig)"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused: is the API server running, and is the address right?"
    if isinstance(cause, socket.gaierror):
        return f"its name cannot be resolved: {cause.strerror}"
    # Below the refusal, because urllib3 derives NewConnectionError from ConnectTimeoutError.
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and isinstance(cause, TimeoutError):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return "nothing was received for too long"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or type(cause).__name__}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, urllib3.exceptions.IncompleteRead | urllib3.exceptions.ProtocolError):
        return "the connection broke off"
    return type(error).__name__
