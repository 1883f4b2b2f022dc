"""Values of the intermediate representation: virtual hosts, their rules, endpoints."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from atsk8s.api.meta import ObjectKey
from atsk8s.model import ir
from atsk8s.model.precedence import rule_order
from tests.property.strategies.policies import rule_policies
from tests.property.strategies.pools import NAMES, NAMESPACES, PORTS, SERVICE_NAMES

# Segments that are prefixes of each other, an empty one, and bytes on both sides of '/' (0x2f).
SEGMENTS = st.sampled_from(("a", "ab", "abc", "b", "a.b", "a-b", "a0", "A", "%2F", "~", "zzzz"))
object_keys = st.builds(ObjectKey, NAMESPACES, NAMES)
service_keys = st.builds(
    ir.ServiceKey, namespace=NAMESPACES, name=SERVICE_NAMES, port=st.one_of(PORTS, st.sampled_from(("http", "admin")))
)
host_keys = st.one_of(
    st.builds(
        ir.HostKey, place=st.sampled_from((ir.Place.EXACT, ir.Place.WILDCARD)), host=st.sampled_from(("w.example", "example"))
    ),
    st.builds(ir.HostKey, place=st.sampled_from((ir.Place.NO_HOST, ir.Place.FALLBACK))),
)
ir_backends = st.lists(st.builds(ir.Backend, service=service_keys, weight=st.integers(1, 100)), max_size=3).map(tuple)


def _path(segments: list[str], kind: ir.PathMatchKind, is_directory: bool) -> str:
    path = "/" + "/".join(segments)
    return path + "/" if is_directory and segments and kind is ir.PathMatchKind.EXACT else path


def request_paths() -> st.SearchStrategy[str]:
    """Normalised paths of requests."""
    return st.builds(lambda s, d: _path(s, ir.PathMatchKind.EXACT, d), st.lists(SEGMENTS, max_size=5), st.booleans())


@st.composite
def rules(draw: st.DrawFn) -> ir.Rule:
    kind = draw(st.sampled_from(ir.PathMatchKind))
    return ir.Rule(
        object=draw(object_keys),
        kind=kind,
        path=_path(draw(st.lists(SEGMENTS, max_size=4)), kind, draw(st.booleans())),
        path_as_written=draw(st.text(st.characters(exclude_categories=("Cs",)), max_size=6)),
        backends=draw(ir_backends),
        policies=draw(rule_policies),
    )


@st.composite
def vhosts(draw: st.DrawFn) -> ir.VirtualHost:
    found = draw(st.lists(rules(), max_size=12, unique_by=rule_order))
    default = draw(st.none() | rules())
    if default is not None:
        default = replace(default, kind=ir.PathMatchKind.PREFIX, path="/")
    # Rules often have their policies in common, as those of one object do.
    if found and draw(st.booleans()):
        found = [replace(rule, policies=found[0].policies) for rule in found]
    return ir.VirtualHost(key=draw(host_keys), rules=tuple(sorted(found, key=rule_order)), default=default)


ir_endpoints = st.builds(
    ir.Endpoint,
    addr=st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    port=st.integers(1, 65535),
    weight=st.integers(1, 1000),
    flags=st.sampled_from((ir.READY, ir.DRAINING, ir.EndpointFlags.READY, ir.EndpointFlags(7))),
)
