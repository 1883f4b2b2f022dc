"""Certificates for hosts whose Ingresses name none, as an administrator lists them: the first ancestor's `tls-certificates`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.model.grants import domain_matches, parse_domain
from atsk8s.model.ir import HostKey, Place, TlsPolicy
from atsk8s.model.names import host_text, is_subdomain, shown

ENTRIES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificate:
    """A Secret for the hosts that `domain` (as grants.Grant has it) stands for."""

    domain: str
    secret: ObjectKey


def parse_tls_certificates(text: str) -> tuple[HostCertificate, ...]:
    """The entries of a list DOMAIN[,DOMAIN...]:NAMESPACE/SECRET, separated by blanks, in their order.

    The ancestor's code took a comma between entries, too, against its own document; a domain has no ':', so both are read.

    Raises:
        ValueError: the first fault, worded to follow the list's name.
    """
    found: list[HostCertificate] = []
    for word in text.split():
        domains: list[str] = []
        for piece in word.split(","):
            domain, colon, secret = piece.partition(":")
            domains.append(_domain(domain, word))
            if colon:
                key = _secret(secret, word)
                found += [HostCertificate(domain=one, secret=key) for one in domains]
                domains = []
        if domains:
            raise ValueError(f"entry {shown(word)} names no Secret: write DOMAIN[,DOMAIN...]:NAMESPACE/SECRET, without blanks")
        if len(found) > ENTRIES_MAX:
            raise ValueError(f"has more than {ENTRIES_MAX} entries")
    return tuple(found)


def policy_for(host: HostKey, certificates: Sequence[HostCertificate]) -> TlsPolicy | None:
    """With the certificate of the first entry that matches; None if none does, or for what is no name of a host's."""
    if host.place not in (Place.EXACT, Place.WILDCARD):
        return None
    name = host_text(host)
    found = next((entry.secret for entry in certificates if domain_matches(entry.domain, name)), None)
    return TlsPolicy(key=host, certificates=(found,)) if found is not None else None


def _domain(text: str, word: str) -> str:
    try:
        return parse_domain(text)
    except ValueError as error:
        raise ValueError(f"entry {shown(word)}: {shown(text)} {error}") from None


def _secret(text: str, word: str) -> ObjectKey:
    namespace, slash, name = text.partition("/")
    if not slash or not is_subdomain(namespace) or not is_subdomain(name):
        raise ValueError(f"entry {shown(word)}: {shown(text)} is not NAMESPACE/SECRET")
    return ObjectKey(namespace, name)
