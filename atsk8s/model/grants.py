"""Who may use which host, as an administrator grants it: the first ancestor's `domain-access-list`.

The list is blank-separated entries DOMAIN:NAMESPACE[,NAMESPACE...].  A host is a namespace's if any entry that matches the host
names that namespace; what no entry grants is denied.  (The ancestor's document says that the first entry that matches decides; its
code has asked every entry since 1.0.0-alpha10, and so does this.)  An empty list grants everything, as no list does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from atsk8s.model.names import is_subdomain, shown

ENTRIES_MAX: Final = 4096
NAMESPACES_MAX: Final = 1024  # of one entry
ANY: Final = "*"
HOST_CHARS_MIN: Final = 3  # "a.b": a shorter host is matched by "*" alone, as it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One entry.

    `domain`: "*" is every host; "a.example" that host; "*.a.example" what has exactly one label more; "*a.example" that host and
    what has exactly one label more.  `namespaces`: "*" among them is every namespace.
    """

    domain: str
    namespaces: tuple[str, ...]

    def matches(self, host: str) -> bool:
        return domain_matches(self.domain, host)

    def names(self, namespace: str) -> bool:
        return namespace in self.namespaces or ANY in self.namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessList:
    """A list that is used as far as it can be: an entry with a fault grants nothing, so it denies rather than permits.

    `grants` None: the list is empty, which is as no list at all.  `faults` are worded to follow the list's name.
    """

    grants: tuple[Grant, ...] | None = None
    faults: tuple[str, ...] = ()


def parse_domain_access_list(text: str) -> tuple[Grant, ...]:
    """The entries in their order; () for an empty list.

    Raises:
        ValueError: the first fault, worded to follow the list's name: "entry 'x' has no ...".
    """
    found = read_domain_access_list(text)
    if found.faults:
        raise ValueError(found.faults[0])
    return found.grants or ()


def read_domain_access_list(text: str) -> AccessList:
    """The entries that can be used, in their order, and what is wrong with the others.  Of too many entries none is used."""
    words = text.split()
    if len(words) > ENTRIES_MAX:
        return AccessList(grants=(), faults=(f"has {len(words)} entries; at most {ENTRIES_MAX} are taken",))
    grants: list[Grant] = []
    faults: list[str] = []
    for word in words:
        try:
            grants.append(_parse_entry(word))
        except ValueError as error:
            faults.append(str(error))
    return AccessList(grants=tuple(grants) if words else None, faults=tuple(faults))


def is_granted(grants: Sequence[Grant], host: str, namespace: str) -> bool:
    """Whether `namespace` may use `host`.

    Args:
        grants: as parsed; () grants everything.
        host: in lower case; a wildcard as an Ingress has it, "*.a.example", counts as a name with the label "*"; "" for every host.
        namespace: the Ingress's.
    """
    return not grants or any(grant.names(namespace) and grant.matches(host) for grant in grants)


def domain_matches(domain: str, host: str) -> bool:
    """Whether a domain as `Grant` describes it stands for `host`.  A wildcard host is only matched by what covers all of it."""
    if domain == ANY:
        return True
    if len(host) < HOST_CHARS_MIN:
        return False
    parent = host.partition(".")[2]
    if domain.startswith("*."):
        return parent == domain[2:]
    if domain.startswith("*"):
        return domain[1:] in (host, parent)
    return host == domain


def parse_domain(text: str) -> str:
    """A domain as `Grant` describes it, in lower case.

    Raises:
        ValueError: it is none, worded to follow the text.
    """
    domain = text.lower() if text.isascii() else text
    name = domain.removeprefix("*").removeprefix(".") if domain.startswith("*") else domain
    if domain != ANY and (len(name) < HOST_CHARS_MIN or not is_subdomain(name)):
        raise ValueError("is no domain: write *, a.example, *.a.example or *a.example")
    return domain


def _parse_entry(word: str) -> Grant:
    domain, colon, names = word.partition(":")
    if not colon:
        raise ValueError(f"entry {shown(word)} has no ':': write DOMAIN:NAMESPACE[,NAMESPACE...], without blanks")
    try:
        parsed = parse_domain(domain)
    except ValueError as error:
        raise ValueError(f"entry {shown(word)}: {shown(domain)} {error}") from None
    namespaces = tuple(dict.fromkeys(names.split(",")))
    if len(namespaces) > NAMESPACES_MAX:
        raise ValueError(f"entry {shown(word)} has {len(namespaces)} namespaces; at most {NAMESPACES_MAX} are taken")
    for namespace in namespaces:
        if namespace != ANY and (not is_subdomain(namespace) or "." in namespace):
            raise ValueError(f"entry {shown(word)}: {shown(namespace)} is no namespace's name, nor *")
    return Grant(domain=parsed, namespaces=namespaces)
