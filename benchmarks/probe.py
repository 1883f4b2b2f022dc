"""A client that asks one thing again and again on a kept connection, as fast as Python can."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.harness import processes

POLL_S = 0.0005  # between two questions: small against what is measured, large enough to leave the cores to it
_ANSWER_MAX = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer's status, and the first word of its body: the origin says its address there."""

    status: int
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How long a change took to be seen."""

    after_s: float
    wrong_before: tuple[Answer, ...]  # answers that were neither the old one nor the new one
    wrong_after: tuple[Answer, ...]  # answers that were not the new one, after the first that was


class ProbeError(RuntimeError):
    """A change was not seen in time, or the proxy hung up; the message says what was seen."""


class Probe:
    """One kept connection.  Not for more than one thread."""

    def __init__(self, place: processes.Place, ip: str, port: int) -> None:
        self._place, self._ip, self._port = place, ip, port
        self._socket: socket.socket | None = None
        self._data = b""

    def close(self) -> None:
        """Close the connection; the next question makes a new one."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._data = None, b""

    def ask(self, host: str, path: str = "/") -> Answer:
        """GET a path of `host`.  A connection that was closed while idle is made anew.  Raises OSError."""
        return self.ask_all([host], path)[0]

    def ask_all(self, hosts: Sequence[str], path: str = "/") -> list[Answer]:
        """GET a path of each host, in one go (HTTP pipelining).  Raises OSError."""
        text = "".join(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" for host in hosts).encode()
        for _ in range(2):
            was_kept = self._socket is not None
            if self._socket is None:
                self._socket = processes.connect(self._place, self._ip, self._port)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._socket.sendall(text)
                return [self._answer() for _ in hosts]
            except OSError:
                self.close()
                if not was_kept:
                    raise
        raise ConnectionError("the connection was closed twice without an answer")

    def await_change(
        self,
        host: str,
        is_new: Callable[[Answer], bool],
        is_old: Callable[[Answer], bool],
        *,
        since_s: float,
        timeout_s: float = 60,
    ) -> Arrival:
        """Ask until the new answer comes, then twenty times more.

        Args:
            host: to ask.
            is_new: the answer that the change is to bring.
            is_old: the answer that is right before.
            since_s: when the change was made, by time.monotonic.
            timeout_s: after which this is a failure.

        Raises:
            ProbeError: the new answer did not come.
        """
        wrong, late = [], []
        while not is_new(answer := self.ask(host)):
            wrong += [] if is_old(answer) else [answer]
            if time.monotonic() - since_s > timeout_s:
                raise ProbeError(f"{host}: still {answer} {timeout_s:g} s after the change")
            time.sleep(POLL_S)
        after_s = time.monotonic() - since_s
        for _ in range(20):
            time.sleep(POLL_S)
            late += [] if is_new(answer := self.ask(host)) else [answer]
        return Arrival(after_s=after_s, wrong_before=tuple(wrong), wrong_after=tuple(late))

    def _answer(self) -> Answer:
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            self._receive()
        head = self._data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise ConnectionError(f"an answer without Content-Length: {head[:200]!r}")
        size = int(head[at + 17 :].split(b"\r\n", 1)[0])
        while len(self._data) < end + 4 + size:
            self._receive()
        body = self._data[end + 4 : end + 4 + size]
        self._data = self._data[end + 4 + size :]
        word = body.split(maxsplit=1)[0].decode(errors="replace") if body else ""
        return Answer(status=int(head.split(b" ", 2)[1]), word=word)

    def _receive(self) -> None:
        assert self._socket is not None
        part = self._socket.recv(_ANSWER_MAX)
        if not part:
            raise ConnectionError("the connection was closed")
        self._data += part
