"""The only source of generated values: small pools of names, so that objects meet, and alphabets that are rich in odd cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

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

T = TypeVar("T")

NAMESPACES = st.sampled_from((*"aaaaaaabbbb", "a-b"))
NAMES = st.sampled_from(("x", "y"))
SERVICE_NAMES = st.sampled_from((*"sssss", "t"))
SECRET_NAMES = st.sampled_from(("c", "d"))
# Mostly good, so that objects meet: a rejected Ingress meets none.
CLASS_NAMES = st.sampled_from((*["atsk8s"] * 7, None, "fast", "nginx"))
NAMED_CLASSES = st.sampled_from(("fast", "nginx"))
_HOT_HOSTS = ("v.w.example", "v.w.example", "u.w.example", "*.w.example")
HOSTS = st.sampled_from(
    (*_HOT_HOSTS * 5, "w.example", "V.w.Example", "", "", "*.example", "w.example", "v.w.example", "not a host")
)
PATHS = st.sampled_from(("", "/", "/p", "/p/", "/p/q", "/p//q", "/P", "/%70", "/p%2fq", "/p/q/r", "relative", "/é"))
PATH_TYPES = st.sampled_from(("Exact", "Prefix", "Prefix", "ImplementationSpecific"))
PORT_NAMES = st.sampled_from(("", "http", "admin"))
PORTS = st.sampled_from((80, 81))
CREATED_S = st.integers(0, 3)


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of several strategies, each so many times as likely; `one_of` takes a strategy that is given twice for one."""
    table = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(range(len(table))).flatmap(table.__getitem__)


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


backend_ports = st.sampled_from(
    (
        ServiceBackendPort(number=80),
        ServiceBackendPort(number=80),
        ServiceBackendPort(name="http"),
        ServiceBackendPort(name="admin"),
    )
)
service_backends = st.builds(IngressBackend, service=st.builds(IngressServiceBackend, name=SERVICE_NAMES, port=backend_ports))
backends = weighted(
    (9, service_backends),
    (1, st.builds(IngressBackend, resource=st.builds(TypedLocalObjectReference, kind=st.just("Bucket"), name=NAMES))),
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
        ingress_class_name=CLASS_NAMES,
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
    NAMED_CLASSES,
    st.sampled_from((CONTROLLER_NAME, "example/other")),
    st.booleans(),
)
_GOOD_PORTS = (ServicePort(port=80, name="http"), ServicePort(port=81, name="admin"))
service_ports = st.builds(ServicePort, port=PORTS, name=PORT_NAMES, protocol=st.sampled_from(("TCP", "TCP", "UDP")))
_EXTERNAL_NAMES = st.sampled_from(("o.example", "127.0.0.1", "10.9.9.9"))
services = st.builds(
    Service,
    metadata=meta(SERVICE_NAMES),
    spec=weighted(
        (3, st.just(ServiceSpec(ports=_GOOD_PORTS))),
        (1, st.builds(ServiceSpec, ports=st.lists(service_ports, max_size=2).map(tuple))),
        (1, st.builds(ServiceSpec, type=st.just("ExternalName"), external_name=_EXTERNAL_NAMES)),
    ),
)
_GOOD_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
slice_endpoints = st.builds(
    SliceEndpoint,
    addresses=st.lists(st.sampled_from((*_GOOD_ADDRESSES * 3, "127.0.0.1", "2001:db8::1", "junk")), min_size=1, max_size=2).map(
        tuple
    ),
    conditions=st.builds(EndpointConditions, ready=st.sampled_from((True, True, False, None))),
)
slice_ports = st.builds(EndpointPort, name=PORT_NAMES, port=st.sampled_from((8080, 8081, None)))
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
    st.sampled_from((*"ssssst", "")),
    address_type=st.sampled_from(("IPv4", "IPv4", "IPv4", "IPv4", "IPv6", "FQDN")),
    endpoints=st.lists(slice_endpoints, max_size=3).map(tuple),
    ports=weighted((2, st.just((EndpointPort(name="http", port=8080),))), (1, st.lists(slice_ports, max_size=2).map(tuple))),
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
    delete = st.builds(Delete, st.just(kind), objects.map(lambda obj: obj.key))
    return weighted((3, st.builds(Put, st.just(kind), objects)), (1, delete))


def _base_cluster() -> list[Step]:
    """What most clusters have: without it, few Ingresses lead to an endpoint."""
    spec = ServiceSpec(ports=_GOOD_PORTS)
    found: list[Step] = []
    for i, namespace in enumerate(("a", "b")):
        found.append(Put("Service", Service(metadata=ObjectMeta(name="s", namespace=namespace), spec=spec)))
        labels = {"kubernetes.io/service-name": "s"}
        pods = EndpointSlice(
            metadata=ObjectMeta(name="x", namespace=namespace, labels=labels),
            address_type="IPv4",
            endpoints=(SliceEndpoint(addresses=(_GOOD_ADDRESSES[i],)),),
            ports=(EndpointPort(name="http", port=8080),),
        )
        found.append(Put("EndpointSlice", pods))
        data = {name: SecretBytes(value) for name, value in pairs()[i].items()}
        meta_ = ObjectMeta(name="c", namespace=namespace)
        found.append(Put("Secret", Secret(metadata=meta_, type="kubernetes.io/tls", data=data)))
    return found


_step = weighted(
    (14, puts("Ingress", ingresses)),
    (2, puts("Service", services)),
    (4, puts("EndpointSlice", endpoint_slices)),
    (2, puts("Secret", secrets)),
    (1, puts("IngressClass", ingress_classes)),
    (8, st.just(Drain(fails=False))),
    (1, st.just(Drain(fails=True))),
)
steps = st.lists(_step, min_size=15, max_size=60).map(lambda drawn: [*_base_cluster(), *drawn])
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

# --- any text in any field ----------------

# No lone surrogates: neither JSON nor YAML can bring one in.
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
any_text = st.one_of(
    _text,
    st.sampled_from(
        (
            "\0",
            "\n",
            "/",
            "//",
            "/..",
            "%",
            "/%00",
            "*",
            "*.",
            "a/b",
            "..",
            "é",
            "\u212a",
            "/\u2028",
            "127.0.0.1",
            "[::1]",
            "-",
            ".",
        )
    ),
    _text.map(lambda text: "/" + text),
    _text.map(lambda text: "*." + text),
    st.builds(
        lambda piece, n: piece * n, st.sampled_from(("a", "/a", "é", "a.", "%41", "/é")), st.sampled_from((64, 254, 1500, 5000))
    ),
)
any_number = st.sampled_from((-1, 0, 1, 80, 65535, 65536, 2**63))
_any_backend = st.builds(
    IngressBackend,
    service=st.none()
    | st.builds(
        IngressServiceBackend,
        name=any_text | SERVICE_NAMES,
        port=st.builds(ServiceBackendPort, name=any_text | st.just(""), number=st.none() | any_number),
    ),
    resource=st.none() | st.builds(TypedLocalObjectReference, kind=any_text, name=any_text),
)
_any_path = st.builds(
    HTTPIngressPath,
    path=any_text,
    path_type=weighted((9, PATH_TYPES), (1, any_text)),
    backend=weighted((1, _any_backend), (1, service_backends)),
)
hostile_ingresses = st.builds(
    Ingress,
    metadata=meta(NAMES),
    spec=st.builds(
        IngressSpec,
        ingress_class_name=st.just("atsk8s"),
        default_backend=st.none() | _any_backend,
        rules=st.lists(
            st.builds(
                IngressRule,
                host=weighted((3, HOSTS), (1, any_text)),
                http=st.builds(HTTPIngressRuleValue, paths=st.lists(_any_path, max_size=4).map(tuple)),
            ),
            max_size=3,
        ).map(tuple),
        tls=st.lists(st.builds(IngressTLS, hosts=st.lists(any_text, max_size=2).map(tuple), secret_name=any_text), max_size=2).map(
            tuple
        ),
    ),
)
hostile_services = st.builds(
    Service,
    metadata=meta(SERVICE_NAMES),
    spec=st.builds(
        ServiceSpec,
        type=st.one_of(st.sampled_from(("ClusterIP", "ExternalName", "ExternalName")), any_text),
        external_name=any_text,
        ports=st.lists(st.builds(ServicePort, port=PORTS, name=any_text, protocol=any_text | st.just("TCP")), max_size=3).map(
            tuple
        ),
    ),
)
hostile_slices = st.builds(
    lambda metadata, **fields: EndpointSlice(
        metadata=ObjectMeta(name="x", namespace=metadata.namespace, labels={"kubernetes.io/service-name": "s"}), **fields
    ),
    meta(NAMES),
    address_type=st.one_of(st.sampled_from(("IPv4", "IPv6")), any_text),
    endpoints=st.lists(st.builds(SliceEndpoint, addresses=st.lists(any_text, max_size=2).map(tuple)), max_size=6).map(tuple),
    ports=st.lists(
        st.builds(EndpointPort, name=any_text | st.just(""), port=st.just(8080), protocol=any_text | st.just("TCP")), max_size=2
    ).map(tuple),
)
hostile_secrets = st.builds(
    lambda metadata, secret_type, crt, key: Secret(
        metadata=metadata, type=secret_type, data={"tls.crt": SecretBytes(crt), "tls.key": SecretBytes(key)}
    ),
    meta(SECRET_NAMES),
    weighted((4, st.just("kubernetes.io/tls")), (1, any_text)),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
hostile_objects = st.one_of(
    st.builds(Put, st.just("Ingress"), hostile_ingresses),
    st.builds(Put, st.just("Service"), hostile_services),
    st.builds(Put, st.just("EndpointSlice"), hostile_slices),
    st.builds(Put, st.just("Secret"), hostile_secrets),
)

settings = st.builds(
    Settings,
    tenancy=st.sampled_from(Tenancy),
    watch_ingress_without_class=st.booleans(),
    allow_external_names=st.booleans(),
    default_backend=st.none() | st.tuples(NAMESPACES, SERVICE_NAMES, PORTS),
    default_certificate=st.none() | st.tuples(NAMESPACES, SECRET_NAMES),
    ignore_namespaces=st.sampled_from(((), (), (), ("a-b",))),
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
