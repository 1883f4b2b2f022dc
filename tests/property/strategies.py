"""The only source of generated values: small pools of names, so that objects meet, and alphabets that are rich in odd cases."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from atsk8s.api.core import Secret, SecretBytes, Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint as SliceEndpoint
from atsk8s.api.discovery import EndpointConditions, EndpointPort, EndpointSlice
from atsk8s.api.meta import KubeObject, ObjectKey, ObjectMeta
from atsk8s.api.networking import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassSpec,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    IngressTLS,
    ServiceBackendPort,
    TypedLocalObjectReference,
)
from atsk8s.config import CONTROLLER_NAME, Settings, Tenancy
from atsk8s.model import ir
from atsk8s.model.precedence import rule_order
from tests.property.pairs import pairs

NAMESPACES = st.sampled_from(("a", "a-b", "b"))
NAMES = st.sampled_from(("x", "y", "z"))
SERVICE_NAMES = st.sampled_from(("s", "t"))
SECRET_NAMES = st.sampled_from(("c", "d"))
CLASS_NAMES = st.sampled_from(("atsk8s", "fast", "nginx"))
HOSTS = st.sampled_from(("", "w.example", "v.w.example", "u.w.example", "V.w.Example", "*.w.example", "*.example", "not a host"))
PATHS = st.sampled_from(("", "/", "/p", "/p/", "/p/q", "/p//q", "/P", "/%70", "/p%2fq", "/p/q/r", "relative", "/é"))
PATH_TYPES = st.sampled_from(("Exact", "Prefix", "Prefix", "ImplementationSpecific"))
PORT_NAMES = st.sampled_from(("", "http", "admin"))
PORTS = st.sampled_from((80, 81))
CREATED_S = st.integers(0, 3)


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


def meta(names: st.SearchStrategy[str], namespaces: st.SearchStrategy[str] = NAMESPACES) -> st.SearchStrategy[ObjectMeta]:
    return st.builds(ObjectMeta, name=names, namespace=namespaces, created_s=CREATED_S)


backend_ports = st.one_of(
    st.builds(ServiceBackendPort, number=PORTS), st.builds(ServiceBackendPort, name=st.sampled_from(("http", "admin")))
)
service_backends = st.builds(IngressBackend, service=st.builds(IngressServiceBackend, name=SERVICE_NAMES, port=backend_ports))
backends = st.one_of(
    service_backends,
    service_backends,
    service_backends,
    st.builds(IngressBackend, resource=st.builds(TypedLocalObjectReference, kind=st.just("Bucket"), name=NAMES)),
)
ingress_paths = st.builds(HTTPIngressPath, path=PATHS, path_type=PATH_TYPES, backend=backends)
ingress_rules = st.builds(
    IngressRule,
    host=HOSTS,
    http=st.none() | st.builds(HTTPIngressRuleValue, paths=st.lists(ingress_paths, max_size=3).map(tuple)),
)
ingress_tls = st.builds(IngressTLS, hosts=st.lists(HOSTS, max_size=2).map(tuple), secret_name=SECRET_NAMES)
ingresses = st.builds(
    Ingress,
    metadata=meta(NAMES),
    spec=st.builds(
        IngressSpec,
        ingress_class_name=st.none() | CLASS_NAMES,
        default_backend=st.none() | backends,
        rules=st.lists(ingress_rules, max_size=3).map(tuple),
        tls=st.lists(ingress_tls, max_size=2).map(tuple),
    ),
)
ingress_classes = st.builds(
    lambda name, controller, is_default: IngressClass(
        metadata=ObjectMeta(name=name, annotations={"ingressclass.kubernetes.io/is-default-class": "true"} if is_default else {}),
        spec=IngressClassSpec(controller=controller),
    ),
    CLASS_NAMES,
    st.sampled_from((CONTROLLER_NAME, "example/other")),
    st.booleans(),
)
services = st.builds(
    Service,
    metadata=meta(SERVICE_NAMES),
    spec=st.one_of(
        st.builds(
            ServiceSpec,
            ports=st.lists(
                st.builds(ServicePort, port=PORTS, name=PORT_NAMES, protocol=st.sampled_from(("TCP", "TCP", "UDP"))), max_size=2
            ).map(tuple),
            has_selector=st.booleans(),
        ),
        st.builds(ServiceSpec, type=st.just("ExternalName"), external_name=st.sampled_from(("o.example", "127.0.0.1", "10.9.9.9"))),
    ),
)
slice_endpoints = st.builds(
    SliceEndpoint,
    addresses=st.lists(st.sampled_from(("10.0.0.1", "10.0.0.2", "127.0.0.1", "2001:db8::1", "junk")), max_size=2).map(tuple),
    conditions=st.builds(EndpointConditions, ready=st.sampled_from((True, True, False, None))),
)
endpoint_slices = st.builds(
    lambda metadata, service, **fields: EndpointSlice(
        metadata=ObjectMeta(
            name=metadata.name,
            namespace=metadata.namespace,
            labels={"kubernetes.io/service-name": service} if service else {},
        ),
        **fields,
    ),
    meta(NAMES),
    st.one_of(SERVICE_NAMES, st.just("")),
    address_type=st.sampled_from(("IPv4", "IPv4", "IPv6", "FQDN")),
    endpoints=st.lists(slice_endpoints, max_size=3).map(tuple),
    ports=st.lists(st.builds(EndpointPort, name=PORT_NAMES, port=st.sampled_from((8080, 8081, None))), max_size=2).map(tuple),
)
secrets = st.builds(
    lambda metadata, secret_type, pair: Secret(
        metadata=metadata, type=secret_type, data={name: SecretBytes(value) for name, value in pair.items()}
    ),
    meta(SECRET_NAMES),
    st.sampled_from(("kubernetes.io/tls", "kubernetes.io/tls", "kubernetes.io/tls", "Opaque")),
    st.deferred(lambda: st.sampled_from(pairs())),
)


def puts(kind: str, objects: st.SearchStrategy[KubeObject]) -> st.SearchStrategy[Step]:
    put = st.builds(Put, st.just(kind), objects)
    return st.one_of(put, put, st.builds(Delete, st.just(kind), objects.map(lambda obj: obj.key)))


steps = st.lists(
    st.one_of(
        puts("Ingress", ingresses),
        puts("Ingress", ingresses),
        puts("IngressClass", ingress_classes),
        puts("Service", services),
        puts("EndpointSlice", endpoint_slices),
        puts("Secret", secrets),
        st.builds(Drain, fails=st.sampled_from((False, False, False, True))),
    ),
    max_size=40,
)
settings = st.builds(
    Settings,
    tenancy=st.sampled_from(Tenancy),
    watch_ingress_without_class=st.booleans(),
    allow_external_names=st.booleans(),
    default_backend=st.none() | st.tuples(NAMESPACES, SERVICE_NAMES, PORTS),
    default_certificate=st.none() | st.tuples(NAMESPACES, SECRET_NAMES),
    ignore_namespaces=st.sampled_from(((), ("b",))),
)

# --- the intermediate representation ----------------

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
    )


@st.composite
def vhosts(draw: st.DrawFn) -> ir.VirtualHost:
    found = draw(st.lists(rules(), max_size=12, unique_by=rule_order))
    default = draw(st.none() | rules())
    if default is not None:
        default = ir.Rule(
            object=default.object,
            kind=ir.PathMatchKind.PREFIX,
            path="/",
            path_as_written=default.path_as_written,
            backends=default.backends,
        )
    return ir.VirtualHost(key=draw(host_keys), rules=tuple(sorted(found, key=rule_order)), default=default)


ir_endpoints = st.builds(
    ir.Endpoint,
    addr=st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    port=st.integers(1, 65535),
    weight=st.integers(1, 1000),
)

# --- bytes of requests ----------------

# Pieces rather than bytes: random bytes are malformed nearly always.
_PATH_PIECES = (
    b"/", b"/", b"//", b".", b"..", b"a", b"bc", b"%2e", b"%2E", b"%2e%2e", b"%2f", b"%2F", b"%5c", b"%7E", b"%41", b"%c3%A9",
    b"~", b"%", b"%0", b"%00", b"%zz", b"\x00", b" ", b"\x7f", b"\xc3\xa9", b"\\", b";x=1", b"%25", b"%20",
)  # fmt: skip
raw_paths = st.one_of(
    st.lists(st.sampled_from(_PATH_PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces)),
    st.lists(st.sampled_from(_PATH_PIECES[:18]), max_size=12).map(lambda pieces: b"/" + b"".join(pieces)),
    st.binary(max_size=12),
    st.builds(lambda n, piece: (b"/" + piece) * n, st.integers(8180 // 3, 8200), st.sampled_from((b"", b"ab", b"."))),
)
_HOST_PIECES = (
    b"a", b"Example", b".",
    b"..", b"-", b"_", b":", b":80", b":65535", b":65536", b":080", b"[", b"]", b"::1", b"[::1]", b"[FE80::1]",
    b"1.2.3.4", b"@", b" ", b"\x00", b"x" * 62, b"y" * 63, b"z" * 64, b"%2e", b"\xc3", b"*",
)  # fmt: skip
raw_authorities = st.one_of(st.lists(st.sampled_from(_HOST_PIECES), max_size=8).map(b"".join), st.binary(max_size=8))
