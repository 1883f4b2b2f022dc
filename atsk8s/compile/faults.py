"""What a reader says of bytes that it does not take."""

from __future__ import annotations

from atsk8s.errors import InvariantError


class BlobError(InvariantError):
    """Bytes that are no blob of this version.  Ours are, so this is a fault of ours, or of what stored them."""


def require(holds: bool, what: str) -> None:
    """Raises BlobError with `what` unless it `holds`."""
    if not holds:
        raise BlobError(f"not a blob: {what}")
