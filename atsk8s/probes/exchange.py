"""One check: connect, ask, read the first line of the answer.  A state machine over a socket that never blocks."""

from __future__ import annotations

import errno
import os
import re
import selectors
import socket
from dataclasses import dataclass
from enum import Enum, auto, unique
from typing import Final
from urllib.parse import quote

LINE_BYTES_MAX: Final = 1024  # of an answer; what has no end of line within these is no HTTP
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r|\n)")
# The fault is ours, and says nothing of the endpoint.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.ENETUNREACH})


@unique
class Result(Enum):
    HEALTHY = auto()
    UNHEALTHY = auto()
    UNKNOWN = auto()  # it could not be asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What one check found out; `why` is for people, "" if all is well."""

    result: Result
    why: str = ""


HEALTHY: Final = Answer(Result.HEALTHY)


def request_bytes(path: str, addr: bytes, port: int) -> bytes:
    """The request, in ASCII whatever `path` is."""
    target = quote(path, safe="/%:@!$&'()*+,;=?~-._[]")  # what a path and a query may hold; anything else is encoded
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {place_text(addr, port)}",
        "User-Agent: atsk8s-probe",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()


class Exchange:
    """One connection.  Owns the socket; `close` it."""

    def __init__(self, addr: bytes, port: int, path: str) -> None:
        """Begins to connect; `failed` says if not even that can be done."""
        self.events = selectors.EVENT_WRITE  # what to wait for
        self._unsent = request_bytes(path, addr, port)
        self._line = b""
        self._is_connected = False
        self.failed: Answer | None = None
        self.socket: socket.socket | None = None
        try:
            self.socket = socket.socket(_family(addr), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            code = self.socket.connect_ex((socket.inet_ntop(_family(addr), addr), port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code not in (0, errno.EINPROGRESS):
            self.failed = _failure(code)

    def advance(self) -> Answer | None:
        """Do what can be done without waiting; the answer, once there is one."""
        if self.socket is None:
            return self.failed
        try:
            return self._advance(self.socket)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            return _failure(error.errno or errno.EIO)

    def _advance(self, sock: socket.socket) -> Answer | None:
        if not self._is_connected:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return _failure(code)
            self._is_connected = True
        if self._unsent:
            self._unsent = self._unsent[sock.send(self._unsent) :]
            if not self._unsent:
                self.events = selectors.EVENT_READ
            return None
        piece = sock.recv(LINE_BYTES_MAX)
        self._line += piece
        if b"\n" in self._line:
            return _judge(self._line)
        if not piece:
            return Answer(Result.UNHEALTHY, "closed the connection without an answer")
        if len(self._line) >= LINE_BYTES_MAX:
            return Answer(Result.UNHEALTHY, "the answer is no HTTP/1")
        return None

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()


def _judge(line: bytes) -> Answer:
    """As kubelet: from 200 on and below 400 is healthy."""
    found = _STATUS.match(line)
    if found is None:
        return Answer(Result.UNHEALTHY, "the answer is no HTTP/1")
    status = int(found[1])
    return HEALTHY if 200 <= status < 400 else Answer(Result.UNHEALTHY, f"status {status}")


def _failure(code: int) -> Answer:
    return Answer(Result.UNKNOWN if code in _OURS else Result.UNHEALTHY, os.strerror(code).lower())


def place_text(addr: bytes, port: int) -> str:
    """4 or 16 bytes and a port, as a URL has them."""
    text = socket.inet_ntop(_family(addr), addr)
    return f"[{text}]:{port}" if len(addr) == 16 else f"{text}:{port}"


def _family(addr: bytes) -> socket.AddressFamily:
    return socket.AF_INET if len(addr) == 4 else socket.AF_INET6
