"""Strict tenancy: a host, and all hosts under a wildcard, belong to one namespace alone.

The outcome is as if claims had arrived in order of age.  A wildcard is granted to the oldest Ingress that claims it and before
which no other namespace had a host under it; from then on every host under it is that namespace's.  Otherwise a host is its oldest
claimant's.  "Under" is what the wildcard stands for: one label more.

So a host depends on the claims of its wildcard and a wildcard on those of the hosts under it; `affected` says what that comes to.
A claim on every host (a rule without host, an Ingress without rules) would be one on other namespaces' as well: `access` refuses it
before it gets here, unless `domain-access-list` grants it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from atsk8s.model.assemble import Owner
from atsk8s.model.index import ClaimIndex
from atsk8s.model.ingress import RouteClaim, TlsClaim
from atsk8s.model.ir import HostKey, Place
from atsk8s.model.names import host_text, wildcard_over
from atsk8s.model.precedence import Precedence


class _First(NamedTuple):
    """The oldest claim on a host under some wildcard."""

    precedence: Precedence
    namespace: str
    host: HostKey


class _Group:
    """One wildcard and the hosts under it.  `hosts`: those with any claim; `grant`: who has the wildcard.

    The oldest claims are kept by namespace, and of each namespace the oldest again: who stands in a namespace's way is found
    without a look at the namespace's own hosts, however many there are.
    """

    __slots__ = ("_firsts", "_heads", "grant", "hosts")

    def __init__(self) -> None:
        self._firsts: dict[str, list[_First]] = {}  # by namespace, sorted
        self._heads: list[_First] = []  # the first one of each, sorted
        self.hosts: dict[HostKey, _First | None] = {}
        self.grant: RouteClaim | None = None

    def add(self, first: _First) -> None:
        """A host has an oldest claim."""
        firsts = self._firsts.setdefault(first.namespace, [])
        if not firsts or first < firsts[0]:
            if firsts:
                _remove(self._heads, firsts[0])
            insort(self._heads, first)
        insort(firsts, first)

    def remove(self, first: _First) -> None:
        """It has it no longer."""
        firsts = self._firsts[first.namespace]
        if first == firsts[0]:
            _remove(self._heads, first)
            if len(firsts) > 1:
                insort(self._heads, firsts[1])
        _remove(firsts, first)
        if not firsts:
            del self._firsts[first.namespace]

    def first_foreign(self, namespace: str) -> _First | None:
        """The oldest claim of another namespace than this one: of two heads, one is."""
        return next((first for first in self._heads[:2] if first.namespace != namespace), None)


def _remove(firsts: list[_First], first: _First) -> None:
    del firsts[bisect_left(firsts, first)]


def _blocked(blocker: _First) -> Owner:
    return Owner(namespace=None, why=f"host {host_text(blocker.host)} under it belongs to namespace {blocker.namespace}")


class StrictTenancy:
    """See the module.  Updated by `affected`, before anything that it returns is assembled."""

    def __init__(self, routes: ClaimIndex[RouteClaim], tls: ClaimIndex[TlsClaim]) -> None:
        self._routes = routes
        self._tls = tls
        self._groups: dict[HostKey, _Group] = {}  # by wildcard; also without a claim on the wildcard itself

    def affected(self, dirty: Iterable[HostKey]) -> set[HostKey]:
        """Every host whose owner may differ now that the claims on `dirty` have changed; `dirty` itself included."""
        result = set(dirty)
        wildcards: dict[HostKey, None] = {}
        for host in sorted(result):
            wildcard = host if host.place is Place.WILDCARD else wildcard_over(host)
            if wildcard is None:
                continue
            wildcards[wildcard] = None
            if host is not wildcard:
                self._update(self._groups.setdefault(wildcard, _Group()), host)
        for wildcard in wildcards:
            group = self._groups.setdefault(wildcard, _Group())
            grant = self._grant(wildcard, group)
            differs = (grant and grant.object) != (group.grant and group.grant.object)
            group.grant = grant
            if differs:
                result.update(group.hosts)
                result.add(wildcard)
            elif grant is None and (wildcard in self._routes or wildcard in self._tls):
                result.add(wildcard)  # who stands in its way may have changed, and is named
            if not group.hosts and grant is None:
                del self._groups[wildcard]
        return result

    def owner(self, host: HostKey) -> Owner | None:
        """Who the routes of `host` belong to; None: to nobody yet (it has no claims on routes), or it is no name of a host's."""
        found = self._owner_by_wildcard(host)
        if found is not None:
            return found
        claims = self._routes.get(host)
        if not claims or host.place is Place.FALLBACK:
            return None
        oldest = claims[0].object
        if host.place is not Place.WILDCARD:
            return Owner(namespace=oldest.namespace, why=f"the host belongs to Ingress {oldest}, which comes first")
        blocker = self._groups[host].first_foreign(oldest.namespace)
        return _blocked(blocker) if blocker is not None else None

    def tls_owner(self, host: HostKey) -> Owner | None:
        """Who the certificates of `host` belong to; None: to whoever is the oldest to have one for it.

        A wildcard that nobody may route can have certificates all the same.  They take nobody's host, but must not be shown on
        that of somebody who was there before.
        """
        found = self._owner_by_wildcard(host)
        if found is not None or host.place is not Place.WILDCARD:
            return found or self.owner(host)
        group, claims = self._groups.get(host), self._tls.get(host)
        if group is None or not claims:
            return None
        blocker: _First | None = None
        for claim in claims:
            blocker = group.first_foreign(claim.object.namespace)
            if blocker is None or blocker.precedence > claim.precedence:
                return Owner(namespace=claim.object.namespace, why=f"Ingress {claim.object} comes first")
        return _blocked(blocker) if blocker is not None else None

    def _owner_by_wildcard(self, host: HostKey) -> Owner | None:
        """By the wildcard that `host` is or is under, if that is granted to anybody."""
        wildcard = host if host.place is Place.WILDCARD else wildcard_over(host)
        group = self._groups.get(wildcard) if wildcard is not None else None
        if group is None or group.grant is None or wildcard is None:
            return None
        grant = group.grant.object
        return Owner(namespace=grant.namespace, why=f"{host_text(wildcard)} belongs to Ingress {grant}")

    def _update(self, group: _Group, host: HostKey) -> None:
        former = group.hosts.pop(host, None)
        if former is not None:
            group.remove(former)
        claims = self._routes.get(host)
        if claims:
            first = _First(claims[0].precedence, claims[0].object.namespace, host)
            group.add(first)
            group.hosts[host] = first
        elif host in self._tls:
            group.hosts[host] = None

    def _grant(self, wildcard: HostKey, group: _Group) -> RouteClaim | None:
        claims = self._routes.get(wildcard)
        if not claims:
            return None
        # Of a namespace's claims on the wildcard its oldest has the best prospects.
        seen: set[str] = set()
        for claim in claims:
            namespace = claim.object.namespace
            if namespace in seen:
                continue
            seen.add(namespace)
            first = group.first_foreign(namespace)
            if first is None or first.precedence > claim.precedence:
                return claim
        return None
