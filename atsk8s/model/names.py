"""Hosts and object names as Kubernetes allows them, checked once."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import Final

from atsk8s.errors import Reason, RejectError
from atsk8s.model.ir import HostKey, Place
from atsk8s.model.normalise import HOST_BYTES_MAX

# RFC 1123 section 2.1 labels of RFC 1035's length.  The API server does not look at a label's length; no client can send it.
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
NO_HOST: Final = HostKey(place=Place.NO_HOST)
FALLBACK: Final = HostKey(place=Place.FALLBACK)


def is_subdomain(text: str) -> bool:
    """Whether `text` is an RFC 1123 subdomain in lower case: what the API asks of hosts and of most objects' names."""
    return len(text) <= HOST_BYTES_MAX and _SUBDOMAIN.fullmatch(text) is not None


def is_ipv4(text: str) -> bool:
    """Whether `text` is an IPv4 address in dotted decimals."""
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def host_key(text: str, field: str) -> HostKey:
    """The key of a host as an Ingress has it: "a.example", "*.example", or "" for every host.

    Args:
        text: IngressRule.host or an entry of IngressTLS.hosts; upper case is folded.
        field: where it stands, for the message.

    Raises:
        RejectError: not a host name, or an IP address, which the API refuses, too.
    """
    if not text:
        return NO_HOST
    # Only ASCII is folded: the Kelvin sign's lower case is "k".
    lower = text.lower() if text.isascii() else text
    host = text if text == lower else lower  # the object's own string, where it will do: there are many
    place = Place.EXACT
    if host.startswith("*."):
        host, place = host[2:], Place.WILDCARD
    if not is_subdomain(host):
        raise RejectError(
            Reason.INVALID_HOST,
            f"{field} {shown(text)} is not a DNS name: use letters, digits and '-' in labels of 1 to 63 characters, "
            f"{HOST_BYTES_MAX} in all, with at most a leading '*.'; write other alphabets as punycode",
        )
    if host[-1].isdigit() and is_ipv4(host):
        raise RejectError(
            Reason.INVALID_HOST, f"{field} {shown(text)} is an IP address: use a DNS name, or leave it out for every host"
        )
    return HostKey(place=place, host=host)


def wildcard_over(key: HostKey) -> HostKey | None:
    """The wildcard that stands for an EXACT host: exactly one label less.  None for a host of one label, and for other places."""
    if key.place is not Place.EXACT:
        return None
    parent = key.host.partition(".")[2]
    return HostKey(local_port=key.local_port, place=Place.WILDCARD, host=parent) if parent else None


def host_text(key: HostKey) -> str:
    """The host as an Ingress has it, for messages and identities; "*" where it names none."""
    match key.place:
        case Place.EXACT:
            return key.host
        case Place.WILDCARD:
            return f"*.{key.host}"
        case _:
            return "*"


def shown(text: str, n_max: int = 80) -> str:
    """`text` quoted for a message: control characters escaped, and cut if it is long."""
    return ascii(text) if len(text) <= n_max else f"{text[:n_max]!a}... ({len(text)} characters)"
