"""Any text in any field."""

from __future__ import annotations

from hypothesis import strategies as st

from atsk8s.api.core import Secret, SecretBytes, Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint as SliceEndpoint
from atsk8s.api.discovery import EndpointPort, EndpointSlice
from atsk8s.api.meta import ObjectMeta
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
    TypedLocalObjectReference,
)
from atsk8s.model.annotations import ANNOTATIONS, OURS, Scope
from tests.property.strategies.objects import service_backends
from tests.property.strategies.pools import HOSTS, NAMES, PATH_TYPES, PORTS, SECRET_NAMES, SERVICE_NAMES, meta, weighted
from tests.property.strategies.steps import Put

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
