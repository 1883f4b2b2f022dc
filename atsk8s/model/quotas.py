"""How much one namespace may have: hosts, routes, certificates.

Of a namespace's Ingresses the oldest take part, as many as fit; from the first on that does not, all younger ones wait.  One that
would not fit even alone is left out by itself.  So the outcome depends on what is there and not on how it came about, and what a
change costs depends on what it moves in or out: at most as much as the limits allow, however much is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import InvariantError
from atsk8s.model.index import References
from atsk8s.model.ingress import Claims
from atsk8s.model.ir import HostKey
from atsk8s.model.precedence import Precedence

_Place: TypeAlias = tuple[Precedence, ObjectKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Limits of one namespace; 0: none."""

    hosts: int = 0
    routes: int = 0
    certificates: int = 0

    def __bool__(self) -> bool:
        return bool(self.hosts or self.routes or self.certificates)

    def __str__(self) -> str:
        named = (("hosts", self.hosts), ("routes", self.routes), ("certificates", self.certificates))
        return ", ".join(f"--max-{what}-per-namespace={most}" for what, most in named if most)


class NamespaceQuota:
    """The Ingresses of one namespace, oldest first, and how many of them take part.

    Args:
        quota: at least one limit.
        claims_of: what an Ingress of the namespace claims at the moment of the call.
    """

    def __init__(self, quota: Quota, claims_of: Callable[[ObjectKey], Claims]) -> None:
        self._quota = quota
        self._claims_of = claims_of
        self._order: list[_Place] = []
        self._n_in: int = 0  # so many of them take part
        self._hosts: References[HostKey] = References()
        self._secrets: References[ObjectKey] = References()
        self._n_routes = 0

    def __len__(self) -> int:
        return len(self._order)

    def fits_alone(self, claims: Claims) -> bool:
        """Whether an Ingress of these claims could take part if there were no other."""
        hosts, secrets, n_routes = _use(claims)
        return self._is_within(len(hosts), len(secrets), n_routes)

    def replace(self, key: ObjectKey, former: Claims, now: Claims) -> list[ObjectKey]:
        """An Ingress's claims were `former` and are `now`; who takes part now and did not, or the other way about.

        `key` itself may be among them, or not: look at it in any case.
        """
        place = self._place(key, former)
        if place is not None:
            i = self._find(place)
            del self._order[i]
            if i < self._n_in:
                self._n_in -= 1
                self._discount(former)
        place = self._place(key, now)
        if place is not None:
            i = bisect_left(self._order, place)
            self._order.insert(i, place)
            if i < self._n_in:
                self._n_in += 1
                self._count(now)
        moved: list[ObjectKey] = []
        while not self._is_within(len(self._hosts), len(self._secrets), self._n_routes):
            self._n_in -= 1
            last = self._order[self._n_in][1]
            self._discount(self._claims_of(last))
            moved.append(last)
        while self._n_in < len(self._order):
            following = self._order[self._n_in][1]
            claims = self._claims_of(following)
            if not self._has_room(claims):
                break
            self._count(claims)
            self._n_in += 1
            moved.append(following)
        return moved

    def takes_part(self, key: ObjectKey, claims: Claims) -> bool:
        """Whether an Ingress of these claims, which are those last given for it, is within the limits."""
        if not (claims.routes or claims.tls):
            return True
        place = self._place(key, claims)
        return place is not None and self._find(place) < self._n_in

    def _place(self, key: ObjectKey, claims: Claims) -> _Place | None:
        """None: the Ingress has no place in the order, claiming nothing or too much."""
        if not (claims.routes or claims.tls) or not self.fits_alone(claims):
            return None
        return (claims.routes[0][1] if claims.routes else claims.tls[0][1]).precedence, key

    def _find(self, place: _Place) -> int:
        i = bisect_left(self._order, place)
        if i == len(self._order) or self._order[i] != place:
            raise InvariantError(f"{place[1]} has no place in its namespace's order")
        return i

    def _is_within(self, n_hosts: int, n_secrets: int, n_routes: int) -> bool:
        quota = self._quota
        return (
            (not quota.hosts or n_hosts <= quota.hosts)
            and (not quota.certificates or n_secrets <= quota.certificates)
            and (not quota.routes or n_routes <= quota.routes)
        )

    def _has_room(self, claims: Claims) -> bool:
        hosts, secrets, n_routes = _use(claims)
        n_hosts = len(self._hosts) + sum(host not in self._hosts for host in hosts)
        n_secrets = len(self._secrets) + sum(secret not in self._secrets for secret in secrets)
        return self._is_within(n_hosts, n_secrets, self._n_routes + n_routes)

    def _count(self, claims: Claims) -> None:
        hosts, secrets, n_routes = _use(claims)
        for host in hosts:
            self._hosts.add(host)
        for secret in secrets:
            self._secrets.add(secret)
        self._n_routes += n_routes

    def _discount(self, claims: Claims) -> None:
        hosts, secrets, n_routes = _use(claims)
        for host in hosts:
            self._hosts.remove(host)
        for secret in secrets:
            self._secrets.remove(secret)
        self._n_routes -= n_routes


def usage_text(claims: Claims) -> str:
    """How much an Ingress has, for a message."""
    hosts, secrets, n_routes = _use(claims)
    return f"{len(hosts)} hosts, {n_routes} routes, {len(secrets)} certificates"


def _use(claims: Claims) -> tuple[set[HostKey], set[ObjectKey], int]:
    hosts = {host for host, _ in claims.routes}
    hosts.update(host for host, _ in claims.tls)
    return hosts, claims.secrets(), sum(len(claim.rules) + (claim.default is not None) for _, claim in claims.routes)
