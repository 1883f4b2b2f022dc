"""discovery.k8s.io/v1: EndpointSlice, the kind that churns; kept small."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from atsk8s.api.absent import Filled, Listed, Text, fill, present
from atsk8s.api.core import PortNumber
from atsk8s.api.meta import KubeObject

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
SLICE_CONTROLLER = "endpointslice-controller.k8s.io"  # kube-controller-manager's, for Services with a selector

if TYPE_CHECKING:
    Condition: TypeAlias = bool
else:
    Condition = bool | None


class EndpointConditions(msgspec.Struct, frozen=True, gc=False):
    """Null is the API's "unknown", and its documentation says how to read it: ready, serving as ready, not terminating."""

    ready: Condition = None  # type: ignore[assignment]
    serving: Condition = None  # type: ignore[assignment]  # as ready, but also while terminating
    terminating: Condition = False

    def __post_init__(self) -> None:
        ready = present(self.ready, True)
        fill(self, "ready", ready)
        fill(self, "serving", present(self.serving, ready))
        fill(self, "terminating", present(self.terminating, False))


# Nearly every endpoint has one of these eight: share them, at 20,000 slices of 5 that is 4 MB.
_SHARED = {
    (r, s, t): EndpointConditions(ready=r, serving=s, terminating=t)
    for r in (True, False)
    for s in (True, False)
    for t in (True, False)
}


class ForZone(msgspec.Struct, frozen=True, gc=False):
    """A zone that an endpoint is meant for."""

    name: Text = ""

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")


class ForNode(msgspec.Struct, frozen=True, gc=False):
    """A node that an endpoint is meant for."""

    name: Text = ""

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")


class EndpointHints(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Topology hints; () if none."""

    for_zones: Listed[ForZone] = ()
    for_nodes: Listed[ForNode] = ()  # Kubernetes 1.33

    def __post_init__(self) -> None:
        if not self.for_zones:
            fill(self, "for_zones", ())
        if not self.for_nodes:
            fill(self, "for_nodes", ())


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One pod, usually.  All addresses are interchangeable; consumers take the first (the API's own advice)."""

    addresses: Listed[str] = ()
    conditions: Filled[EndpointConditions] = _SHARED[True, True, False]
    hints: EndpointHints | None = None

    def __post_init__(self) -> None:
        if not self.addresses:
            fill(self, "addresses", ())
        conditions = present(self.conditions, _SHARED[True, True, False])
        fill(self, "conditions", _SHARED[conditions.ready, conditions.serving, conditions.terminating])


class EndpointPort(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """`name` equals the Service port's name.  `port` None means all ports, which no proxy can use."""

    name: Text = ""
    port: PortNumber | None = None
    protocol: Text = "TCP"
    app_protocol: Text = ""

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")
        if not self.protocol:
            fill(self, "protocol", "TCP")
        if not self.app_protocol:
            fill(self, "app_protocol", "")


class EndpointSlice(KubeObject, frozen=True, rename="camel", gc=False):
    """A part of a Service's endpoints.  During rolling updates an endpoint may be in two slices: de-duplicate."""

    address_type: Text = ""  # IPv4, IPv6 or FQDN
    endpoints: Listed[Endpoint] = ()
    ports: Listed[EndpointPort] = ()

    def __post_init__(self) -> None:
        if not self.address_type:
            fill(self, "address_type", "")
        if not self.endpoints:
            fill(self, "endpoints", ())
        if not self.ports:
            fill(self, "ports", ())

    @property
    def service_name(self) -> str:
        """The Service it belongs to, in the same namespace; "" for a slice of nobody's."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")

    @property
    def is_managed(self) -> bool:
        """Whether Kubernetes' own controller says that it wrote it."""
        return self.metadata.labels.get(MANAGED_BY_LABEL) == SLICE_CONTROLLER
