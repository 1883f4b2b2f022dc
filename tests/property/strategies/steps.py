"""What happens to a cluster, one step after another."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from atsk8s.api.core import Namespace, Secret, SecretBytes, Service, ServiceSpec
from atsk8s.api.discovery import Endpoint as SliceEndpoint
from atsk8s.api.discovery import EndpointPort, EndpointSlice
from atsk8s.api.meta import KubeObject, ObjectKey, ObjectMeta
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
from tests.property.pairs import pairs
from tests.property.strategies.objects import (
    GOOD_ADDRESSES,
    GOOD_PORTS,
    endpoint_slices,
    ingress_classes,
    ingresses,
    namespaces,
    secrets,
    services,
)
from tests.property.strategies.pools import CREATED_S, NAMES, weighted


@dataclass(frozen=True, slots=True)
class KindOf:
    """What `Model.put` asks of a kind."""

    name: str


@dataclass(frozen=True, slots=True)
class Put:
    """An object as it is now."""

    kind: str
    obj: KubeObject


@dataclass(frozen=True, slots=True)
class Delete:
    """An object is gone, or was never there."""

    kind: str
    key: ObjectKey


@dataclass(frozen=True, slots=True)
class Drain:
    """The controller goes round; `fails`: its commit does, and it loads everything anew."""

    fails: bool


Step = Put | Delete | Drain


def puts(kind: str, objects: st.SearchStrategy[KubeObject]) -> st.SearchStrategy[Step]:
    delete = st.builds(Delete, st.just(kind), objects.map(lambda obj: obj.key))
    return weighted((3, st.builds(Put, st.just(kind), objects)), (1, delete))


def base_cluster() -> list[Step]:
    """What most clusters have: without it, few Ingresses lead to an endpoint."""
    spec = ServiceSpec(ports=GOOD_PORTS)
    found: list[Step] = []
    for i, namespace in enumerate(("a", "b")):
        found.append(Put("Service", Service(metadata=ObjectMeta(name="s", namespace=namespace), spec=spec)))
        labels = {"kubernetes.io/service-name": "s"}
        pods = EndpointSlice(
            metadata=ObjectMeta(name="x", namespace=namespace, labels=labels),
            address_type="IPv4",
            endpoints=(SliceEndpoint(addresses=(GOOD_ADDRESSES[i],)),),
            ports=(EndpointPort(name="http", port=8080),),
        )
        found.append(Put("EndpointSlice", pods))
        data = {name: SecretBytes(value) for name, value in pairs()[i].items()}
        meta_ = ObjectMeta(name="c", namespace=namespace)
        found.append(Put("Secret", Secret(metadata=meta_, type="kubernetes.io/tls", data=data)))
        found.append(Put("Namespace", Namespace(metadata=ObjectMeta(name=namespace, labels={"team": "x"}))))
    return found


step = weighted(
    (14, puts("Ingress", ingresses)),
    (2, puts("Service", services)),
    (4, puts("EndpointSlice", endpoint_slices)),
    (2, puts("Secret", secrets)),
    (1, puts("IngressClass", ingress_classes)),
    (1, puts("Namespace", namespaces)),
    (8, st.just(Drain(fails=False))),
    (1, st.just(Drain(fails=True))),
)
steps = st.lists(step, min_size=15, max_size=60).map(lambda drawn: [*base_cluster(), *drawn])
# Ingresses of three namespaces that want little but the same three hosts: routes, certificates, or both.
_contested = st.sampled_from(("v.w.example", "u.w.example", "*.w.example"))


def _contender(name: str, namespace: str, created_s: int, route: str | None, tls: str | None) -> Ingress:
    path = HTTPIngressPath(path="/p", path_type="Prefix", backend=_TO_S)
    rule = IngressRule(host=route or "elsewhere.example", http=HTTPIngressRuleValue(paths=(path,)))
    return Ingress(
        metadata=ObjectMeta(name=name, namespace=namespace, created_s=created_s),
        spec=IngressSpec(
            ingress_class_name="atsk8s", rules=(rule,), tls=(IngressTLS(hosts=(tls,), secret_name="c"),) if tls else ()
        ),
    )


_TO_S = IngressBackend(service=IngressServiceBackend(name="s", port=ServiceBackendPort(number=80)))
contenders = st.builds(
    _contender, NAMES, st.sampled_from(("a", "b", "c")), CREATED_S, st.none() | _contested, st.none() | _contested
)
contests = st.lists(weighted((3, puts("Ingress", contenders)), (2, st.just(Drain(fails=False)))), min_size=8, max_size=40)
