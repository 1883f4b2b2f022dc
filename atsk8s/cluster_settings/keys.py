"""Every key that a ConfigMap may have: one table, which the parser, its messages and docs/configmap.md are made from.

A later feature sets a row's `state`; a key that is known and not built yet is told apart from one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, TypeAlias

from atsk8s.cluster_settings import records
from atsk8s.errors import Reason, RejectError
from atsk8s.model.grants import AccessList, read_domain_access_list
from atsk8s.model.host_certificates import HostCertificate, parse_tls_certificates
from atsk8s.model.names import shown
from atsk8s.option_values import health_path
from atsk8s.values import number_parser, parse_boolean

CONFIGMAP_ANNOTATION: Final = "ats-configmap"  # "true": the ConfigMap is meant for us; the second ancestor's
VALUE_CHARS_MAX: Final = 256 * 1024
RECORDS: Final = records.PREFIX + "*"

Value: TypeAlias = str | bool | int | AccessList | tuple[HostCertificate, ...]


@unique
class KeyState(StrEnum):
    """What becomes of a key.  LIVE: it takes effect while the proxy runs.  PENDING: it is read and checked, and has no effect."""

    LIVE = "live"
    PENDING = "read, no effect yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One row.  `parse` raises ValueError with the value's fault, worded to follow the value or the key."""

    name: str
    state: KeyState
    origin: str
    parse: Callable[[str], Value]
    shape: str
    help: str
    remedy: str = ""  # of one that has no effect: what does the same today


def _one_of(*words: str) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        if text.strip() not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return text.strip()

    return parse


def _path(text: str) -> Value:
    return health_path(text.strip())


_FIRST: Final = "torchbox/k8s-ts-ingress"
_SECOND: Final = "apache/trafficserver-ingress-controller"

KEYS: Final[tuple[Key, ...]] = (
    Key(
        name=RECORDS,
        state=KeyState.LIVE,
        origin=_SECOND,
        parse=str,
        shape="VALUE",
        help="A record of Traffic Server, set while it runs: numbers unless they are listed below, texts only if they are.",
    ),
    Key(
        name="domain-access-list",
        state=KeyState.LIVE,
        origin=_FIRST,
        parse=read_domain_access_list,
        shape="DOMAIN:NS[,NS...] ...",
        help="Which namespaces may use which hosts; what no entry grants is denied, and an entry with a fault grants nothing.",
    ),
    Key(
        name="tls-certificates",
        state=KeyState.LIVE,
        origin=_FIRST,
        parse=parse_tls_certificates,
        shape="DOMAIN[,DOMAIN...]:NS/SECRET ...",
        help="Certificates for hosts that have routes, and whose Ingresses name none; the first entry that matches.",
    ),
    Key(
        name="healthcheck-path",
        state=KeyState.LIVE,
        origin=_FIRST,
        parse=_path,
        shape="PATH",
        help="The path, on every host, that answers 200 when the proxy is ready, instead of --health-path's.",
    ),
    Key(
        name="hsts-max-age",
        state=KeyState.PENDING,
        origin=_FIRST,
        parse=number_parser(0, (1 << 31) - 1, "a whole number of seconds"),
        shape="SECONDS",
        help="Strict-Transport-Security of answers over HTTPS, for every host.",
        remedy="use proxy.config.ssl.hsts_max_age",
    ),
    Key(
        name="hsts-include-subdomains",
        state=KeyState.PENDING,
        origin=_FIRST,
        parse=parse_boolean,
        shape="true|false",
        help="Whether that goes for subdomains, too.",
        remedy="use proxy.config.ssl.hsts_include_subdomains",
    ),
    Key(
        name="http2-enable",
        state=KeyState.PENDING,
        origin=_FIRST,
        parse=parse_boolean,
        shape="true|false",
        help="Whether clients may speak HTTP/2.",
        remedy="set proxy.config.http.server_ports at start",
    ),
    Key(
        name="tls-minimum-version",
        state=KeyState.PENDING,
        origin=_FIRST,
        parse=_one_of("1.0", "1.1", "1.2", "1.3"),
        shape="1.0|1.1|1.2|1.3",
        help="The oldest TLS version that clients may speak.",
        remedy="set proxy.config.ssl.TLSv1_2 and its siblings at start",
    ),
)

_BY_NAME: Final = {key.name: key for key in KEYS}


def key_of(name: str) -> Key:
    """The row of a ConfigMap's key.

    Raises:
        RejectError: UNKNOWN_SETTING.
    """
    found = _BY_NAME.get(RECORDS if name.startswith(records.PREFIX) else name)
    if found is None:
        raise RejectError(Reason.UNKNOWN_SETTING, f"is not known; there are {', '.join(key.name for key in KEYS)}")
    return found


def parse_value(key: Key, text: str) -> Value:
    """A value of that key.

    Raises:
        RejectError: INVALID_SETTING, with the fault and what is expected.
    """
    if len(text) > VALUE_CHARS_MAX:
        raise RejectError(Reason.INVALID_SETTING, f"is {len(text)} characters long; at most {VALUE_CHARS_MAX} are taken")
    try:
        return key.parse(text)
    except ValueError as error:
        raise RejectError(Reason.INVALID_SETTING, f"{shown(text)} {error}; expected {key.shape}") from None


def keys_table() -> str:
    """The table of keys in docs/configmap.md, as Markdown."""
    rows = ["| key | from | state | what it does |", "|---|---|---|---|"]
    for key in KEYS:
        shape = key.shape.replace("|", "\\|")
        text = key.help + (f" Today: {key.remedy}." if key.remedy else "")
        rows.append(f"| `{key.name}: {shape}` | {key.origin} | {key.state} | {text} |")
    return "\n".join(rows) + "\n"


def records_table() -> str:
    """The records that are refused, and the texts that are not, as Markdown."""
    rows = ["| record | why no ConfigMap sets it |", "|---|---|"]
    rows += [f"| `{name}{'*' if name.endswith('.') else ''}` | {why} |" for name, why in sorted(records.REFUSED.items())]
    rows += ["", "Texts that may be set: " + ", ".join(f"`{name}`" for name in sorted(records.TEXTS)) + "."]
    return "\n".join(rows) + "\n"
