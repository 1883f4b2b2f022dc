"""Kubernetes objects for tests, as plain JSON values: just the fields that matter, with the usual answers for the rest."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

Json = dict[str, object]

NAMESPACE = "test"
ANNOTATION_PREFIX = "ats.ingress.kubernetes.io"


def metadata(name: str, namespace: str | None = NAMESPACE, *, labels: Mapping[str, str] | None = None) -> Json:
    """Return ObjectMeta."""
    made: Json = {"name": name}
    if namespace is not None:
        made["namespace"] = namespace
    if labels:
        made["labels"] = dict(labels)
    return made


def path(backend: str, at: str = "/", kind: str = "Prefix", *, port: int | str = 80) -> Json:
    """Return an HTTPIngressPath to a Service's port, by number or name."""
    by = {"number": port} if isinstance(port, int) else {"name": port}
    return {"path": at, "pathType": kind, "backend": {"service": {"name": backend, "port": by}}}


def ingress(
    name: str,
    rules: Mapping[str, Sequence[Json]],
    *,
    namespace: str = NAMESPACE,
    tls: Mapping[str, Sequence[str]] | None = None,
    default_backend: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Return an Ingress of our class.

    Args:
        name: metadata.name.
        rules: host ("" for a rule without one) -> paths.
        namespace: metadata.namespace.
        tls: Secret name -> hosts.
        default_backend: a Service, port 80.
        annotations: metadata.annotations; a name without a prefix is ours.
    """
    spec: Json = {"ingressClassName": "atsk8s"}
    spec["rules"] = [{**({"host": host} if host else {}), "http": {"paths": list(paths)}} for host, paths in rules.items()]
    if tls:
        spec["tls"] = [{"secretName": secret, "hosts": list(hosts)} for secret, hosts in tls.items()]
    if default_backend:
        spec["defaultBackend"] = {"service": {"name": default_backend, "port": {"number": 80}}}
    about = metadata(name, namespace)
    if annotations:
        about["annotations"] = {key if "/" in key else f"{ANNOTATION_PREFIX}/{key}": value for key, value in annotations.items()}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": about, "spec": spec}


def service(name: str, *, namespace: str = NAMESPACE, external_name: str | None = None, port: int = 80) -> Json:
    """Return a Service with one port, named "http"; or one of type ExternalName."""
    spec: Json = {"ports": [{"name": "http", "port": port, "targetPort": "http"}]}
    if external_name:
        spec |= {"type": "ExternalName", "externalName": external_name}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, namespace), "spec": spec}


def endpoint_slice(
    service_name: str, addresses: Iterable[str], *, port: int = 8080, namespace: str = NAMESPACE, name: str | None = None
) -> Json:
    """Return an EndpointSlice of ready endpoints; all addresses of one family."""
    listed = list(addresses)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(name or f"{service_name}-1", namespace, labels={"kubernetes.io/service-name": service_name}),
        "addressType": "IPv6" if any(":" in one for one in listed) else "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [one], "conditions": {"ready": True}} for one in listed],
    }


def app(name: str, addresses: Iterable[str], *, port: int = 8080, namespace: str = NAMESPACE) -> list[Json]:
    """Return a Service and its endpoints."""
    return [service(name, namespace=namespace), endpoint_slice(name, addresses, port=port, namespace=namespace)]


def tls_secret(name: str, certificate_pem: bytes, key_pem: bytes, *, namespace: str = NAMESPACE) -> Json:
    """Return a Secret of type kubernetes.io/tls."""
    data = {"tls.crt": base64.b64encode(certificate_pem).decode(), "tls.key": base64.b64encode(key_pem).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name, namespace), "type": "kubernetes.io/tls", "data": data}
