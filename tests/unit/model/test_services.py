"""What a Service's port resolves to: conditions of endpoints, slices that overlap, hints, appProtocol."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, ip_address

import pytest

from atsk8s.api.core import Service, ServicePort, ServiceSpec
from atsk8s.api.discovery import Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone
from atsk8s.api.meta import ObjectMeta
from atsk8s.errors import Reason
from atsk8s.model.annotations import OURS
from atsk8s.model.ir import DRAINING, READY, EndpointFlags, HealthCheck, ServiceKey
from atsk8s.model.services import NOWHERE, AddressRules, Whereabouts, resolve_service

KEY = ServiceKey(namespace="shop", name="a", port=80)
RULES = AddressRules()
HERE = Whereabouts(zone="east", node_name="n1")
GOES, GOING, GONE = (
    EndpointConditions(ready=True, serving=True, terminating=False),
    EndpointConditions(ready=False, serving=True, terminating=True),
    EndpointConditions(ready=False, serving=False, terminating=True),
)


def service(*, app_protocol: str = "", annotations: dict[str, str] | None = None, **spec: bool) -> Service:
    ports = (ServicePort(port=80, name="http", app_protocol=app_protocol),)
    return Service(
        metadata=ObjectMeta(name="a", namespace="shop", annotations=annotations or {}), spec=ServiceSpec(ports=ports, **spec)
    )


def pods(*endpoints: Endpoint, name: str = "a-1") -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name=name, namespace="shop", labels={"kubernetes.io/service-name": "a"}),
        address_type="IPv4",
        endpoints=endpoints,
        ports=(EndpointPort(name="http", port=8080),),
    )


def pod(number: int, conditions: EndpointConditions = GOES, zones: str = "", nodes: str = "") -> Endpoint:
    hints = EndpointHints(
        for_zones=tuple(ForZone(name=zone) for zone in zones.split()), for_nodes=tuple(ForNode(name=node) for node in nodes.split())
    )
    return Endpoint(addresses=(f"10.0.0.{number}",), conditions=conditions, hints=hints if zones or nodes else None)


def resolved(*slices: EndpointSlice, here: Whereabouts = NOWHERE) -> dict[str, EndpointFlags]:
    found, conditions = resolve_service(KEY, service(), slices, RULES, here)
    assert conditions == ()
    return {str(ip_address(e.addr)).removeprefix("10.0.0."): e.flags for e in found.endpoints}


@pytest.mark.parametrize(
    ("conditions", "flags"),
    [
        (GOES, READY),
        (EndpointConditions(), READY),
        (GOING, DRAINING),
        (GONE, None),
        (EndpointConditions(ready=False), None),
        (EndpointConditions(ready=False, serving=True), None),
        (EndpointConditions(ready=False, serving=True, terminating=True), DRAINING),
        # publishNotReadyAddresses: the slices' controller says ready of what is neither serving nor staying.
        (EndpointConditions(ready=True, serving=False, terminating=True), EndpointFlags.READY | EndpointFlags.TERMINATING),
    ],
)
def test_conditions(conditions: EndpointConditions, flags: EndpointFlags | None) -> None:
    assert resolved(pods(pod(1, conditions))) == ({"1": flags} if flags is not None else {})


def test_not_ready_addresses_are_published_by_the_slices() -> None:
    """The Service's field alone changes nothing: EndpointSlices are what says so, as it is for kube-proxy."""
    found, _ = resolve_service(
        KEY, service(publish_not_ready_addresses=True), [pods(pod(1, EndpointConditions(ready=False)))], RULES
    )

    assert found.endpoints == ()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_an_endpoint_in_several_slices_the_better_condition_counts(order: tuple[int, ...]) -> None:
    slices = [pods(pod(1, GONE), pod(2, GOING), name="x"), pods(pod(1, GOING), pod(2), name="y"), pods(pod(1, GOES), name="z")]

    assert resolved(*(slices[i] for i in order)) == {"1": READY, "2": READY}


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([pod(1, zones="east"), pod(2, zones="west")], "1"),
        ([pod(1, zones="east west"), pod(2, zones="west")], "1"),
        ([pod(1, zones="west"), pod(2, zones="west")], "12"),  # none is for us
        ([pod(1, zones="east"), pod(2)], "12"),  # one has no hint
        ([pod(1, zones="east"), pod(2, zones="west"), pod(3, EndpointConditions(ready=False))], "1"),  # not ready: does not count
        ([pod(1, zones="west"), pod(2, GOING, zones="east")], "12"),  # the one for us is not ready
        ([pod(1, GOING, zones="west"), pod(2, GOING)], "12"),  # none is ready: all that drain
        ([pod(1, zones="east"), pod(2, zones="west"), pod(3, GOING, zones="west")], "13"),  # draining: stays
        ([pod(1, nodes="n1"), pod(2, nodes="n2")], "1"),
        ([pod(1, zones="east", nodes="n2"), pod(2, zones="west", nodes="n1")], "2"),  # nodes before zones
        ([pod(1, zones="east", nodes="n2"), pod(2, zones="west", nodes="n3")], "1"),  # no node is ours, the zone is
        ([pod(1, zones="east", nodes="n1"), pod(2, zones="west")], "1"),  # one has no node
        ([], ""),
    ],
)
def test_hints(endpoints: list[Endpoint], expected: str) -> None:
    assert "".join(resolved(pods(*endpoints), here=HERE)) == expected
    assert set(expected) <= set(resolved(pods(*endpoints))), "without a place of our own no hint counts"


def test_an_endpoint_in_two_slices_has_the_hints_of_both() -> None:
    slices = pods(pod(1, zones="west"), pod(2, zones="west")), pods(pod(1, zones="east"), name="a-2")

    assert "".join(resolved(*slices, here=HERE)) == "".join(resolved(*slices[::-1], here=HERE)) == "1"


@pytest.mark.parametrize("app_protocol", ["", "http", "HTTP", "ws", "kubernetes.io/ws"])
def test_app_protocols_that_are_spoken(app_protocol: str) -> None:
    assert resolve_service(KEY, service(app_protocol=app_protocol), [], RULES)[1] == ()


@pytest.mark.parametrize("app_protocol", ["kubernetes.io/h2c", "grpc", "https", "kubernetes.io/wss", "\0"])
def test_app_protocols_that_are_not_are_said_and_served_as_http(app_protocol: str) -> None:
    found, (condition,) = resolve_service(KEY, service(app_protocol=app_protocol), [pods(pod(1))], RULES)

    assert len(found.endpoints) == 1
    assert (condition.object.kind, condition.reason) == ("Service", Reason.UNSUPPORTED)
    assert "HTTP/1.1" in condition.message


def test_annotations_are_part_of_the_service() -> None:
    annotations = {OURS + "health-check-path": "/up", OURS + "health-max-failures": "2", OURS + "health-check-timeout": "0"}
    found, (condition,) = resolve_service(KEY, service(annotations=annotations), [], RULES)

    assert (found.health_check, found.max_failures) == (HealthCheck(path="/up"), 2)
    assert condition.reason == Reason.INVALID_ANNOTATION


_SPELLINGS = [
    *("10.0.0.1", "0.0.0.1", "1.2.3.255", "1.2.3.256", "01.2.3.4", "1.2.3.04", "1.2.3.00", "1.2.3.0000", "1.2.3", "1.2.3.4.5"),
    *("", ".", "...", "1..3.4", "1.2.3.4.", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "+1.2.3.4", "-1.2.3.4", "1_0.2.3.4", "1.2.3.4/32"),
    *("1.2.3.4%eth0", "1.2.3.4\0", "\u0661.2.3.4", "\ud800.2.3.4", "16909060", "0x1.2.3.4", "::1", "1" * 100_000),
]


@pytest.mark.parametrize("text", _SPELLINGS, ids=lambda text: repr(text[:20]))
def test_ipv4_addresses_are_those_of_ipaddress(text: str) -> None:
    found, conditions = resolve_service(KEY, service(), [pods(Endpoint(addresses=(text,), conditions=GOES))], AddressRules())
    try:
        expected = IPv4Address(text).packed
    except AddressValueError:
        assert found.endpoints == ()
        assert [condition.reason for condition in conditions] == [Reason.INVALID_ADDRESS]
    else:
        refused = text.startswith("0.")  # unspecified
        assert [endpoint.addr for endpoint in found.endpoints] == ([] if refused else [expected])
