"""The intermediate representation: what is routed where, free of Kubernetes and free of bytes.

It has Gateway API's shape (listener -> virtual host -> rule: matches -> policies -> weighted backends); Ingress v1 is one
producer of it.  A virtual host depends on routing objects alone: its backends name a Service's port, and what that port's
endpoints are, or whether it exists at all, is the business of a `Service` of its own.  So a pod that comes or goes touches no
virtual host, and an Ingress may arrive before its Service does.

Everything here is immutable and hashable, and holds nothing secret but what `Certificate.key_der` redacts.
"""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, unique
from typing import Final

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import InvariantError
from atsk8s.model.policies import Policy


@unique
class PathMatchKind(IntEnum):
    """How a rule's path is compared.

    EXACT: "/foo" is not "/foo/".  PREFIX: whole segments, "/foo" matches "/foo/x" and not "/foobar".
    """

    EXACT = 0
    PREFIX = 1


@unique
class Place(IntEnum):
    """Where a virtual host or a TLS policy stands in a listener.

    The integers are `enum atsk_vhost_place` of plugin_c/table/publish.h.
    """

    EXACT = 0
    WILDCARD = 1
    NO_HOST = 2
    FALLBACK = 3


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HostKey:
    """What names a virtual host: listener, place, and host ("example.com"; for WILDCARD without its "*."; else "").

    `local_port` 0 is every port: what Ingress produces.
    """

    local_port: int = 0
    place: Place
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServiceKey:
    """A Service's port as an object refers to it: by number, or by name.  What endpoints and runtime state hang off."""

    namespace: str
    name: str
    port: int | str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}:{self.port}"


@unique
class EndpointFlags(IntFlag):
    """enum atsk_endpoint_flags: an endpoint's conditions, as EndpointSlice defines them."""

    READY = 1
    SERVING = 2
    TERMINATING = 4


READY: Final = EndpointFlags.READY | EndpointFlags.SERVING
DRAINING: Final = EndpointFlags.SERVING | EndpointFlags.TERMINATING


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One routable address.  `addr`: 4 or 16 bytes, network order; `port` 1..65535; `weight` relative, >= 1.

    One that is not READY is draining: it serves who is with it already, and everybody if none is ready.
    """

    addr: bytes
    port: int
    weight: int = 1
    flags: EndpointFlags = READY

    def __post_init__(self) -> None:
        if len(self.addr) not in (4, 16) or not 0 < self.port < 65536 or self.weight < 1:
            raise InvariantError(f"endpoint out of range: {len(self.addr)} address bytes, port {self.port}, weight {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How a Service's endpoints are asked for their health; `port` None: the endpoint's own."""

    path: str
    interval_ms: int = 10_000
    timeout_ms: int = 2_000
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a `ServiceKey` resolves to now: endpoints sorted by (family, addr, port) without duplicates, or a name to resolve.

    `external_name` is set for ExternalName Services (ATS resolves it) and then `external_port` is; `endpoints` is empty.
    """

    key: ServiceKey
    endpoints: tuple[Endpoint, ...] = ()
    external_name: str = ""
    external_port: int = 0
    health_check: HealthCheck | None = None
    max_failures: int | None = None  # in a row, that leave an endpoint out for a while; None: as the options say


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One destination of a rule: a service and its weight among the rule's backends (>= 1)."""

    service: ServiceKey
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One path of one virtual host and where it leads.

    `object` is the key of the object that the rule comes from.  No backend means that the object names nothing that can serve
    (a resource backend, say): such a rule answers 503.  `path` is normalised as plugin_c/table/request.h does, starts with "/",
    and for a PREFIX other than "/" has no trailing slash; `path_as_written` is what the object has.  `policies` are sorted by
    kind, no kind twice; rules of one object share one tuple.
    """

    object: ObjectKey
    kind: PathMatchKind
    path: str
    path_as_written: str
    backends: tuple[Backend, ...]
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualHost:
    """Everything one `HostKey` serves: rules in order of path, unique by (path, kind), and the rule for paths that none matches."""

    key: HostKey
    rules: tuple[Rule, ...] = ()
    default: Rule | None = None

    def services(self) -> frozenset[ServiceKey]:
        """Every service that some rule leads to."""
        rules = self.rules if self.default is None else (*self.rules, self.default)
        return frozenset(backend.service for rule in rules for backend in rule.backends)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """The certificates of one host, in order of preference, named by their Secrets."""

    key: HostKey
    certificates: tuple[ObjectKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A `kubernetes.io/tls` Secret's content, checked: DER certificates in a row, leaf first, and a DER PKCS#8 key."""

    key: ObjectKey
    chain_der: bytes
    key_der: bytes = field(repr=False)
    names: tuple[str, ...]  # subject alternative names, DNS, lower case
    not_after_s: int  # Unix time, seconds


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ObjectRef:
    """An object as verdicts, logs and explain name it."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def ingress_ref(key: ObjectKey) -> ObjectRef:
    """The Ingress `key`."""
    return ObjectRef(kind="Ingress", namespace=key.namespace, name=key.name)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Condition:
    """One thing that is wrong with an object, or with the part that the message names.

    A verdict is the set of an object's conditions: none is "accepted"; `fatal` says that nothing of the object is used.
    """

    object: ObjectRef
    reason: str  # errors.Reason
    message: str
    fatal: bool = False
