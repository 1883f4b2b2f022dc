"""What a client of the backends sent: the head of an HTTP/1.1 request (RFC 9112), its body, and how its query wants it answered.

The words of a query are in backend_server.py.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Iterator

MAX_HEAD_BYTES = 256 << 10
MAX_BODY_BYTES = 256 << 20

Behaviour = dict[str, list[str]]


def parsed_behaviour(query: str) -> Behaviour:
    """Return the words of a query string, with their values."""
    return urllib.parse.parse_qs(query, keep_blank_values=True)


@dataclasses.dataclass(slots=True, kw_only=True)
class Request:
    """One request head, its body, and what its query and its pod ask for."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    behaviour: Behaviour
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def wants(self, name: str, default: str = "") -> str:
        """Return the last value of a behaviour."""
        return self.behaviour.get(name, [default])[-1]

    def wants_number(self, name: str, default: int = 0) -> int:
        """Return a behaviour as a number; nonsense is the default."""
        text = self.wants(name)
        return int(text) if text.isascii() and text.isdigit() else default


class BadRequestError(Exception):
    """What came is not HTTP/1.1; the connection is answered 400 and closed."""


def parsed_head(head: bytes, defaults: Behaviour) -> Request:
    """Parse a request line and header fields.  Raises BadRequestError."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError(f"request line {lines[0][:100]!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequestError(f"header line {line[:100]!r}")
        headers.append((name, value.strip(" \t")))
    behaviour = defaults
    if "?" in parts[1]:
        behaviour = defaults | parsed_behaviour(parts[1].split("?", 1)[1])
    return Request(method=parts[0], target=parts[1], version=parts[2], headers=headers, behaviour=behaviour)


def decoded_chunks(data: bytearray) -> Iterator[bytes | None]:
    """Take a chunked body off the front of `data`: yields its parts, and None whenever more bytes are needed.

    Ends after the last chunk and the trailer section (RFC 9112 section 7.1).  Raises BadRequestError.
    """

    def line() -> Iterator[None]:
        while (end := data.find(b"\r\n")) < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise BadRequestError("chunk line too long")
            yield None
        lines.append(bytes(data[:end]))
        del data[: end + 2]

    lines: list[bytes] = []
    while True:
        yield from line()
        try:
            size = int(lines[-1].split(b";")[0], 16)
        except ValueError:
            raise BadRequestError(f"chunk size {lines[-1][:40]!r}") from None
        if size == 0:
            break
        while size > 0:
            if not data:
                yield None
                continue
            part = bytes(data[:size])
            del data[: len(part)]
            size -= len(part)
            yield part
        yield from line()
    yield from line()
    while lines[-1]:
        yield from line()


def counted_body(data: bytearray, size: int) -> Iterator[bytes | None]:
    """Take `size` bytes off the front of `data`, as decoded_chunks does."""
    while size > 0:
        if not data:
            yield None
            continue
        part = bytes(data[:size])
        del data[: len(part)]
        size -= len(part)
        yield part
