"""networking.k8s.io/v1: Ingress and IngressClass, as the API has them; what is legal but unusable is the model's to reject."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from atsk8s.api.absent import Filled, Listed, Text, fill, present
from atsk8s.api.meta import KubeObject


class ServiceBackendPort(msgspec.Struct, frozen=True, gc=False):
    """One of name and number."""

    name: Text = ""
    number: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")

    @property
    def ref(self) -> str | int | None:
        """The port's name or its number; None if neither or both are given, which the API forbids."""
        if self.name:
            return self.name if not self.number else None
        return self.number or None


class IngressServiceBackend(msgspec.Struct, frozen=True, gc=False):
    """A Service in the Ingress's own namespace."""

    name: Text = ""
    port: Filled[ServiceBackendPort] = ServiceBackendPort()

    def __post_init__(self) -> None:
        if not self.name:
            fill(self, "name", "")
        fill(self, "port", present(self.port, ServiceBackendPort()))


class TypedLocalObjectReference(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """core/v1 TypedLocalObjectReference: a `resource` backend."""

    api_group: Text = ""
    kind: Text = ""
    name: Text = ""

    def __post_init__(self) -> None:
        for field in ("api_group", "kind", "name"):
            fill(self, field, getattr(self, field) or "")


BackendTarget: TypeAlias = IngressServiceBackend | TypedLocalObjectReference


class IngressBackend(msgspec.Struct, frozen=True, gc=False):
    """A Service or a resource; read `target`, which cannot be mistaken for always being a Service."""

    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None

    @property
    def target(self) -> BackendTarget | None:
        """What it points at; None if nothing or both are given, which the API forbids."""
        if self.service is not None:
            return self.service if self.resource is None else None
        return self.resource


class HTTPIngressPath(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One path of a rule.  `path_type` is any string: what an unknown one costs is the model's to say."""

    path: Text = ""
    path_type: Text = ""
    backend: Filled[IngressBackend] = IngressBackend()

    def __post_init__(self) -> None:
        if not self.path:
            fill(self, "path", "")
        if not self.path_type:
            fill(self, "path_type", "")
        fill(self, "backend", present(self.backend, IngressBackend()))


class HTTPIngressRuleValue(msgspec.Struct, frozen=True, gc=False):
    """`http` of a rule; () if `paths` is null."""

    paths: Listed[HTTPIngressPath] = ()

    def __post_init__(self) -> None:
        if not self.paths:
            fill(self, "paths", ())


class IngressRule(msgspec.Struct, frozen=True, gc=False):
    """`http` None means: all traffic of `host` goes to the default backend.  `host` "" means every host."""

    host: Text = ""
    http: HTTPIngressRuleValue | None = None

    def __post_init__(self) -> None:
        if not self.host:
            fill(self, "host", "")


class IngressTLS(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Hosts () means the rules' hosts; `secret_name` "" means the default certificate."""

    hosts: Listed[str] = ()
    secret_name: Text = ""

    def __post_init__(self) -> None:
        if not self.hosts:
            fill(self, "hosts", ())
        if not self.secret_name:
            fill(self, "secret_name", "")


class IngressSpec(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """IngressSpec, whole."""

    ingress_class_name: str | None = None  # None and "" differ: only an absent class is subject to the default class
    default_backend: IngressBackend | None = None
    rules: Listed[IngressRule] = ()
    tls: Listed[IngressTLS] = ()

    def __post_init__(self) -> None:
        if not self.rules:
            fill(self, "rules", ())
        if not self.tls:
            fill(self, "tls", ())


class Ingress(KubeObject, frozen=True, gc=False):
    """Status is left out: we write it, we do not read it."""

    spec: Filled[IngressSpec] = IngressSpec()

    def __post_init__(self) -> None:
        fill(self, "spec", present(self.spec, IngressSpec()))


class IngressClassSpec(msgspec.Struct, frozen=True, gc=False):
    """Parameters are left out: none are defined for our controller."""

    controller: Text = ""

    def __post_init__(self) -> None:
        if not self.controller:
            fill(self, "controller", "")


IS_DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"


class IngressClass(KubeObject, frozen=True, gc=False):
    """Cluster-scoped."""

    spec: Filled[IngressClassSpec] = IngressClassSpec()

    def __post_init__(self) -> None:
        fill(self, "spec", present(self.spec, IngressClassSpec()))

    @property
    def is_default(self) -> bool:
        """Whether it is the class of Ingresses that name none (the API compares with "true", exactly)."""
        return self.metadata.annotations.get(IS_DEFAULT_CLASS) == "true"
