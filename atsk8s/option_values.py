"""The texts of options to values, but for those that annotations have, too (`values`).

Each takes any text and raises ValueError with its fault, worded to follow the text.
"""

import ipaddress
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from atsk8s.values import CONNECT_TIMEOUT_MS_MAX, Network, number_parser, parse_networks, parse_words

HEALTH_PATH_BYTES_MAX: Final = 255  # ATSK_HEALTH_PATH_MAX of plugin_c
TRUSTED_PROXIES_MAX: Final = 256  # ATSK_TRUSTED_MAX of plugin_c: every request's client is held against each
LIMIT_MAX: Final = 100_000_000

_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123 label

E = TypeVar("E", bound=StrEnum)


def one_of(kind: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        try:
            return kind(text.strip().lower())
        except ValueError:
            raise ValueError(f"is none of {', '.join(kind)}") from None

    return parse


def absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("is not an absolute path; it must start with /")
    return text


def health_path(text: str) -> str:
    if not text.startswith("/") or any(not 0x20 < ord(c) < 0x7F or c in "?#%" for c in text):
        raise ValueError("is not a plain URL path such as /healthz")
    if len(text) > HEALTH_PATH_BYTES_MAX:
        raise ValueError(f"has {len(text)} characters; at most {HEALTH_PATH_BYTES_MAX} are taken")
    return text


def milliseconds(least: int = 1, most: int = CONNECT_TIMEOUT_MS_MAX) -> Callable[[str], int]:
    return number_parser(least, most, "a whole number of milliseconds")


def object_name(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError("is not NAMESPACE/NAME")
    return namespace, name


def namespaces(text: str) -> tuple[str, ...]:
    """Names of Namespaces; upper case is folded, as the second ancestor does."""
    names = parse_words(text.lower() if text.isascii() else text)
    for name in names:
        if _NAMESPACE.fullmatch(name) is None:
            raise ValueError(f"has {name[:80]!a}, which is no namespace's name")
    return names


def entries(text: str) -> str:
    """A list whose entries are separated by blanks or ';', the latter because options are words."""
    if not text.replace(";", " ").split():
        raise ValueError("is empty")
    return text


def limit(text: str) -> int:
    return number_parser(0, LIMIT_MAX)(text)


def service_port(text: str) -> tuple[str, str, int | str]:
    name, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ValueError("is not NAMESPACE/NAME:PORT")
    namespace, service = object_name(name)
    if port.isascii() and port.isdigit():
        if not 0 < int(port[:6]) < 65536:
            raise ValueError("has a port outside 1..65535")
        return namespace, service, int(port)
    return namespace, service, port


def networks(text: str) -> tuple[Network, ...]:
    return parse_networks(text, TRUSTED_PROXIES_MAX)


def listen_address(text: str) -> tuple[str, int] | None:
    if text.strip().lower() == "off":
        return None
    host, colon, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError("is neither off nor ADDRESS:PORT with a literal IP address, such as 127.0.0.1:9464") from None
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
        raise ValueError("has a port outside 0..65535")
    return str(address), int(port)


def api_server(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ValueError("is not a URL that starts with https:// or http://")
    return text.rstrip("/")
