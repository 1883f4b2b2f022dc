"""A whole answer, bounded in size and time."""

from __future__ import annotations

from typing import Final

from atsk8s.source.interface import Clock
from atsk8s.source.kube.failures import RetryError
from atsk8s.source.kube.transport import Response

BODY_DEADLINE_S: Final = 120.0


def read_body(response: Response, limit: int, clock: Clock, where: str) -> bytes:
    """The bytes of `response`, which stays open.

    Args:
        limit: bytes.
        where: what was asked, for messages.

    Raises:
        RetryError: it is larger than `limit`, or takes longer than `BODY_DEADLINE_S`.
        ConnectionLostError: see `Response.chunks`.
    """
    started, pieces, n_bytes = clock(), [], 0
    for piece in response.chunks():
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > limit:
            raise RetryError(f"{where}: an answer of more than {limit} bytes")
        if clock() - started > BODY_DEADLINE_S:
            raise RetryError(f"{where}: an answer took more than {BODY_DEADLINE_S:g} s")
    return b"".join(pieces)
