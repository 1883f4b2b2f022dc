"""Pieces of a stream to lines: a watch is one JSON document per line, and pieces end anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from atsk8s.errors import KubeError

MAX_LINE_BYTES = 16 * 1024 * 1024  # one watch event; twice the largest object that is decoded at all


class LineTooLongError(KubeError):
    """What comes is no watch, or an object beyond every bound."""


def split_lines(pieces: Iterable[bytes], rest: list[bytes]) -> Iterator[bytes]:
    r"""Complete lines, without their end and without empty ones.

    A newline inside a JSON string is always escaped, so `\n` is always the end of a document.

    Args:
        rest: a list of the caller's, empty; at the end it holds what came after the last newline.

    Raises:
        LineTooLongError: a line exceeds `MAX_LINE_BYTES`.
    """
    n_bytes = 0
    for piece in pieces:
        if b"\n" not in piece:
            rest.append(piece)
            n_bytes += len(piece)
            if n_bytes > MAX_LINE_BYTES:
                raise LineTooLongError(f"a line of more than {MAX_LINE_BYTES} bytes")
            continue
        head, *whole, tail = piece.split(b"\n")
        rest.append(head)
        first = b"".join(rest)
        rest.clear()
        n_bytes = len(tail)
        if tail:
            rest.append(tail)
        if first.strip():
            yield first
        for line in whole:
            if line.strip():
                yield line
