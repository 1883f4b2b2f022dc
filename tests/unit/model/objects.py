"""Short ways to make Kubernetes objects, for unit tests of the model."""

from __future__ import annotations

from dataclasses import dataclass

from atsk8s.api.core import Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint, EndpointPort, EndpointSlice
from atsk8s.api.meta import KubeObject, ObjectMeta
from atsk8s.api.networking import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    IngressTLS,
    ServiceBackendPort,
)
from atsk8s.model.state import Model


@dataclass(frozen=True)
class KindOf:
    """What `Model.put` asks of a kind."""

    name: str


def put(model: Model, *objects: KubeObject) -> None:
    for obj in objects:
        model.put(KindOf(type(obj).__name__), obj.key, obj)


def delete(model: Model, *objects: KubeObject) -> None:
    for obj in objects:
        model.put(KindOf(type(obj).__name__), obj.key, None)


def backend(service: str, port: int = 80) -> IngressBackend:
    return IngressBackend(service=IngressServiceBackend(name=service, port=ServiceBackendPort(number=port)))


def ingress(
    name: str,
    *rules: tuple[str, str, str],
    namespace: str = "shop",
    class_name: str | None = "atsk8s",
    created_s: int = 0,
    default: str = "",
    tls: dict[str, str] | None = None,
) -> Ingress:
    """`rules` are (host, path of a Prefix, service); `tls` is secret name by host."""
    return Ingress(
        metadata=ObjectMeta(name=name, namespace=namespace, created_s=created_s),
        spec=IngressSpec(
            ingress_class_name=class_name,
            default_backend=backend(default) if default else None,
            rules=tuple(
                IngressRule(
                    host=host,
                    http=HTTPIngressRuleValue(paths=(HTTPIngressPath(path=path, path_type="Prefix", backend=backend(service)),)),
                )
                for host, path, service in rules
            ),
            tls=tuple(IngressTLS(hosts=(host,), secret_name=secret) for host, secret in (tls or {}).items()),
        ),
    )


def service(name: str, namespace: str = "shop") -> Service:
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(ports=(ServicePort(port=80, name="http"),)),
    )


def endpoint_slice(of: str, *addresses: str, name: str = "", namespace: str = "shop") -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name=name or f"{of}-1", namespace=namespace, labels={"kubernetes.io/service-name": of}),
        address_type="IPv4",
        endpoints=tuple(Endpoint(addresses=(address,)) for address in addresses),
        ports=(EndpointPort(name="http", port=8080),),
    )
