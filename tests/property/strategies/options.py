"""Options that decide about objects."""

from __future__ import annotations

from hypothesis import strategies as st

from atsk8s.label_selector import parse_label_selector
from atsk8s.settings import Settings, Tenancy
from tests.property.strategies.pools import NAMESPACES, PORTS, SECRET_NAMES, SERVICE_NAMES

_FEW = st.sampled_from((0, 0, 0, 1, 2, 4))
settings = st.builds(
    Settings,
    tenancy=st.sampled_from(Tenancy),
    watch_ingress_without_class=st.booleans(),
    allow_external_names=st.booleans(),
    default_backend=st.none() | st.tuples(NAMESPACES, SERVICE_NAMES, PORTS),
    default_certificate=st.none() | st.tuples(NAMESPACES, SECRET_NAMES),
    ignore_namespaces=st.sampled_from(((), (), (), ("a-b",))),
    namespace_selector=st.sampled_from((None, None, None, parse_label_selector("team!=y,team"))),
    max_hosts_per_namespace=_FEW,
    max_routes_per_namespace=_FEW,
    max_certificates_per_namespace=_FEW,
    zone=st.sampled_from(("", "z")),
    node_name=st.sampled_from(("", "n")),
)
