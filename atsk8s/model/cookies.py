"""How far an affinity cookie may reach: RFC 6265 lets a host set one for every host under a parent domain, others' hosts included.

A cookie of another host that has the same name would hide the one that a host's own affinity goes by, so that its clients would
lose their pods.  Where namespaces are kept apart, a cookie therefore stays with the host of its rule.  Elsewhere it may be for a
parent of that host, as with ingress-nginx, but not for a domain of one label, which is a public suffix.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

from atsk8s.model.annotated import IngressAnnotations, policies_of
from atsk8s.model.ir import HostKey, Place
from atsk8s.model.names import host_text, shown
from atsk8s.model.policies import Policy

_NAMED_MAX: Final = 3  # hosts that the condition names; it counts the others

Policies: TypeAlias = tuple[Policy, ...]


def domain_fault(domain: str, host: HostKey, *, is_isolated: bool) -> str:
    """Why a cookie that `host` sets cannot have the attribute Domain=`domain`; "" if it can.

    Args:
        domain: in lower case, without a leading dot.
        host: of a rule.
        is_isolated: whether another namespace may have the domain's other hosts.
    """
    if "." not in domain:
        return "it is no host's domain, but all of a public one"
    match host.place:
        case Place.EXACT if domain == host.host:
            return ""  # it also reaches the hosts under it, as any answer of the pods' could
        case Place.EXACT | Place.WILDCARD:
            own = host.host if host.place is Place.EXACT else f"any.{host.host}"
            if not own.endswith(f".{domain}"):
                return "no browser takes it from this host"
    return "it reaches other hosts, which may be another namespace's" if is_isolated else ""


class CookieDomain:
    """What becomes of one Ingress's session-cookie-domain, host by host.

    Args:
        said: its annotations.
        known: policies of other Ingresses, to be shared.
        is_isolated: see `domain_fault`.
    """

    def __init__(self, said: IngressAnnotations, known: dict[Policies, Policies], *, is_isolated: bool) -> None:
        self._domain = said.session_cookie_domain
        self._is_isolated = is_isolated
        self._narrow: Policies = ()
        self.faults: dict[HostKey, str] = {}
        if self._domain is None or said.affinity is None:
            self._domain = None
            return
        narrow, _ = policies_of(replace(said, session_cookie_domain=None))
        self._narrow = known.setdefault(narrow, narrow)

    def policies(self, host: HostKey, policies: Policies) -> Policies:
        """Those of the rules of `host`: `policies` as they are, or without the cookie's domain."""
        if self._domain is None:
            return policies
        fault = domain_fault(self._domain, host, is_isolated=self._is_isolated)
        if not fault:
            return policies
        self.faults[host] = fault
        return self._narrow

    def message(self) -> str:
        """What is wrong, if anything is."""
        hosts = sorted(self.faults)
        named = "; ".join(f"host {host_text(host)}: {self.faults[host]}" for host in hosts[:_NAMED_MAX])
        more = f"; and {len(hosts) - _NAMED_MAX} more" if len(hosts) > _NAMED_MAX else ""
        domain = shown(self._domain or "")
        return f"annotation session-cookie-domain: {domain} is left out for {named}{more}: use the host, or leave it out"
