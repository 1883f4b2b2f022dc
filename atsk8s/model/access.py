"""Who may claim which host, whatever others claim: `domain-access-list`, and what strict tenancy asks of claims on every host.

This decides before any age does: a claim that is refused here takes no part, so that it can win nothing and stand in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import Reason
from atsk8s.model.grants import ANY, HOST_CHARS_MIN, Grant
from atsk8s.model.ingress import Claims
from atsk8s.model.ir import Condition, HostKey, Place, ingress_ref
from atsk8s.model.names import host_text

T = TypeVar("T")

NAMED_MAX: Final = 8  # refused hosts of one object that have a condition of their own; the others are counted
_NAMESPACES_SHOWN: Final = 3


class Access:
    """A list of grants, made ready for a look-up whose cost does not grow with it.

    Args:
        grants: the list; () grants nothing.  None: there is no list, and everything is granted.
        is_strict: without a list, nobody may claim every host.
    """

    def __init__(self, grants: Sequence[Grant] | None, *, is_strict: bool) -> None:
        self._is_listed = grants is not None
        self._is_strict = is_strict
        self._by_domain: dict[str, list[Grant]] = {}
        for grant in grants or ():
            self._by_domain.setdefault(grant.domain, []).append(grant)

    @property
    def refuses_nothing(self) -> bool:
        return not self._is_listed and not self._is_strict

    @property
    def is_isolating(self) -> bool:
        """Whether namespaces are kept apart, so that one must not reach another's hosts by way of a browser either."""
        return self._is_listed or self._is_strict

    def refusal(self, host: HostKey, namespace: str) -> str:
        """Why `namespace` may not claim `host`; "" if it may."""
        is_every = host.place not in (Place.EXACT, Place.WILDCARD)
        if not self._is_listed:
            if is_every and self._is_strict:
                return (
                    "under --tenancy=strict nobody may claim every host: name the hosts, or have the administrator grant * to the "
                    "namespace in domain-access-list, or set --default-backend"
                )
            return ""
        matching = self._matching("" if is_every else host_text(host))
        if any(grant.names(namespace) for grant in matching):
            return ""
        if not matching and is_every:
            return "only an entry for * in domain-access-list covers every host: name the hosts, or set --default-backend"
        if not matching:
            return f"no entry of domain-access-list matches it: the administrator may add {host_text(host)}:{namespace}"
        return f"domain-access-list has it for others ({', '.join(map(_shown, matching[:NAMED_MAX]))}), not for {namespace}"

    def _matching(self, name: str) -> list[Grant]:
        """The entries that stand for a host, as grants.domain_matches has it: no other domains than these can."""
        domains = [ANY]
        if len(name) >= HOST_CHARS_MIN:
            parent = name.partition(".")[2]
            domains += [name, f"*{name}"] if not name.startswith(ANY) else []
            domains += [f"*.{parent}", f"*{parent}"] if parent else []
        return [grant for domain in domains for grant in self._by_domain.get(domain, ())]

    def permitted(self, key: ObjectKey, claims: Claims) -> Claims:
        """What of an Ingress's claims may take part; `claims` itself if all may, else with a condition for what may not."""
        if self.refuses_nothing:
            return claims
        refused: dict[HostKey, str] = {}
        routes = self._keep(key.namespace, claims.routes, refused)
        conditions = _conditions(key, refused, "{host} is not served from this Ingress: {why}")
        refused = {}
        tls = self._keep(key.namespace, claims.tls, refused)
        conditions += _conditions(key, refused, "spec.tls for {host} is not used: {why}")
        if not conditions:
            return claims
        return replace(claims, routes=routes, tls=tls, conditions=(*claims.conditions, *conditions))

    def _keep(
        self, namespace: str, claimed: Iterable[tuple[HostKey, T]], refused: dict[HostKey, str]
    ) -> tuple[tuple[HostKey, T], ...]:
        kept: list[tuple[HostKey, T]] = []
        for host, claim in claimed:
            why = self.refusal(host, namespace)
            if why:
                refused[host] = why
            else:
                kept.append((host, claim))
        return tuple(kept)


def _conditions(key: ObjectKey, refused: dict[HostKey, str], text: str) -> list[Condition]:
    ref = ingress_ref(key)
    in_order = sorted(refused)
    found = [
        Condition(object=ref, reason=Reason.FORBIDDEN, message=text.format(host=_what(host), why=refused[host]))
        for host in in_order[:NAMED_MAX]
    ]
    if len(in_order) > NAMED_MAX:
        message = text.format(host=f"{len(in_order) - NAMED_MAX} more hosts", why="as above")
        found.append(Condition(object=ref, reason=Reason.FORBIDDEN, message=message))
    return found


def _what(host: HostKey) -> str:
    match host.place:
        case Place.NO_HOST:
            return "a rule without host"
        case Place.FALLBACK:
            return "spec.defaultBackend for every host"
        case _:
            return f"host {host_text(host)}"


def _shown(grant: Grant) -> str:
    names = ",".join(grant.namespaces[:_NAMESPACES_SHOWN])
    return f"{grant.domain}:{names}" + (",..." if len(grant.namespaces) > _NAMESPACES_SHOWN else "")
