"""core/v1: Service, Secret, ConfigMap and Namespace."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import msgspec

from atsk8s.api.absent import Filled, Listed, Text, Texts, fill, present
from atsk8s.api.meta import KubeObject

PortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]

TLS_SECRET_TYPE = "kubernetes.io/tls"
TLS_CERT = "tls.crt"  # PEM chain, leaf first
TLS_KEY = "tls.key"  # PEM, not encrypted
TLS_CA = "ca.crt"  # PEM; not part of the type, by convention the client's CA
_KEPT_DATA = (TLS_CERT, TLS_KEY, TLS_CA)


_NO_TEXTS: dict[str, str] = {}
_SOME_TEXTS: dict[str, str] = {"": ""}


class ServicePort(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """`name` may be "" in a Service with one port; an EndpointSlice repeats it and has the port on the pods."""

    port: PortNumber
    name: Text = ""
    target_port: int | str | None = None  # number, or name of a container port; None: the same as `port`
    protocol: Text = "TCP"
    app_protocol: Text = ""

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")
        if not self.protocol:
            fill(self, "protocol", "TCP")
        if not self.app_protocol:
            fill(self, "app_protocol", "")


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """ServiceSpec without what concerns node ports, load balancers and session affinity."""

    type: Text = "ClusterIP"
    external_name: Text = ""
    cluster_ip: Text = msgspec.field(name="clusterIP", default="")  # "None": headless
    cluster_ips: Listed[str] = msgspec.field(name="clusterIPs", default=())
    ports: Listed[ServicePort] = ()
    publish_not_ready_addresses: bool | None = False
    selector: Texts = msgspec.field(default_factory=lambda: _NO_TEXTS)  # which labels it asks for is not kept, only whether any

    def __post_init__(self) -> None:
        fill(self, "selector", _SOME_TEXTS if self.selector else _NO_TEXTS)
        if not self.type:
            fill(self, "type", "ClusterIP")
        if not self.external_name:
            fill(self, "external_name", "")
        if not self.cluster_ip:
            fill(self, "cluster_ip", "")
        if not self.cluster_ips:
            fill(self, "cluster_ips", ())
        if not self.ports:
            fill(self, "ports", ())
        if not self.publish_not_ready_addresses:
            fill(self, "publish_not_ready_addresses", False)


class Service(KubeObject, frozen=True, gc=False):
    """What an Ingress backend names; its endpoints are in EndpointSlices."""

    spec: Filled[ServiceSpec] = ServiceSpec()

    def __post_init__(self) -> None:
        fill(self, "spec", present(self.spec, ServiceSpec()))


class SecretBytes:
    """Bytes that no `repr`, `str`, format, pickle or log line shows.  Read them with `reveal`, as late as possible."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves: do not log them, raise with them, or keep them longer than needed."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretBytes) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)  # salted per process (PYTHONHASHSEED); never leaves it

    def __repr__(self) -> str:
        return f"SecretBytes(redacted, {len(self._value)} bytes)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


if TYPE_CHECKING:
    SecretData: TypeAlias = Mapping[str, SecretBytes]
else:
    SecretData = dict[str, bytes] | None  # base64 in JSON; wrapped by __post_init__

_NO_DATA: Mapping[str, SecretBytes] = {}


def _wrap(value: SecretBytes | bytes) -> SecretBytes:
    return SecretBytes(value) if isinstance(value, bytes) else value


class Secret(KubeObject, frozen=True, gc=False):
    """Of `data` only the entries that TLS uses are kept; the others are forgotten as they are decoded."""

    type: Text = ""
    data: SecretData = msgspec.field(default_factory=lambda: _NO_DATA)

    def __post_init__(self) -> None:
        if not self.type:
            fill(self, "type", "")
        kept = {name: _wrap(self.data[name]) for name in _KEPT_DATA if name in self.data} if self.data else None
        fill(self, "data", kept or _NO_DATA)

    def __repr__(self) -> str:  # msgspec's own would print fields added later
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, type={self.type!r}, data={dict(self.data)!r})"


class ConfigMap(KubeObject, frozen=True, gc=False):
    """Settings of the whole proxy; `binaryData` is not read."""

    data: Texts = msgspec.field(default_factory=lambda: _NO_TEXTS)

    def __post_init__(self) -> None:
        if not self.data:
            fill(self, "data", _NO_TEXTS)


class Namespace(KubeObject, frozen=True, gc=False):
    """Cluster-scoped; only its labels and annotations are read."""
