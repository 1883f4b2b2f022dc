"""Which of Traffic Server's records a ConfigMap may set, and to what.

Whoever writes ConfigMaps in the controller's namespace is an administrator.  All the same none of them may make the proxy load
code, run programs, read or write other files, or serve what no Ingress routes; and what the plugins themselves rely on stays as it
is (docs/adr/0009).  Numbers may be set unless they are listed here; texts only if they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from atsk8s.errors import Reason, RejectError
from atsk8s.model.names import shown

PREFIX: Final = "proxy.config."
TEXT_CHARS_MAX: Final = 1024
_INT_MAX: Final = (1 << 63) - 1
_NAME: Final = re.compile(r"proxy\.config(?:\.[A-Za-z0-9_]{1,64}){1,8}", re.ASCII)


@unique
class RecordType(IntEnum):
    """enum atsk_record_type of plugin_c/controller/ats_records.h."""

    INT = 1
    FLOAT = 2
    STRING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What Traffic Server says of one of its records."""

    type: RecordType
    is_dynamic: bool  # takes effect while it runs
    is_writable: bool
    expression: str  # its values': a regular expression, or "[least-most]"; "": anything
    value: str | None  # now; None: a STRING without a value
    source: int  # who set that; goes with a value that is given back


# Texts that are neither a file, a directory, a command nor an address, and do not decide where requests go or who is trusted.
TEXTS: Final = frozenset(
    PREFIX + name
    for name in (
        "diags.action.tags",
        "diags.debug.client_ip",
        "diags.debug.tags",
        "diags.output.alert",
        "diags.output.debug",
        "diags.output.diag",
        "diags.output.emergency",
        "diags.output.error",
        "diags.output.fatal",
        "diags.output.note",
        "diags.output.status",
        "diags.output.warning",
        "http.anonymize_other_header_list",
        "http.global_user_agent_header",
        "http.negative_caching_list",
        "http.per_server.connection.match",
        "http.request_via_str",
        "http.response_server_str",
        "http.response_via_str",
        "log.hostname",
        "proxy_name",
    )
)

_CODE: Final = "it decides which code the proxy loads or which programs it runs: set it where the proxy is started"
_OPEN: Final = "requests would go where no Ingress leads"
_SHOWS: Final = "it shows the proxy's inside to its clients"
_PRIVATE: Final = "answers meant for one client would be served to others"
_PARENTS: Final = "the plugin chooses endpoints with it, for each request"

# Name, or prefix that ends in ".", to why it is refused.
REFUSED: Final[dict[str, str]] = {
    PREFIX + name: why
    for name, why in {
        "admin.": _CODE,
        "alarm.": _CODE,
        "plugin.": _CODE,
        "dns.splitDNS.": "it makes the proxy read another file",
        "http.enable_http_info": _SHOWS,
        "http_ui_enabled": _SHOWS,
        "http.forward_connect_method": _OPEN,
        "http.number_of_redirections": _OPEN,
        "http.redirect_host_no_port": _OPEN,
        "http.redirect_use_orig_cache_key": _OPEN,
        "http.use_client_source_port": _OPEN,
        "http.use_client_target_addr": _OPEN,
        "reverse_proxy.enabled": _OPEN,
        "srv_enabled": _OPEN,
        "url_remap.remap_required": _OPEN,
        "http.push_method_enabled": "clients could write into the cache",
        "http.cache.cache_responses_to_cookies": _PRIVATE,
        "http.cache.ignore_server_no_cache": _PRIVATE,
        "http.cache.post_method": _PRIVATE,
        "http.cache.required_headers": "--cache=on keeps only what says for how long it is fresh",
        "http.insert_client_ip": "pods would believe a Client-ip that the client made up; X-Forwarded-For says it",
        "ssl.allow_client_renegotiation": "a client could keep the proxy busy with handshakes",
        # What the plugin sets for each request of its own; test_records holds this against plugin_c.
        "http.cache.http": "the plugin sets it for each request: use --cache",
        "http.insert_squid_x_forwarded_for": "the plugin sets it for each request: use --trusted-proxies",
        "http.connect_attempts_timeout": "the plugin sets it for each request: use --connect-timeout-ms",
        "http.transaction_no_activity_timeout_in": "the plugin sets it for each request: use --send-timeout-ms",
        "http.transaction_no_activity_timeout_out": "the plugin sets it for each request: use --read-timeout-ms",
        "http.transaction_active_timeout_in": "the plugin sets it for each request: use --request-timeout-ms",
        "http.transaction_active_timeout_out": "the plugin sets it for each request: use --request-timeout-ms",
        "websocket.no_activity_timeout": "the plugin sets it for each request: use --read-timeout-ms",
        "websocket.active_timeout": "the plugin sets it for each request: use --request-timeout-ms",
        "url_remap.pristine_host_hdr": "pods get the client's Host: the plugin sets it for each request",
        "http.no_dns_just_forward_to_parent": _PARENTS,
        "http.no_origin_server_dns": _PARENTS,
        "http.parent_proxy.": _PARENTS,
        "http.uncacheable_requests_bypass_parent": _PARENTS,
    }.items()
}

# Bounds that Traffic Server's table does not know: an index into its list of buffer sizes, which beyond it means something else.
BOUNDS: Final[dict[str, tuple[int, int]]] = {PREFIX + "http.default_buffer_size": (0, 14)}


def check_name(name: str) -> None:
    """Refuse what no ConfigMap may set, whatever Traffic Server says of it.

    Raises:
        RejectError: UNKNOWN_SETTING: no record can be called so; FORBIDDEN: not by a ConfigMap, and why.
    """
    if _NAME.fullmatch(name) is None:
        raise RejectError(Reason.UNKNOWN_SETTING, "is no record's name: letters, digits, '_' and '.' after proxy.config.")
    for refused, why in REFUSED.items():
        if name == refused or (refused.endswith(".") and name.startswith(refused)):
            raise RejectError(Reason.FORBIDDEN, f"is not for ConfigMaps: {why}")


def check_value(name: str, record: Record, text: str) -> str:
    """`text` as the record will have it: numbers in decimal.

    Raises:
        RejectError: FORBIDDEN: a text that no ConfigMap may set; UNSUPPORTED: needs a restart, or is read-only; INVALID_SETTING:
            the value's fault and what is expected.
    """
    if not record.is_writable:
        raise RejectError(Reason.UNSUPPORTED, "is read-only in Traffic Server: set it in records.config and start anew")
    if not record.is_dynamic:
        raise RejectError(Reason.UNSUPPORTED, "takes effect at start only: set it in records.config, or as PROXY_CONFIG_*")
    if record.type is RecordType.STRING and name not in TEXTS:
        raise RejectError(Reason.FORBIDDEN, "is not for ConfigMaps, as most texts: it may name a file, an address or a policy")
    value = text.strip()
    try:
        match record.type:
            case RecordType.INT:
                value = str(_whole_number(value, *(BOUNDS.get(name) or _bounds(record))))
            case RecordType.FLOAT:
                value = _fraction(value)
            case RecordType.STRING:
                _check_text(value)
        if (record.type is not RecordType.INT or _range(record.expression) is None) and not _matches(record.expression, value):
            raise ValueError(f"does not match {record.expression}")
    except ValueError as error:
        raise RejectError(Reason.INVALID_SETTING, f"{shown(text)} {error}") from None
    return value


def _whole_number(text: str, least: int, most: int) -> int:
    """As ink_atoi64 of Traffic Server reads it: decimal with K, M, G or T for powers of 1024, or hexadecimal; what it would make
    0 of, or take half of, is refused."""
    found = re.fullmatch(r"(-?)(?:0x([0-9a-fA-F]{1,16})|([0-9]{1,19})([KMGT]?))", text, re.ASCII)
    if found is None or (found[2] and found[1]):
        raise ValueError(f"is no whole number; expected {_range_text(least, most)}")
    shift = 10 * " KMGT".index(found[4] or " ")
    number = int(found[2], 16) if found[2] else int(found[1] + found[3]) << shift
    if not least <= number <= most:
        raise ValueError(f"is out of range; expected {_range_text(least, most)}")
    return number


def _range_text(least: int, most: int) -> str:
    if most <= _INT_MAX >> 1:
        return f"{least} to {most}"
    return "a whole number" if least < -1 else f"a whole number, {least} or more"


def _fraction(text: str) -> str:
    if re.fullmatch(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?", text, re.ASCII) is None or not math.isfinite(float(text)):
        raise ValueError("is no number such as 0.5")
    return text


def _check_text(text: str) -> None:
    if len(text) > TEXT_CHARS_MAX:
        raise ValueError(f"is longer than {TEXT_CHARS_MAX} characters")
    if not text.isascii() or not text.isprintable():  # some go into headers as they are
        raise ValueError("has characters that are not printable ASCII")


def _bounds(record: Record) -> tuple[int, int]:
    """Of a whole number.  Where Traffic Server's table has no expression, nothing below 0 (or -1, where the record is negative now,
    which says that it has such a value for "none") is taken: what becomes of it inside is anybody's guess."""
    found = _range(record.expression)
    if found is not None:
        return found
    if record.expression:
        return -_INT_MAX - 1, _INT_MAX
    return (-1 if (record.value or "").startswith("-") else 0), _INT_MAX


def _range(expression: str) -> tuple[int, int] | None:
    """ "[0-300]" is a range of numbers in Traffic Server's table, not a set of characters."""
    found = re.fullmatch(r"\[([0-9]{1,18})-([0-9]{1,18})\]", expression, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def _matches(expression: str, value: str) -> bool:
    """The expressions are Traffic Server's own, PCRE with POSIX classes; one that Python does not know refuses."""
    pattern = expression.replace("[:space:]", r"\s").replace("[:digit:]", "0-9")
    try:
        return re.search(pattern, value, re.ASCII) is not None
    except re.error:
        return False
