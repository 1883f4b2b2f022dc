"""What the model knows, as plain values for people and JSON: why a request goes where it goes, and everything there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address

from atsk8s.model.alternatives import others
from atsk8s.model.changes import Changes
from atsk8s.model.ir import (
    Backend,
    Condition,
    Endpoint,
    EndpointFlags,
    HostKey,
    ObjectRef,
    Place,
    Rule,
    Service,
    TlsPolicy,
    VirtualHost,
    ingress_ref,
)
from atsk8s.model.matching import match_rule
from atsk8s.model.names import FALLBACK, NO_HOST, host_text, wildcard_over
from atsk8s.model.normalise import RequestFault, normalise_host, normalise_path
from atsk8s.model.policies import plain as plain_policy
from atsk8s.model.precedence import service_order
from atsk8s.values import duration_text

Verdict = Callable[[ObjectRef], tuple[Condition, ...]]
Plain = Mapping[str, object]


def explain(state: Changes, authority: str, path: str, verdict: Verdict) -> Plain:
    """What becomes of a request, and why.

    Args:
        state: all there is.
        authority: the Host header; a port is ignored.
        path: as sent, without its query.
        verdict: of an object.
    """
    host = normalise_host(authority.encode("utf-8", "surrogateescape"))
    normal = normalise_path(path.encode("utf-8", "surrogateescape"))
    if isinstance(host, RequestFault) or isinstance(normal, RequestFault):
        faults = [fault.name.lower() for fault in (host, normal) if isinstance(fault, RequestFault)]
        return {"request": {"fault": faults[0]}}
    name, normal_path = host.name.decode("ascii"), normal.decode("utf-8", "replace")
    exact = HostKey(place=Place.EXACT, host=name)
    wildcard = wildcard_over(exact)
    tried = [key for key in (exact, wildcard, NO_HOST) if key is not None]
    answer: dict[str, object] = {"request": {"host": name, "path": normal_path}}
    vhost = next((state.vhosts[key] for key in tried if key in state.vhosts), None)
    fallback = state.vhosts.get(FALLBACK)
    rule = match_rule(vhost, normal_path) if vhost is not None else None
    if vhost is not None:
        answer["virtual_host"] = host_text(vhost.key) if vhost.key != NO_HOST else "every host"
    if rule is not None and vhost is not None:
        answer["matched"] = "default backend of the host" if rule is vhost.default else f"{rule.kind.name} {rule.path}"
    elif fallback is not None:
        rule, answer["matched"] = fallback.default, "global default backend"
    if rule is not None:
        answer["rule"] = _rule(rule)
        answer["services"] = {str(b.service): _service(state.services.get(b.service)) for b in rule.backends}
        answer["conditions"] = [_condition(condition) for condition in verdict(ingress_ref(rule.object))]
    answer["others"] = others(state.vhosts, tried, vhost, rule, normal_path)
    policy = next((state.tls[key] for key in (*tried[:-1], FALLBACK) if key in state.tls), None)
    if policy is not None:
        answer["tls"] = _tls(state, policy)
    return answer


def dump(state: Changes, verdicts: Mapping[ObjectRef, tuple[Condition, ...]]) -> Plain:
    """Everything there is, sorted, without secrets."""
    return {
        "virtual_hosts": [_vhost(vhost) for _, vhost in sorted(state.vhosts.items()) if vhost is not None],
        "tls": [_tls(state, policy) for _, policy in sorted(state.tls.items()) if policy is not None],
        "services": {str(key): _service(state.services[key]) for key in sorted(state.services, key=service_order)},
        "verdicts": {str(ref): [_condition(condition) for condition in found] for ref, found in verdicts.items()},
    }


def _vhost(vhost: VirtualHost) -> Plain:
    plain: dict[str, object] = {"place": vhost.key.place.name, "host": host_text(vhost.key)}
    if vhost.rules:
        plain["rules"] = [_rule(rule) for rule in vhost.rules]
    if vhost.default is not None:
        plain["default"] = _rule(vhost.default)
    return plain


def _rule(rule: Rule) -> Plain:
    plain: dict[str, object] = {
        "object": str(rule.object),
        "match": f"{rule.kind.name} {rule.path}",
        "backends": [_backend(backend) for backend in rule.backends],
    }
    if rule.policies:
        plain["policies"] = dict(map(plain_policy, rule.policies))
    if rule.path_as_written not in ("", rule.path):
        plain["written"] = rule.path_as_written
    return plain


def _backend(backend: Backend) -> str:
    return f"{backend.service}" if backend.weight == 1 else f"{backend.service} weight {backend.weight}"


def _service(service: Service | None) -> object:
    if service is None:
        return "unknown"
    if service.external_name:
        return f"{service.external_name}:{service.external_port}"
    endpoints = [_endpoint(endpoint) for endpoint in service.endpoints]
    if service.health_check is None and service.max_failures is None:
        return endpoints
    plain: dict[str, object] = {"endpoints": endpoints}
    check = service.health_check
    if check is not None:
        port = f" at port {check.port}" if check.port is not None else ""
        plain["health_check"] = (
            f"{check.path}{port} every {duration_text(check.interval_ms)}, {duration_text(check.timeout_ms)} each"
        )
    if service.max_failures is not None:
        plain["max_failures"] = service.max_failures
    return plain


def _endpoint(endpoint: Endpoint) -> str:
    text = f"{_bracketed(endpoint.addr)}:{endpoint.port}"
    return text if EndpointFlags.READY in endpoint.flags else f"{text} draining"


def _bracketed(addr: bytes) -> str:
    text = str(ip_address(addr))
    return f"[{text}]" if len(addr) == 16 else text


def _tls(state: Changes, policy: TlsPolicy) -> Plain:
    certificates: list[Plain] = []
    for key in policy.certificates:
        found = state.certificates.get(key)
        plain: dict[str, object] = {"secret": str(key)}
        if found is None:
            plain["material"] = "none"
        else:
            plain.update(names=list(found.names), not_after_s=found.not_after_s)
        certificates.append(plain)
    return {"place": policy.key.place.name, "host": host_text(policy.key), "certificates": certificates}


def _condition(condition: Condition) -> Plain:
    plain: dict[str, object] = {"reason": str(condition.reason), "message": condition.message}
    if condition.fatal:
        plain["fatal"] = True
    return plain
