"""What teams that share a proxy want of it, and what its administrator grants them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from atsk8s.api.meta import ObjectMeta
from atsk8s.api.networking import (
    HTTPIngressRuleValue,
    Ingress,
    IngressRule,
    IngressSpec,
    IngressTLS,
)
from atsk8s.model.annotations import OURS
from atsk8s.model.grants import Grant
from tests.property.strategies.objects import backends, endpoint_slices, ingress_annotations, ingress_paths, services
from tests.property.strategies.pools import NAMES, NO_ANNOTATIONS, SECRET_NAMES, weighted
from tests.property.strategies.steps import Drain, Step, base_cluster, puts, step

# What the administrator may grant: hosts of ours to us, others to others, and never all to anybody but us.
OURS_GRANTABLE = ("w.example", "*.w.example", "*w.example", "v.w.example")
_THEIRS_GRANTABLE = ("h.example", "*.h.example", "*h.example", "v.h.example")
_TENANT_HOSTS = st.sampled_from(
    ("v.w.example", "u.w.example", "*.w.example", "w.example", "v.h.example", "*.h.example", "*.example", "a.v.w.example", "")
)
_tenant_rules = st.builds(
    IngressRule,
    host=_TENANT_HOSTS,
    http=st.none() | st.builds(HTTPIngressRuleValue, paths=st.lists(ingress_paths, max_size=3).map(tuple)),
)
_tenant_annotations = weighted(
    (2, NO_ANNOTATIONS),
    (1, st.just({OURS + "affinity": "cookie", OURS + "session-cookie-domain": "w.example"})),
    (1, ingress_annotations),
)


def tenant_ingresses(tenants: tuple[str, ...], oldest_s: int, youngest_s: int) -> st.SearchStrategy[Ingress]:
    """Ingresses of some namespaces, made between two moments, on hosts that all want."""
    return st.builds(
        Ingress,
        metadata=st.builds(
            ObjectMeta,
            name=NAMES,
            namespace=st.sampled_from(tenants),
            created_s=st.integers(oldest_s, youngest_s),
            annotations=_tenant_annotations,
        ),
        spec=st.builds(
            IngressSpec,
            ingress_class_name=st.just("atsk8s"),
            default_backend=st.none() | backends,
            rules=st.lists(_tenant_rules, max_size=3).map(tuple),
            tls=st.lists(
                st.builds(IngressTLS, hosts=st.lists(_TENANT_HOSTS, max_size=2).map(tuple), secret_name=SECRET_NAMES), max_size=2
            ).map(tuple),
        ),
    )


def tenant_steps(tenants: tuple[str, ...], oldest_s: int, youngest_s: int) -> st.SearchStrategy[list[Step]]:
    """What tenants do."""
    done = weighted(
        (6, puts("Ingress", tenant_ingresses(tenants, oldest_s, youngest_s))),
        (1, puts("Service", services)),
        (1, puts("EndpointSlice", endpoint_slices)),
        (2, st.just(Drain(fails=False))),
    )
    return st.lists(done, min_size=4, max_size=16)


def grants_for(tenant: str, others: tuple[str, ...]) -> st.SearchStrategy[tuple[Grant, ...]]:
    """Lists that grant `tenant` hosts that nobody else is granted."""
    own = st.builds(lambda domain: Grant(domain=domain, namespaces=(tenant,)), st.sampled_from(OURS_GRANTABLE))
    other = st.builds(
        lambda domain, names: Grant(domain=domain, namespaces=tuple(names)),
        st.sampled_from(_THEIRS_GRANTABLE),
        st.lists(st.sampled_from(others), min_size=1, max_size=2),
    )
    return st.lists(own | other, min_size=1, max_size=5).map(tuple)


grants = st.none() | st.lists(
    st.builds(
        lambda domain, names: Grant(domain=domain, namespaces=tuple(names)),
        st.sampled_from(("*", "w.example", "*.w.example", "*w.example", "v.w.example", "*.example")),
        st.lists(st.sampled_from(("a", "b", "a-b", "*")), min_size=1, max_size=2),
    ),
    max_size=4,
).map(tuple)


@dataclass(frozen=True, slots=True)
class Regrant:
    """The administrator changes the list."""

    grants: tuple[Grant, ...] | None


regrants = st.builds(Regrant, grants)
granted_steps = st.lists(weighted((9, step), (2, regrants)), min_size=15, max_size=50).map(lambda d: [*base_cluster(), *d])
