"""The normalised view of a host and of a path, written to be obviously right and not fast: the twin of plugin_c/table/request.c.

Rules are normalised by this when they are compiled, requests by C when they arrive; a property test holds the two equal.
"""

from __future__ import annotations

import re
from enum import IntEnum, unique
from typing import Final, NamedTuple

HOST_BYTES_MAX: Final = 253  # RFC 1035 section 2.3.4, without a trailing dot; ATSK_HOST_MAX
LABEL_BYTES_MAX: Final = 63  # ATSK_LABEL_MAX
PATH_BYTES_MAX: Final = 8192  # of a request; ATSK_PATH_MAX
_AUTHORITY_BYTES_MAX: Final = HOST_BYTES_MAX + 1 + 6  # a trailing dot and ":65535"
_IPV6_TEXT_MAX: Final = 45

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 section 2.3
_HOST: Final = re.compile(rb"[-._0-9A-Za-z]*")  # underscores are not host names by RFC 1123, but are in use
_LITERAL: Final = re.compile(rb"\[[0-9A-Fa-f:.]*\]")
_BAD_BYTE: Final = re.compile(rb"[\x00-\x20\x7f]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


@unique
class RequestFault(IntEnum):
    """What is wrong with a request before any table is asked; the integers are `enum atsk_request_fault`."""

    BAD_HOST = 1
    BAD_PATH = 2
    LONG_PATH = 3


class Host(NamedTuple):
    """A host name as the table holds it, and the port that the authority names, 0 for none."""

    name: bytes
    port: int


def normalise_host(authority: bytes) -> Host | RequestFault:
    """The host of a Host header, `:authority` or absolute URL: lower case, no port or trailing dot; "[::1]" keeps its brackets."""
    if not authority or len(authority) > _AUTHORITY_BYTES_MAX:
        return RequestFault.BAD_HOST
    if authority.startswith(b"["):
        literal = _LITERAL.match(authority)
        if literal is None or literal[0].count(b":") < 2 or len(literal[0]) > _IPV6_TEXT_MAX + 2:
            return RequestFault.BAD_HOST
        name, rest = literal[0], authority[literal.end() :]
        if rest and not rest.startswith(b":"):
            return RequestFault.BAD_HOST
        digits = rest[1:]
    else:
        name, _, digits = authority.partition(b":")
        if _HOST.fullmatch(name) is None:
            return RequestFault.BAD_HOST
        name = name.removesuffix(b".")
        if len(name) > HOST_BYTES_MAX or not all(0 < len(label) <= LABEL_BYTES_MAX for label in name.split(b".")):
            return RequestFault.BAD_HOST
    # RFC 3986 allows a colon with nothing behind it.
    if digits.strip(b"0123456789") or int(digits or b"0") > 65535:
        return RequestFault.BAD_HOST
    return Host(name.lower(), int(digits or b"0"))


def normalise_path(path: bytes) -> bytes | RequestFault:
    """A path without its query, as rules are matched (RFC 3986 sections 5.2.4 and 6.2.2).

    Escaped unreserved characters decoded, escapes in upper case, "//" collapsed, "." and ".." resolved.  "%2F" and "%5C" stay what
    they are, inside their segment.  A raw byte from 0x80 on is no URL, and is taken for its escape, as servers do.
    """
    if len(path) + 2 * len(_HIGH.findall(path)) > PATH_BYTES_MAX:
        return RequestFault.LONG_PATH
    if not path:
        return b"/"
    if not path.startswith(b"/") or _BAD_BYTE.search(path) or _BAD_ESCAPE.search(path):
        return RequestFault.BAD_PATH
    # Escapes first, so that "%2e%2e" is "..".
    *before, last = _HIGH.sub(_escaped, _ESCAPE.sub(_unescaped, path))[1:].split(b"/")
    segments: list[bytes] = []
    for segment in (*before, last):
        if segment == b"..":
            if not segments:
                return RequestFault.BAD_PATH
            segments.pop()
        elif segment not in (b"", b"."):  # an empty one is a double slash
            segments.append(segment)
    is_directory = last in (b"", b".", b"..") and bool(segments)
    return b"/" + b"/".join(segments) + (b"/" if is_directory else b"")


def _unescaped(escape: re.Match[bytes]) -> bytes:
    value = int(escape[1], 16)
    return bytes([value]) if value in _UNRESERVED else b"%" + escape[1].upper()


def _escaped(byte: re.Match[bytes]) -> bytes:
    return b"%%%02X" % byte[0][0]
