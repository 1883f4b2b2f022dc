"""Writes to the API server: one request, one bounded answer.  A pool of its own, so that no write waits behind a watch."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Protocol

import urllib3

from atsk8s.source.kube.transport import CONNECT_TIMEOUT_S, ConnectionLostError, KubeTransport, SilenceError, describe

ANSWER_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 1 << 20  # of a reply; an object of etcd's has 1.5 MiB at most, and what is asked for here is small


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a write, whatever its status."""

    status: int
    body: bytes
    retry_after_s: float | None = None  # the server's wish, not yet capped


class Writer(Protocol):
    """Where writes go."""

    def send(self, method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "") -> Reply:
        """Send a request and read its answer.

        Args:
            method: of HTTP.
            path: absolute, escaped, with its query if it has one.
            body: what is sent.
            content_type: of the body; default JSON.
            accept: what to be answered with; default JSON.

        Raises:
            KubeError: there was no answer, or it broke off.
        """
        ...

    def unauthorized(self) -> None:
        """The server answered 401: load the credentials again before the next request."""
        ...

    def close(self) -> None:
        """Cut every connection; later requests fail."""
        ...


class WriteTransport(KubeTransport):
    """A `Writer` over the same credentials as the watches."""

    def send(self, method: str, path: str, body: bytes = b"", *, content_type: str = "", accept: str = "") -> Reply:
        """See `Writer.send`."""
        access = self._current()
        headers = {**access.headers, "Accept": accept or "application/json"}
        if body:
            headers["Content-Type"] = content_type or "application/json"
        try:
            response = access.pool.request(
                method,
                f"{access.credentials.server}{path}",
                body=body or None,
                headers=headers,
                preload_content=False,
                redirect=False,  # the token goes nowhere else
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
            )
            try:
                content = response.read(ANSWER_BYTES_MAX + 1, decode_content=False)
                if len(content) > ANSWER_BYTES_MAX:
                    response.close()
            except BaseException:
                response.close()
                raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # ValueError, AttributeError: what urllib3 raises when `close` cuts the connection under a reader.
            if isinstance(error, urllib3.exceptions.SSLError | ssl.SSLError):
                self._stale = True  # the CA or our certificate may have been exchanged on disk
            kind = SilenceError if isinstance(error, urllib3.exceptions.ReadTimeoutError) else ConnectionLostError
            raise kind(f"{access.credentials.server}: {describe(error)}") from None
        after = response.headers.get("Retry-After", "").strip()
        seconds = float(after) if after.isdigit() and len(after) < 10 else None  # a date is as good as no wish
        return Reply(status=response.status, body=content[:ANSWER_BYTES_MAX], retry_after_s=seconds)
