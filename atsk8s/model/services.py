"""What a Service's port resolves to: the endpoints in its slices, or an external name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from ipaddress import AddressValueError, IPv6Address
from operator import or_
from typing import Final, TypeAlias

from atsk8s.api import core
from atsk8s.api.discovery import SLICE_CONTROLLER, EndpointHints, EndpointSlice
from atsk8s.errors import Reason
from atsk8s.model.annotated import health_check_of, service_annotations
from atsk8s.model.ir import Condition, Endpoint, EndpointFlags, ObjectRef, Service, ServiceKey
from atsk8s.model.names import is_subdomain, shown

Address: TypeAlias = tuple[int, bytes, int]  # length of the address, address, port: sorts as endpoints do

_NO_NAMES: Final[frozenset[str]] = frozenset()
_UNMANAGED: Final = f"it is left out under --endpoint-slices=managed: {SLICE_CONTROLLER} has not written it"
_OCTETS: Final = {str(value): value for value in range(256)}  # as they are written: decimal, without leading zeros
_BAD_NAMED_MAX: Final = 3  # bad addresses of one slice that have a condition of their own
# How a Service's port may say that it speaks (appProtocol) what we speak to pods: HTTP/1.1, and WebSocket over it.
_SPOKEN: Final = ("", "http", "tcp", "ws", "kubernetes.io/ws")  # "tcp": what meshes write for "do not ask"
# What resolvers take for an IPv4 address (inet_aton(3)): a last label that is a number, also an octal or hexadecimal one.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """Where traffic may be sent.  Loopback is an attack on the proxy's own node when the API names it, and normal on a laptop."""

    allow_external_names: bool = False
    allow_loopback: bool = False
    managed_slices_only: bool = False  # EndpointSlices that anybody wrote may name other namespaces' pods (CVE-2021-25740)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where this proxy runs, for endpoints that are meant for a zone or a node; "": unknown, such hints do not count."""

    zone: str = ""
    node_name: str = ""


NOWHERE: Final = Whereabouts()


@dataclass(slots=True)
class _Seen:
    """One address, and what its slices say of it."""

    flags: EndpointFlags
    zones: frozenset[str]
    nodes: frozenset[str]


@dataclass(slots=True)
class _Faults:
    """Conditions against one Service and its slices, bounded."""

    key: ServiceKey
    found: list[Condition] = field(default_factory=list)

    def service(self, reason: Reason, message: str) -> None:
        ref = ObjectRef(kind="Service", namespace=self.key.namespace, name=self.key.name)
        self.found.append(Condition(object=ref, reason=reason, message=message))

    def slice(self, name: str, reason: Reason, message: str) -> None:
        ref = ObjectRef(kind="EndpointSlice", namespace=self.key.namespace, name=name)
        self.found.append(Condition(object=ref, reason=reason, message=message))


def resolve_service(
    key: ServiceKey,
    service: core.Service,
    slices: Iterable[EndpointSlice],
    rules: AddressRules,
    here: Whereabouts = NOWHERE,
) -> tuple[Service, tuple[Condition, ...]]:
    """What `key` means now.  Never fails: what cannot be used is left out and has a condition; no endpoint at all means 503.

    Endpoints that are ready take part, and those that are serving while they terminate: these are draining.

    Args:
        key: as an Ingress refers to it; a number is the Service's port, not the pods' (`targetPort`).
        service: the object.
        slices: those labelled with the Service's name, in any order.
        rules: which addresses are refused.
        here: where the proxy runs.
    """
    faults = _Faults(key)
    made = _resolved(key, service, slices, rules, here, faults)
    if service.metadata.annotations:
        said, bad = service_annotations(service.metadata.annotations)
        check, useless = health_check_of(said)
        for fault in (*bad, *useless):
            faults.service(fault.reason, fault.message)
        if check is not None or said.health_max_failures is not None:
            made = replace(made, health_check=check, max_failures=said.health_max_failures)
    return made, tuple(faults.found)


def _resolved(
    key: ServiceKey,
    service: core.Service,
    slices: Iterable[EndpointSlice],
    rules: AddressRules,
    here: Whereabouts,
    faults: _Faults,
) -> Service:
    if service.spec.type == "ExternalName":
        return _external(key, service, rules, faults)
    port = _port(key, service, faults)
    if port is None:
        return Service(key=key)
    if rules.managed_slices_only and not service.spec.selector:
        faults.service(
            Reason.FORBIDDEN, "it has no selector, so that its EndpointSlices could name any address: --endpoint-slices=any"
        )
        return Service(key=key)
    addresses: dict[Address, _Seen] = {}
    for item in slices:
        if rules.managed_slices_only and not item.is_managed:
            faults.slice(item.metadata.name, Reason.FORBIDDEN, _UNMANAGED)
            continue
        # A slice's port has the Service port's *name* ("" if it has none) and the pods' number.
        for slice_port in item.ports:
            if slice_port.name != port.name or slice_port.protocol != port.protocol:
                continue
            if slice_port.port is None:
                faults.slice(item.metadata.name, Reason.UNSUPPORTED, f"port {shown(port.name)} has no number: set it")
                continue
            _collect(addresses, item, slice_port.port, rules, faults)
    wanted = _meant_for(addresses, here) if here != NOWHERE else addresses
    return Service(
        key=key,
        endpoints=tuple(
            Endpoint(addr=addr, port=number, flags=seen.flags) for (_, addr, number), seen in sorted(wanted.items(), key=_place)
        ),
    )


def _place(item: tuple[Address, _Seen]) -> Address:
    return item[0]


def _meant_for(addresses: dict[Address, _Seen], here: Whereabouts) -> dict[Address, _Seen]:
    """Without the ready endpoints that are meant for others.

    As kube-proxy does (pkg/proxy/topology.go): hints count if every ready endpoint has some and one is for us, those for nodes
    before those for zones; otherwise all take part, so that no hint can leave a Service without endpoints.  Draining endpoints
    stay: who is with them already may not be moved.
    """
    ready = [seen for seen in addresses.values() if EndpointFlags.READY in seen.flags]
    if here.node_name and all(seen.nodes for seen in ready) and any(here.node_name in seen.nodes for seen in ready):
        return {a: seen for a, seen in addresses.items() if EndpointFlags.READY not in seen.flags or here.node_name in seen.nodes}
    if here.zone and all(seen.zones for seen in ready) and any(here.zone in seen.zones for seen in ready):
        return {a: seen for a, seen in addresses.items() if EndpointFlags.READY not in seen.flags or here.zone in seen.zones}
    return addresses


def _port(key: ServiceKey, service: core.Service, faults: _Faults) -> core.ServicePort | None:
    named = [port for port in service.spec.ports if (port.name if isinstance(key.port, str) else port.port) == key.port]
    for port in named:
        if port.protocol == "TCP":
            if port.app_protocol.lower() not in _SPOKEN:
                faults.service(
                    Reason.UNSUPPORTED,
                    f"port {port.port} has appProtocol {shown(port.app_protocol)}, which is not spoken to endpoints: "
                    "they are spoken to as HTTP/1.1; use a port that takes it",
                )
            return port
    what = f"an Ingress refers to its port {shown(key.port) if isinstance(key.port, str) else key.port}"
    if named:
        faults.service(Reason.UNSUPPORTED, f"{what}, which is {shown(named[0].protocol)}: only TCP can be routed to")
    else:
        there = ", ".join(f"{port.port} {shown(port.name)}" if port.name else str(port.port) for port in service.spec.ports[:8])
        faults.service(Reason.PORT_NOT_FOUND, f"{what}, which it does not have; it has {there or 'none'}: correct one of the two")
    return None


def _collect(addresses: dict[Address, _Seen], item: EndpointSlice, port: int, rules: AddressRules, faults: _Faults) -> None:
    if item.address_type not in ("IPv4", "IPv6"):
        faults.slice(
            item.metadata.name,
            Reason.UNSUPPORTED,
            f"addressType {shown(item.address_type)} cannot be routed to: use IPv4 or IPv6, or a Service of type ExternalName",
        )
        return
    n_bad = 0
    for endpoint in item.endpoints:
        # Absent conditions are filled in as the API says; with publishNotReadyAddresses the slices' own controller says ready.
        flags = _FLAGS[endpoint.conditions.ready, endpoint.conditions.serving, endpoint.conditions.terminating]
        if flags is None or not endpoint.addresses:
            continue
        text = endpoint.addresses[0]  # all are the same pod, and the API says to use the first
        addr = _packed(text, item.address_type)
        refusal = "is no address" if addr is None else _refusal(addr, rules)
        if addr is None or refusal:
            n_bad += 1
            if n_bad <= _BAD_NAMED_MAX:
                faults.slice(
                    item.metadata.name,
                    Reason.INVALID_ADDRESS,
                    f"{item.address_type} address {shown(text)} {refusal}; it is left out",
                )
            continue
        _see(addresses, (len(addr), addr, port), flags, endpoint.hints)
    if n_bad > _BAD_NAMED_MAX:
        faults.slice(item.metadata.name, Reason.INVALID_ADDRESS, f"{n_bad} of its addresses are left out")


def _flags(*, ready: bool, serving: bool, terminating: bool) -> EndpointFlags | None:
    """The conditions of an endpoint; None: it takes no part."""
    if not ready and not (serving and terminating):
        return None
    pairs = zip(EndpointFlags, (ready, serving, terminating), strict=True)
    return reduce(or_, (flag for flag, holds in pairs if holds))


# By ready, serving and terminating: made once, there are many endpoints.
_FLAGS: Final = {
    (ready, serving, terminating): _flags(ready=ready, serving=serving, terminating=terminating)
    for ready in (True, False)
    for serving in (True, False)
    for terminating in (True, False)
}


def _see(addresses: dict[Address, _Seen], address: Address, flags: EndpointFlags, hints: EndpointHints | None) -> None:
    """Note an endpoint.  During updates one may be in two slices, and an address in the hands of two pods: the better condition
    counts, and of equals the hints of both."""
    zones, nodes = _NO_NAMES, _NO_NAMES
    if hints is not None:
        zones, nodes = frozenset(z.name for z in hints.for_zones), frozenset(n.name for n in hints.for_nodes)
    former = addresses.get(address)
    if former is None or _goodness(flags) > _goodness(former.flags):
        addresses[address] = _Seen(flags, zones, nodes)
    elif flags == former.flags:
        former.zones |= zones
        former.nodes |= nodes


def _goodness(flags: EndpointFlags) -> tuple[bool, bool, bool]:
    return EndpointFlags.READY in flags, EndpointFlags.SERVING in flags, EndpointFlags.TERMINATING not in flags


def _packed(text: str, address_type: str) -> bytes | None:
    if address_type == "IPv4":  # there are many; ipaddress takes ten times as long, and accepts the same
        try:
            a, b, c, d = text.split(".", 4)
            return bytes((_OCTETS[a], _OCTETS[b], _OCTETS[c], _OCTETS[d]))
        except (KeyError, ValueError):
            return None
    try:
        return None if "%" in text else IPv6Address(text).packed  # a zone is a link's, and the node's own
    except AddressValueError:
        return None


def _refusal(addr: bytes, rules: AddressRules) -> str:
    """Why traffic must not be sent to `addr`; "" if it may (design: an endpoint is no way to reach the proxy's own node)."""
    if len(addr) == 16:
        if addr == b"\0" * 15 + b"\1":
            return "" if rules.allow_loopback else "is loopback"
        if addr[:12] == b"\0" * 10 + b"\xff\xff":
            return "is an IPv4 address in IPv6 form: write it as IPv4"
        if addr[:12] == b"\0" * 12:
            return "is unspecified"
        if addr[0] == 0xFF:
            return "is multicast"
        return "is link-local" if addr[0] == 0xFE and addr[1] & 0xC0 == 0x80 else ""
    match addr[0]:
        case 127:
            return "" if rules.allow_loopback else "is loopback"
        case 0:
            return "is unspecified"
        case 169 if addr[1] == 254:
            return "is link-local"
        case 255 if addr == b"\xff\xff\xff\xff":
            return "is broadcast"
        case first if 224 <= first < 240:
            return "is multicast"
    return ""


def _external(key: ServiceKey, service: core.Service, rules: AddressRules, faults: _Faults) -> Service:
    nothing = Service(key=key)
    if not rules.allow_external_names:
        faults.service(
            Reason.FORBIDDEN,
            "is of type ExternalName, which can name any host that the proxy reaches: --allow-external-names allows it",
        )
        return nothing
    port = key.port
    # An ExternalName needs no ports; those that it has give names, and may not say something else than the Ingress.
    if isinstance(port, str) or service.spec.ports:
        found = _port(key, service, faults)
        if found is None:
            return nothing
        port = found.port
    name = service.spec.external_name.lower().removesuffix(".")
    if _NUMERIC.fullmatch(name):
        addr = _packed(name, "IPv4")
        refusal = "is a number, and no IPv4 address" if addr is None else _refusal(addr, rules)
        if addr is None or refusal:
            faults.service(Reason.INVALID_ADDRESS, f"spec.externalName {shown(name)} {refusal}: name a host")
            return nothing
        return Service(key=key, endpoints=(Endpoint(addr=addr, port=port),))
    if not is_subdomain(name):
        faults.service(Reason.INVALID_ADDRESS, f"spec.externalName {shown(name)} is not a DNS name: correct it")
        return nothing
    if not rules.allow_loopback and (name == "localhost" or name.endswith((".localhost", ".localdomain"))):
        faults.service(Reason.INVALID_ADDRESS, f"spec.externalName {shown(name)} is loopback: name another host")
        return nothing
    return Service(key=key, external_name=name, external_port=port)
