"""Bytes to types: tolerant of what the API allows, strict where it matters, silent about secrets."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest

from atsk8s.api.core import Namespace, Secret, SecretBytes, Service, ServicePort, ServiceSpec
from atsk8s.api.decode import MAX_OBJECT_BYTES, Decoder, convert, decode_status, identify
from atsk8s.api.discovery import Endpoint, EndpointConditions, EndpointSlice
from atsk8s.api.meta import MAX_ANNOTATION_CHARS, KubeObject, ObjectKey, ObjectMeta, trim
from atsk8s.api.networking import (
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressServiceBackend,
    ServiceBackendPort,
    TypedLocalObjectReference,
)
from atsk8s.api.wire import ListPage, Status, WatchEvent
from atsk8s.errors import Reason, RejectError

META = {"name": "a", "namespace": "ns"}


def decode(item: type[Any], **fields: Any) -> Any:
    return Decoder(item).decode(json.dumps({"metadata": META} | fields).encode())


def complaint(item: type[KubeObject], raw: bytes) -> RejectError:
    with pytest.raises(RejectError) as caught:
        Decoder(item).decode(raw)
    return caught.value


def test_metadata() -> None:
    raw = {
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2024-01-02T03:04:05Z",
        "deletionTimestamp": "2024-02-02T03:04:05Z",
        "annotations": {"x": "y"},
        "labels": None,
        "managedFields": [{"anything": 1}],
    }
    meta = decode(Ingress, metadata=raw).metadata
    assert meta == ObjectMeta(
        name="a",
        namespace="ns",
        uid="u",
        resource_version="7",
        created_s=1704164645,
        generation=3,
        annotations={"x": "y"},
        deletion_timestamp="2024-02-02T03:04:05Z",
    )
    assert msgspec.structs.replace(meta) == meta


def test_bookmarks_metadata_has_a_null_time() -> None:
    assert decode(Ingress, metadata=META | {"creationTimestamp": None}).metadata.created_s == 0


@pytest.mark.parametrize("time", ["2024-01-02", "2024-01-02T03:04:05", "yesterday", "9999-99-99T00:00:00Z", 5, []])
def test_time_that_is_none(time: object) -> None:
    error = complaint(Ingress, json.dumps({"metadata": META | {"creationTimestamp": time}}).encode())
    assert error.reason is Reason.MALFORMED
    assert "creationTimestamp" in error.message


def test_every_collection_may_be_null() -> None:
    assert decode(Ingress, spec=None) == decode(Ingress)
    assert decode(Ingress, spec={"rules": None, "tls": None}).spec.rules == ()
    assert decode(Ingress, spec={"rules": [{"host": None, "http": {"paths": None}}, {}]}).spec.rules[0].http.paths == ()
    assert decode(Ingress, spec={"tls": [{"hosts": None, "secretName": None}]}).spec.tls[0].hosts == ()
    assert decode(Ingress, spec={"rules": [{"http": None}]}).spec.rules[0].http is None
    assert decode(EndpointSlice, endpoints=None, ports=None).endpoints == ()
    assert decode(EndpointSlice, endpoints=[{"addresses": None}]).endpoints[0].addresses == ()
    assert decode(Service, spec={"ports": None, "clusterIPs": None, "selector": None}).spec.ports == ()
    assert decode(Secret, data=None).data == {}
    assert decode(IngressClass, spec=None).spec.controller == ""
    assert decode(Namespace).metadata.labels == {}
    page = msgspec.json.decode(b'{"metadata":{"resourceVersion":"1"},"items":null}', type=ListPage[Ingress])
    assert page.items == ()
    assert page.metadata.continue_ == ""


def test_ingress_as_the_api_has_it() -> None:
    spec = {
        "ingressClassName": "atsk8s",
        "defaultBackend": {"service": {"name": "d", "port": {"number": 80}}},
        "rules": [
            {
                "host": "x.example",
                "http": {
                    "paths": [
                        {"path": "/a", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "http"}}}},
                        {"path": None, "pathType": "Spiral", "backend": {"resource": {"apiGroup": "g", "kind": "K", "name": "n"}}},
                        {"backend": None},
                    ]
                },
            }
        ],
        "tls": [{"hosts": ["x.example"], "secretName": "t"}],
    }
    found = decode(Ingress, spec=spec).spec
    assert found.ingress_class_name == "atsk8s"
    assert found.default_backend.target == IngressServiceBackend(name="d", port=ServiceBackendPort(number=80))
    first, second, third = found.rules[0].http.paths
    assert first.backend.target.port.ref == "http"
    assert (second.path, second.path_type) == ("", "Spiral")
    assert second.backend.target == TypedLocalObjectReference(api_group="g", kind="K", name="n")
    assert third == HTTPIngressPath()
    assert found.tls[0].hosts == ("x.example",)


def test_absent_and_empty_class_differ() -> None:
    assert decode(Ingress, spec={}).spec.ingress_class_name is None
    assert decode(Ingress, spec={"ingressClassName": ""}).spec.ingress_class_name == ""


def test_unions_that_are_none_or_both() -> None:
    both = IngressBackend(service=IngressServiceBackend(name="s"), resource=TypedLocalObjectReference(kind="K"))
    assert both.target is None
    assert IngressBackend().target is None
    assert ServiceBackendPort().ref is None
    assert ServiceBackendPort(name="x", number=1).ref is None
    assert ServiceBackendPort(number=8).ref == 8


def test_service() -> None:
    spec = {
        "type": "ExternalName",
        "externalName": "x.example",
        "clusterIP": "None",
        "clusterIPs": ["None"],
        "selector": {"app": "x"},
        "publishNotReadyAddresses": True,
        "ports": [
            {"port": 80},
            {"name": "b", "port": 81, "targetPort": 8081, "protocol": "UDP", "appProtocol": "h2c"},
            {"port": 82, "targetPort": "web"},
        ],
    }
    found = decode(Service, spec=spec).spec
    assert found == ServiceSpec(
        type="ExternalName",
        external_name="x.example",
        cluster_ip="None",
        cluster_ips=("None",),
        publish_not_ready_addresses=True,
        selector={"": ""},  # that there is one
        ports=(
            ServicePort(port=80),
            ServicePort(name="b", port=81, target_port=8081, protocol="UDP", app_protocol="h2c"),
            ServicePort(port=82, target_port="web"),
        ),
    )
    assert decode(Service).spec.type == "ClusterIP"


@pytest.mark.parametrize("port", [0, -1, 65536, 10**30, 80.5, "80", None])
def test_port_numbers_are_checked(port: object) -> None:
    error = complaint(Service, json.dumps({"metadata": META, "spec": {"ports": [{"port": port}]}}).encode())
    assert "$.spec.ports[0].port" in error.message


def test_endpoint_conditions_that_are_unknown() -> None:
    def conditions(**given: bool | None) -> tuple[bool, bool, bool]:
        found = decode(EndpointSlice, endpoints=[{"addresses": ["1.2.3.4"], "conditions": given}]).endpoints[0].conditions
        return found.ready, found.serving, found.terminating

    assert conditions() == (True, True, False)
    assert conditions(ready=None, serving=None, terminating=None) == (True, True, False)
    assert conditions(ready=False) == (False, False, False)
    assert conditions(ready=False, serving=True, terminating=True) == (False, True, True)
    assert Endpoint().conditions == EndpointConditions(ready=True, serving=True, terminating=False)
    one, two = decode(EndpointSlice, endpoints=[{"conditions": None}, {}]).endpoints
    assert one.conditions is two.conditions


def test_endpoint_slice() -> None:
    labels = {"kubernetes.io/service-name": "s"}
    found = decode(
        EndpointSlice,
        metadata=META | {"labels": labels},
        addressType="IPv6",
        endpoints=[{"addresses": ["fd00::1"], "hints": {"forZones": [{"name": "z"}]}, "nodeName": "n", "targetRef": {}}],
        ports=[{"name": None, "port": None, "protocol": None}, {"name": "h", "port": 8080, "appProtocol": "http"}],
    )
    assert found.service_name == "s"
    assert found.endpoints[0].hints.for_zones[0].name == "z"
    assert [(p.name, p.port, p.protocol) for p in found.ports] == [("", None, "TCP"), ("h", 8080, "TCP")]


def test_secret_keeps_what_tls_uses_and_shows_nothing() -> None:
    found = decode(Secret, type="kubernetes.io/tls", data={"tls.crt": "cHVibGlj", "tls.key": "cHJpdmF0ZQ==", "other": "b3RoZXI="})
    assert set(found.data) == {"tls.crt", "tls.key"}
    assert found.data["tls.key"].reveal() == b"private"
    shown = repr(found) + str(found) + f"{found}{found.data}" + repr(found.data["tls.key"])
    assert "private" not in shown
    assert "cHJp" not in shown
    assert "7 bytes" in shown
    with pytest.raises(TypeError):
        pickle.dumps(found.data["tls.key"])
    assert msgspec.structs.replace(found) == found
    assert found.data["tls.key"] == SecretBytes(b"private") != SecretBytes(b"Private")
    assert len({SecretBytes(b"x"), SecretBytes(b"x")}) == 1
    with pytest.raises(TypeError):
        copy.deepcopy(found.data["tls.key"])


@pytest.mark.parametrize("value", ["*private*", "cHJpdmF0ZQ=", 5, ["cHJpdmF0ZQ=="]])
def test_broken_secret_is_refused_without_a_word_of_it(value: object) -> None:
    error = complaint(Secret, json.dumps({"metadata": META, "data": {"tls.key": value}}).encode())
    assert error.reason is Reason.MALFORMED
    assert "riv" not in error.message
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"null",
        b"[]",
        b'{"metadata":5}',
        b'{"spec":{}}',
        b"[" * 100_000,
        b'{"metadata":{"name":"a"},"spec":{"rules":' + b"[" * 100_000,
        b'{"metadata":{"name":"\xff"}}',
        b'{"metadata":{"name":"\\ud800"}}',
        b'{"metadata":{"name":"a","annotations":{"x":1}}}',
        b'{"metadata":{"name":"' + b"n" * 254 + b'"}}',
        b'{"metadata":{"name":"a"},"spec":{"rules":{}}}',
        b'{"metadata":{"name":"a"},"spec":{"rules":[{"host":5}]}}',
        b'{"metadata":{"name":"a"}',
    ],
)
def test_hostile_bytes(raw: bytes) -> None:
    error = complaint(Ingress, raw)
    assert error.reason is Reason.MALFORMED
    assert error.message
    identify(raw)


def test_object_that_is_too_large() -> None:
    raw = b'{"metadata":{"name":"a"},"x":"' + b"x" * MAX_OBJECT_BYTES + b'"}'
    assert complaint(Ingress, raw).reason is Reason.TOO_LARGE
    assert complaint(Ingress, bytes(msgspec.Raw(raw))).reason is Reason.TOO_LARGE


def test_keys() -> None:
    assert decode(Ingress).key == ObjectKey("ns", "a")
    assert str(ObjectKey("ns", "a")) == "ns/a"
    assert str(ObjectKey("", "a")) == "a"
    assert min(ObjectKey("b", "a"), ObjectKey("a", "c"), ObjectKey("a", "b")) == ObjectKey("a", "b")
    with pytest.raises(RejectError, match=r"metadata\.name is empty"):
        _ = decode(Ingress, metadata={"namespace": "ns"}).key


def test_trim() -> None:
    meta = META | {"annotations": {"ours/a": "1", "theirs/b": "2"}, "labels": {"x": "y", "z": "w"}}
    found = trim(decode(Ingress, metadata=meta), ("ours/",), ("z", "absent"))
    assert found.metadata.annotations == {"ours/a": "1"}
    assert found.metadata.labels == {"z": "w"}
    assert trim(decode(Ingress, metadata=meta), (), None).metadata.labels == {"x": "y", "z": "w"}
    huge = META | {"annotations": {"ours/a": "x" * MAX_ANNOTATION_CHARS}}
    with pytest.raises(RejectError) as caught:
        trim(decode(Ingress, metadata=huge), ("ours/",), ())
    assert caught.value.reason is Reason.TOO_LARGE
    assert trim(decode(Ingress, metadata=huge), ("other/",), ()).metadata.annotations == {}


def test_nothing_decoded_can_be_changed() -> None:
    found = decode(Ingress)
    with pytest.raises(AttributeError):
        found.metadata.name = "b"


def test_convert_takes_what_a_yaml_reader_gives() -> None:
    found = convert({"metadata": {"name": "a", "creationTimestamp": "2024-01-02T03:04:05Z"}, "data": {"tls.crt": "YQ=="}}, Secret)
    assert found.metadata.created_s == 1704164645
    assert found.data["tls.crt"].reveal() == b"a"
    with pytest.raises(RejectError, match="Expected"):
        convert(["x"], Secret)
    with pytest.raises(RejectError, match="Expected"):
        convert({"metadata": {"name": 5}}, Ingress)


def test_status_and_events() -> None:
    assert decode_status(b"<html>") == Status()
    assert decode_status(b'{"code":410}').is_expired
    assert decode_status(b'{"reason":"Gone"}').is_expired
    assert decode_status(b'{"details":{"causes":[{"reason":"ResourceVersionTooLarge"}]}}').is_too_large
    assert decode_status(b'{"message":"Too large resource version: 9, current: 1"}').is_too_large
    assert not decode_status(b'{"details":null,"code":null}').is_too_large
    event = msgspec.json.decode(b'{"type":"ADDED","object":{"x":[1]}}', type=WatchEvent)
    assert bytes(event.object) == b'{"x":[1]}'


def test_identify() -> None:
    assert identify(b'{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"},"spec":7}') == (ObjectKey("b", "a"), "7")
    assert identify(b'{"metadata":{"name":"a","namespace":null}}') == (ObjectKey("", "a"), "")
    assert identify(b'{"metadata":null}') == (None, "")
    assert identify(b"[") == (None, "")
