"""Objects of the API that are mostly good: a rejected one meets none."""

from __future__ import annotations

from hypothesis import strategies as st

from atsk8s.api.core import Namespace, Secret, SecretBytes, Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint as SliceEndpoint
from atsk8s.api.discovery import EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone
from atsk8s.api.meta import ObjectMeta
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
from atsk8s.model.annotations import OURS
from atsk8s.settings import CONTROLLER_NAME
from tests.property.pairs import pairs
from tests.property.strategies.pools import (
    CLASS_NAMES,
    HOSTS,
    NAMED_CLASSES,
    NAMES,
    NAMESPACES,
    NO_ANNOTATIONS,
    PATH_TYPES,
    PATHS,
    PORT_NAMES,
    PORTS,
    SECRET_NAMES,
    SERVICE_NAMES,
    meta,
    weighted,
)

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
ingress_annotations = weighted((2, NO_ANNOTATIONS), (1, st.lists(_said, max_size=4).map(dict)))
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
GOOD_PORTS = (ServicePort(port=80, name="http"), ServicePort(port=81, name="admin", app_protocol="grpc"))
service_ports = st.builds(ServicePort, port=PORTS, name=PORT_NAMES, protocol=st.sampled_from(("TCP", "TCP", "UDP")))
_EXTERNAL_NAMES = st.sampled_from(("o.example", "127.0.0.1", "10.9.9.9"))
services = st.builds(
    Service,
    metadata=meta(SERVICE_NAMES, annotations=service_annotations),
    spec=weighted(
        (3, st.just(ServiceSpec(ports=GOOD_PORTS))),
        (1, st.builds(ServiceSpec, ports=st.lists(service_ports, max_size=2).map(tuple))),
        (1, st.builds(ServiceSpec, type=st.just("ExternalName"), external_name=_EXTERNAL_NAMES)),
    ),
)
GOOD_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
slice_endpoints = st.builds(
    SliceEndpoint,
    addresses=st.lists(st.sampled_from((*GOOD_ADDRESSES * 3, "127.0.0.1", "2001:db8::1", "junk")), min_size=1, max_size=2).map(
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
