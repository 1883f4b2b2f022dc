"""Texts that options and annotations share, to values.  Each parser takes any text and raises ValueError with the text's fault,
worded to follow the text itself: "'x' is not a ...".
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

DAY_MS: Final = 24 * 3600 * 1000
TIMEOUT_MS_MAX: Final = 30 * DAY_MS  # fits 32 bits, and no connection lasts longer
CONNECT_TIMEOUT_MS_MAX: Final = 600_000
TRIES_MAX: Final = 8  # ATSK_RETRY_TRIES_MAX of plugin_c/blob/atsk_format.h

NAME_CHARS_MAX: Final = 253  # of a node, RFC 1123; a label's value is shorter

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|)", re.ASCII)
_UNIT_MS: Final = {"ms": 1, "s": 1000, "": 1000, "m": 60_000, "h": 3_600_000}
_SIZE: Final = re.compile(r"([0-9]{1,15})([kKmMgG]?)", re.ASCII)
_UNIT_BYTES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_boolean(text: str) -> bool:
    match text.strip().lower():
        case "" | "true" | "on" | "yes" | "1":
            return True
        case "false" | "off" | "no" | "0":
            return False
    raise ValueError("is neither true nor false")


def parse_words(text: str) -> tuple[str, ...]:
    """Comma- or blank-separated words, sorted: order and duplicates do not matter."""
    return tuple(sorted(set(text.replace(",", " ").split())))


def parse_name(text: str) -> str:
    """A node's name, or a label's value such as a zone's."""
    if _NAME.fullmatch(text) is None or len(text) > NAME_CHARS_MAX:
        raise ValueError(f"is not a name of letters, digits, '-', '_' and '.', at most {NAME_CHARS_MAX}")
    return text


def number_parser(least: int, most: int, what: str = "a whole number") -> Callable[[str], int]:
    """A parser of decimal digits within bounds, both included."""

    def parse(text: str) -> int:
        digits = text.strip()
        if not _NUMBER.fullmatch(digits) or not least <= int(digits) <= most:
            raise ValueError(f"is not {what} from {least} to {most}")
        return int(digits)

    return parse


def duration_parser(least_ms: int, most_ms: int) -> Callable[[str], int]:
    """A parser of durations ("500ms", "30s", "5m", "1h", or seconds without a unit) to milliseconds within bounds."""

    def parse(text: str) -> int:
        found = _DURATION.fullmatch(text.strip())
        if found is None:
            raise ValueError("is not a duration such as 500ms, 30s, 5m, 1h, or 30 for seconds")
        value = int(found[1]) * _UNIT_MS[found[2]]
        if not least_ms <= value <= most_ms:
            raise ValueError(f"is outside {duration_text(least_ms)} to {duration_text(most_ms)}")
        return value

    return parse


def duration_text(value_ms: int) -> str:
    """Milliseconds as `duration_parser` reads them, in the largest unit that keeps them whole."""
    for unit, factor in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if value_ms and value_ms % factor == 0:
            return f"{value_ms // factor}{unit}"
    return f"{value_ms}ms" if value_ms else "0"


def parse_size(text: str) -> int:
    """A size to bytes: digits, and k, m or g for powers of 1024, as nginx has it."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("is not a size such as 65536, 64k, 8m or 1g")
    value = int(found[1]) * _UNIT_BYTES[found[2].lower()]
    if value >= 1 << 60:
        raise ValueError("is larger than any body can be; 0 is unlimited")
    return value


def parse_networks(text: str, n_max: int, *, strict: bool = True) -> tuple[Network, ...]:
    """Comma- or blank-separated address ranges, sorted; a plain address is a range of one.

    Args:
        text: the list.
        n_max: how many are taken.
        strict: refuse bits behind a range's length instead of dropping them.
    """
    words = parse_words(text)
    if len(words) > n_max:
        raise ValueError(f"has {len(words)} entries; at most {n_max} are taken: join neighbouring ranges")
    if "%" in text:  # a zone is a link's of some machine; ipaddress takes it, and nobody could compare it
        raise ValueError("has an address with a zone (%): leave the zone out")
    try:
        return tuple(sorted({ipaddress.ip_network(word, strict=strict) for word in words}, key=lambda n: (n.version, n)))
    except ValueError as error:
        raise ValueError(f"has an entry that is no address range (CIDR): {str(error)[:200]}") from None
