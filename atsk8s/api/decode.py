"""Bytes to types.  Whatever is wrong with the bytes becomes a `RejectError` that names the field and shows no content."""

from __future__ import annotations

from typing import Any, Generic

import msgspec

from atsk8s.api.meta import K, ObjectKey
from atsk8s.api.wire import LooseObject, Status
from atsk8s.errors import Reason, RejectError

MAX_OBJECT_BYTES = 8 * 1024 * 1024  # JSON of one object; etcd takes 1.5 MiB of it by default, its ceiling is about 3 MiB

# What msgspec raises on hostile bytes: DecodeError (and ValidationError below it) for syntax and types, UnicodeDecodeError for
# bytes that are not UTF-8, RecursionError for deep nesting.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def reason_of(error: Exception) -> str:
    """One line that says what is wrong with the input, without a piece of it."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)


class Decoder(Generic[K]):
    """Decodes objects of one type.  Stateless, shareable between threads."""

    def __init__(self, item: type[K]) -> None:
        self._decoder = msgspec.json.Decoder(item)

    def decode(self, raw: bytes | msgspec.Raw) -> K:
        """The object.

        Raises:
            RejectError: too large, not JSON, or not of this type.
        """
        if len(memoryview(raw)) > MAX_OBJECT_BYTES:
            raise RejectError(Reason.TOO_LARGE, f"{len(memoryview(raw))} bytes of JSON, at most {MAX_OBJECT_BYTES} are taken")
        try:
            return self._decoder.decode(raw)
        except UNDECODABLE as error:
            raise RejectError(Reason.MALFORMED, reason_of(error)) from None


def convert(plain: Any, item: type[K]) -> K:
    """The object that `plain` (what a YAML or JSON reader returns) describes.

    Raises:
        RejectError: it is not of this type.
    """
    try:
        return msgspec.convert(plain, item, str_keys=False)
    except UNDECODABLE as error:
        raise RejectError(Reason.MALFORMED, reason_of(error)) from None


_loose = msgspec.json.Decoder(LooseObject)
_status = msgspec.json.Decoder(Status)


def identify(raw: bytes | msgspec.Raw) -> tuple[ObjectKey | None, str]:
    """Key (None if it has none) and resourceVersion ("" if it has none) of an object that `Decoder` refused."""
    try:
        meta = _loose.decode(raw).metadata
    except UNDECODABLE:
        return None, ""
    if meta is None:
        return None, ""
    return (ObjectKey(meta.namespace or "", meta.name) if meta.name else None), meta.resource_version or ""


def decode_status(raw: bytes | msgspec.Raw) -> Status:
    """The Status in a failed request's body; an empty one if the body is something else (a proxy's HTML, say)."""
    try:
        return _status.decode(raw)
    except UNDECODABLE:
        return Status()
