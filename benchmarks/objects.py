"""Kubernetes objects to load the product with: as the API takes them, or as a directory of manifests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]

NAMESPACE = "bench"
CLASS = "atsk8s"
_FILE_BYTES = 4 * 1024 * 1024  # half of what the product takes of one file


def host(i: int) -> str:
    """Return the name of host `i`."""
    return f"h{i}.bench.example"


def ingress(
    name: str, hosts: Sequence[str], service: str, *, secret: str = "", namespace: str = NAMESPACE, ingress_class: str = CLASS
) -> Object:
    """Return an Ingress: path / of each host to the port 80 of `service`; TLS by `secret` if there is one; "" is no class."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}
    spec: Object = {"rules": [{"host": host_name, "http": {"paths": [path]}} for host_name in hosts]}
    if ingress_class:
        spec["ingressClassName"] = ingress_class
    if secret:
        spec["tls"] = [{"hosts": list(hosts), "secretName": secret}]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def service(name: str, *, namespace: str = NAMESPACE, headless: bool = False) -> Object:
    """Return a Service as most are, with a selector; nobody acts on that here: its endpoints are what `endpoint_slice` says.

    A headless one has no address for the API server to find: it takes thousands of those in a second, of others tens.
    """
    spec: Object = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def endpoint_slice(name: str, addresses: Iterable[str], port: int, *, namespace: str = NAMESPACE) -> Object:
    """Return the one EndpointSlice, ready at `addresses`, of the Service of the same name."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


def tls_secret(name: str, certificate: bytes, key: bytes, *, namespace: str = NAMESPACE) -> Object:
    """Return a Secret of type kubernetes.io/tls from PEM."""
    data = {"tls.crt": certificate.decode(), "tls.key": key.decode()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "stringData": data}


def write_manifests(directory: Path, objects: Iterable[Object]) -> None:
    """Write `objects` into files of `directory`, which is made and which Traffic Server's user can read.

    As Lists in JSON: a hundred thousand documents of YAML take minutes to parse, and that is not what is measured.
    """
    directory.mkdir(mode=0o755, parents=True)
    directory.chmod(0o755)
    pending: list[str] = []
    size = n_files = 0

    def flush() -> None:
        nonlocal size, n_files
        path = directory / f"{n_files:05d}.json"
        path.write_text('{"apiVersion": "v1", "kind": "List", "items": [\n' + ",\n".join(pending) + "]}\n", encoding="utf-8")
        path.chmod(0o644)
        pending.clear()
        size, n_files = 0, n_files + 1

    for obj in objects:
        document = json.dumps(obj)
        if size + len(document) > _FILE_BYTES:
            flush()
        pending.append(document)
        size += len(document) + 2
    if pending:
        flush()
