"""The only source of generated values: small pools of names, so that objects meet, and alphabets that are rich in odd cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from ipaddress import IPv4Network, IPv6Network
from operator import or_
from typing import TypeVar

from hypothesis import strategies as st

from atsk8s.api.core import Namespace, Secret, SecretBytes, Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint as SliceEndpoint
from atsk8s.api.discovery import EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone
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
from atsk8s.label_selector import parse_label_selector
from atsk8s.model import ir, policies
from atsk8s.model.annotations import ANNOTATIONS, OURS, Scope
from atsk8s.model.grants import Grant
from atsk8s.model.precedence import rule_order
from atsk8s.values import TIMEOUT_MS_MAX, TRIES_MAX
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


_NO_ANNOTATIONS: st.SearchStrategy[dict[str, str]] = st.just({})


def meta(
    names: st.SearchStrategy[str],
    namespaces: st.SearchStrategy[str] = NAMESPACES,
    annotations: st.SearchStrategy[dict[str, str]] = _NO_ANNOTATIONS,
) -> st.SearchStrategy[ObjectMeta]:
    return st.builds(ObjectMeta, name=names, namespace=namespaces, created_s=CREATED_S, annotations=annotations)


# Good ones mostly, a few that are none, and one that splits what leads to the Services "s" and "t".
_INGRESS_ANNOTATIONS = (
    (OURS + "load-balance", ("random", "hash", "loud")),
    ("nginx.ingress.kubernetes.io/upstream-hash-by", ("$request_uri", "$http_x_user")),
    (OURS + "affinity", ("cookie",)),
    (OURS + "service-weights", ("s=3 t=1", "s=0 t=1", "s", "t=2")),
    (OURS + "read-timeout", ("1h", "0", "soon")),
    (OURS + "limit-rps", ("5", "6", "many")),
    ("nginx.ingress.kubernetes.io/proxy-body-size", ("8m",)),
    (OURS + "nonsense", ("1",)),
)
_said = st.one_of([st.tuples(st.just(name), st.sampled_from(values)) for name, values in _INGRESS_ANNOTATIONS])
ingress_annotations = weighted((2, _NO_ANNOTATIONS), (1, st.lists(_said, max_size=4).map(dict)))
service_annotations = st.dictionaries(
    st.sampled_from((OURS + "health-check-path", OURS + "health-max-failures", OURS + "limit-rps")),
    st.sampled_from(("/up", "3", "x")),
    max_size=2,
)


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
ingress_specs = st.builds(
    IngressSpec,
    ingress_class_name=CLASS_NAMES,
    default_backend=st.none() | backends,
    rules=st.lists(ingress_rules, max_size=3).map(tuple),
    tls=st.lists(ingress_tls, max_size=2).map(tuple),
)
ingresses = st.builds(Ingress, metadata=meta(NAMES, annotations=ingress_annotations), spec=ingress_specs)
ingress_classes = st.builds(
    lambda name, controller, is_default: IngressClass(
        metadata=ObjectMeta(name=name, annotations={"ingressclass.kubernetes.io/is-default-class": "true"} if is_default else {}),
        spec=IngressClassSpec(controller=controller),
    ),
    NAMED_CLASSES,
    st.sampled_from((CONTROLLER_NAME, "example/other")),
    st.booleans(),
)
_GOOD_PORTS = (ServicePort(port=80, name="http"), ServicePort(port=81, name="admin", app_protocol="grpc"))
service_ports = st.builds(ServicePort, port=PORTS, name=PORT_NAMES, protocol=st.sampled_from(("TCP", "TCP", "UDP")))
_EXTERNAL_NAMES = st.sampled_from(("o.example", "127.0.0.1", "10.9.9.9"))
services = st.builds(
    Service,
    metadata=meta(SERVICE_NAMES, annotations=service_annotations),
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
    conditions=st.builds(
        EndpointConditions,
        ready=st.sampled_from((True, True, False, None)),
        serving=st.sampled_from((True, None)),
        terminating=st.sampled_from((True, False, None)),
    ),
    hints=weighted(
        (1, st.none()),
        (2, st.sampled_from(("z", "other")).map(lambda zone: EndpointHints(for_zones=(ForZone(name=zone),)))),
        (1, st.sampled_from(("n", "other")).map(lambda node: EndpointHints(for_nodes=(ForNode(name=node),)))),
    ),
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
namespaces = st.builds(
    lambda name, labels: Namespace(metadata=ObjectMeta(name=name, labels=labels)),
    NAMESPACES,
    st.sampled_from(({}, {"team": "x"}, {"team": "y"})),
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
        found.append(Put("Namespace", Namespace(metadata=ObjectMeta(name=namespace, labels={"team": "x"}))))
    return found


_step = weighted(
    (14, puts("Ingress", ingresses)),
    (2, puts("Service", services)),
    (4, puts("EndpointSlice", endpoint_slices)),
    (2, puts("Secret", secrets)),
    (1, puts("IngressClass", ingress_classes)),
    (1, puts("Namespace", namespaces)),
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

# --- tenants ----------------

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
    (2, _NO_ANNOTATIONS),
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
granted_steps = st.lists(weighted((9, _step), (2, regrants)), min_size=15, max_size=50).map(lambda d: [*_base_cluster(), *d])

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
_VALUE_PIECES = (
    "0", "1", "8", "101", "99999999999999999999", "-1", "1.5", " ", ",", "=", ":", ";", "\t", "\n", "\0", "/", "é", "\u0661", "k",
    "m", "ms", "h", "s=1", "t=2", "hash", "cookie", "header:", "cookie:", "$http_", "$cookie_", "$uri", "off", "connect", "timeout",
    "http_503", "503", "error", "true", "None", "10.0.0.0/8", "10.0.0.1", "::/0", "fe80::1%eth0", "X-User",
)  # fmt: skip


def hostile_annotations(scope: Scope) -> st.SearchStrategy[dict[str, str]]:
    """Any text under every name that is read, and under names that are none."""
    names = [name for row in ANNOTATIONS if row.scope is scope for name in (OURS + row.name, *(a.name for a in row.aliases))]
    pieces = st.lists(st.sampled_from(_VALUE_PIECES), max_size=6).map("".join)
    return st.dictionaries(
        weighted((9, st.sampled_from(names)), (1, any_text.map(lambda text: OURS + text))),
        weighted((3, pieces), (1, any_text)),
        max_size=5,
    )


hostile_ingresses = st.builds(
    Ingress,
    metadata=meta(NAMES, annotations=hostile_annotations(Scope.INGRESS)),
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
    metadata=meta(SERVICE_NAMES, annotations=hostile_annotations(Scope.SERVICE)),
    spec=st.builds(
        ServiceSpec,
        type=st.one_of(st.sampled_from(("ClusterIP", "ExternalName", "ExternalName")), any_text),
        external_name=any_text,
        ports=st.lists(
            st.builds(ServicePort, port=PORTS, name=any_text, protocol=any_text | st.just("TCP"), app_protocol=any_text), max_size=3
        ).map(tuple),
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


# --- policies: everything that a blob can hold

_bounded = st.sampled_from((0, 1, 1000, 2**31))
_maybe_ms = st.none() | st.integers(0, TIMEOUT_MS_MAX)
_tokens = st.sampled_from(("x-user", "a", "x" * 128, "!#$%&'*+-.^_`|~0"))
_balances = st.one_of(
    st.builds(policies.Balance, algorithm=st.sampled_from([a for a in policies.Algorithm if a is not policies.Algorithm.HASH])),
    st.builds(
        policies.Balance,
        algorithm=st.just(policies.Algorithm.HASH),
        hash_source=st.sampled_from((policies.HashSource.ADDRESS, policies.HashSource.URI)),
        load_percent=st.sampled_from((0, 101, 125, 1000)),
    ),
    st.builds(
        policies.Balance,
        algorithm=st.just(policies.Algorithm.HASH),
        hash_source=st.sampled_from((policies.HashSource.HEADER, policies.HashSource.COOKIE)),
        name=_tokens,
        load_percent=st.sampled_from((0, 1000)),
    ),
)
_affinities = st.builds(
    policies.Affinity,
    name=_tokens,
    attributes=st.sampled_from(("", "; Path=/", "; Path=/; HttpOnly; SameSite=Lax", "~" * 1024)),
    secure=st.sampled_from(policies.CookieSecure),
)
_causes = st.sets(st.sampled_from([bit for bit in policies.RetryOn if bit is not policies.RetryOn.STATUS])).map(
    lambda bits: reduce(or_, bits, policies.RetryOn.GIVEN)
)
_retries = st.one_of(
    st.builds(
        policies.Retry,
        on=st.just(policies.NOT_GIVEN) | _causes,
        tries=st.none() | st.integers(1, TRIES_MAX),
        time_ms=_maybe_ms,
    ),
    st.builds(
        policies.Retry,
        on=_causes.map(lambda bits: bits | policies.RetryOn.STATUS),
        statuses=st.sets(st.sampled_from((404, 429, *range(500, 520))), min_size=1, max_size=8).map(lambda s: tuple(sorted(s))),
    ),
)
_timeouts = st.builds(
    policies.Timeouts, connect_ms=st.none() | st.integers(1, 600_000), read_ms=_maybe_ms, send_ms=_maybe_ms, request_ms=_maybe_ms
)
_networks = st.one_of(
    st.builds(lambda addr, bits: IPv4Network((addr, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
    st.builds(lambda addr, bits: IPv6Network((addr, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
)
_limits = st.builds(
    lambda client_rate, client_burst, total_rate, total_burst, **fields: policies.Limits(
        client_rate_milli=client_rate,
        client_burst=client_burst if client_rate else 0,
        total_rate_milli=total_rate,
        total_burst=total_burst if total_rate else 0,
        **fields,
    ),
    _bounded,
    st.integers(1, 2**32 - 1),
    _bounded,
    st.integers(1, 2**32 - 1),
    client_concurrency=_bounded,
    total_concurrency=_bounded,
    exempt=st.lists(_networks, max_size=3).map(tuple),
)
_bodies = st.builds(policies.BodyLimit, max_bytes=st.sampled_from((0, 1, 2**60, 2**64 - 1)))
_snippets = st.builds(policies.Snippet, text=st.sampled_from(("return", "ts.debug('ä')", "-- a\n" * 100)))
_kinds: tuple[st.SearchStrategy[policies.Policy], ...] = (
    _balances,
    _affinities,
    _retries,
    _timeouts,
    _limits,
    _bodies,
    _snippets,
)
_no_policies: st.SearchStrategy[tuple[policies.Policy, ...]] = st.just(())
rule_policies = weighted(
    (2, _no_policies),
    (1, st.sets(st.integers(0, 6)).flatmap(lambda kinds: st.tuples(*(_kinds[kind] for kind in sorted(kinds))))),
)


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
