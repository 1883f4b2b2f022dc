"""The texts of an Event: its name, which all who would tell of the same give it, and messages within the API's bounds.  Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Final, TypeAlias

from atsk8s.api.meta import ObjectKey

MESSAGE_BYTES_MAX: Final = 1000  # the API's own bound is 1024
NAME_CHARS_MAX: Final = 253

Problem: TypeAlias = tuple[str, str]  # reason, message

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")


def is_named(key: ObjectKey) -> bool:
    """Whether an API server has such names: they go into paths as they are."""
    return _NAME.fullmatch(key.name) is not None and (not key.namespace or _LABEL.fullmatch(key.namespace) is not None)


def event_name(name: str, uid: str, kind: str, problem: Problem) -> str:
    """The same for all who would tell of the same: "NAME.HASH", a DNS subdomain (RFC 1123) of at most 253 characters.

    A namesake that replaces the object has another uid, and so Events of its own.
    """
    told = hashlib.sha256("\0".join((uid, kind, *problem)).encode("utf-8", "replace")).hexdigest()[:16]
    return f"{name[: NAME_CHARS_MAX - 17].rstrip('-.')}.{told}"


def bounded(text: str, size_bytes: int = MESSAGE_BYTES_MAX) -> str:
    """Printable text of at most so many bytes of UTF-8."""
    plain = "".join(char if char.isprintable() else "?" for char in text[:size_bytes])
    cut = plain.encode("utf-8", "replace")
    return plain if len(cut) <= size_bytes and len(text) <= size_bytes else cut[: size_bytes - 3].decode("utf-8", "ignore") + "..."


def unix_s(timestamp: str) -> float:
    """Of a metav1.Time; long ago if it is none."""
    try:
        return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float("-inf")
