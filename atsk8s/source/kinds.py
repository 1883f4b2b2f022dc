"""The kinds that are watched: one table, which the sources and their tests read, and deploy/rbac is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias

from atsk8s.api.core import TLS_SECRET_TYPE, ConfigMap, Namespace, Secret, Service
from atsk8s.api.discovery import MANAGED_BY_LABEL, SERVICE_NAME_LABEL, EndpointSlice
from atsk8s.api.meta import K
from atsk8s.api.networking import Ingress, IngressClass

# The ancestors' and the compatibility profile's annotations; kubernetes.io/ for ingress.class.
INGRESS_ANNOTATIONS = (
    "ingress.kubernetes.io/",
    "ats.ingress.kubernetes.io/",
    "nginx.ingress.kubernetes.io/",
    "kubernetes.io/ingress",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind(Generic[K]):
    """One kind of the API.  Compared by identity: each kind exists once, below."""

    name: str  # the object's `kind`
    api_version: str  # the object's `apiVersion`
    plural: str  # in paths and RBAC rules
    item: type[K]
    namespaced: bool = True
    # Read only in the controller's own namespaces, whichever ones the others are read in: settings of the proxy, not of a tenant.
    is_own: bool = False
    # Nothing is published before every mandatory kind has synced.  Of another kind, a refusal costs what depends on it.
    mandatory: bool = False
    # A custom resource: 404 says that its definition, and with it every object, is gone.  For a built-in kind 404 says nothing
    # of the sort (a broken proxy), and what was known stays.
    removable: bool = False
    selector: Mapping[str, str] = field(
        default_factory=dict
    )  # fieldSelector or labelSelector; also keeps files to the same objects
    annotation_prefixes: tuple[str, ...] = ()
    label_names: tuple[str, ...] | None = ()  # None: all
    # A watch ends by itself after a random time of this range [s].  It bounds how long a connection that died without a sign goes
    # unnoticed, so it is short for what must not be stale; random, so that a fleet does not reconnect in step.
    watch_s: tuple[int, int] = (240, 300)

    def path(self, namespace: str = "") -> str:
        """Of the collection; `namespace` "" means all of them, and is the only legal value for a cluster-scoped kind."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def without(self, namespaces: Iterable[str]) -> Kind[K]:
        """The same objects but those of some namespaces.

        Every namespaced kind can be selected by the field metadata.namespace (apiserver, pkg/registry/generic).
        """
        fields = [f"metadata.namespace!={namespace}" for namespace in sorted(namespaces)]
        if not fields:
            return self
        own = self.selector.get("fieldSelector")
        return replace(self, selector={**self.selector, "fieldSelector": ",".join([own, *fields] if own else fields)})

    def __repr__(self) -> str:
        return f"Kind({self.name})"


INGRESS = Kind(
    name="Ingress",
    api_version="networking.k8s.io/v1",
    plural="ingresses",
    item=Ingress,
    mandatory=True,
    annotation_prefixes=INGRESS_ANNOTATIONS,
)
INGRESS_CLASS = Kind(
    name="IngressClass",
    api_version="networking.k8s.io/v1",
    plural="ingressclasses",
    item=IngressClass,
    namespaced=False,
    annotation_prefixes=("ingressclass.kubernetes.io/",),
)
SERVICE = Kind(
    name="Service",
    api_version="v1",
    plural="services",
    item=Service,
    mandatory=True,
    annotation_prefixes=("ats.ingress.kubernetes.io/",),
)
ENDPOINT_SLICE = Kind(
    name="EndpointSlice",
    api_version="discovery.k8s.io/v1",
    plural="endpointslices",
    item=EndpointSlice,
    mandatory=True,
    label_names=(SERVICE_NAME_LABEL, MANAGED_BY_LABEL),
    watch_s=(50, 70),
)
SECRET = Kind(
    name="Secret",
    api_version="v1",
    plural="secrets",
    item=Secret,
    selector={"fieldSelector": f"type={TLS_SECRET_TYPE}"},  # the server filters: no other Secret ever reaches this process
)
NAMESPACE = Kind(
    name="Namespace",
    api_version="v1",
    plural="namespaces",
    item=Namespace,
    namespaced=False,
    annotation_prefixes=("ats.ingress.kubernetes.io/", "ingress.kubernetes.io/"),
    label_names=None,
)
CONFIG_MAP = Kind(
    name="ConfigMap",
    api_version="v1",
    plural="configmaps",
    item=ConfigMap,
    is_own=True,
    annotation_prefixes=("ats-configmap",),
)

AnyKind: TypeAlias = Kind[Any]
KINDS: tuple[AnyKind, ...] = (INGRESS, SERVICE, ENDPOINT_SLICE, INGRESS_CLASS, SECRET, NAMESPACE, CONFIG_MAP)
