"""Annotations of an Ingress and of a Service: each line is one, `NAME=VALUE`."""

from __future__ import annotations

from atsk8s.api.meta import ObjectKey
from atsk8s.compile.decode import decode
from atsk8s.compile.encode import encode
from atsk8s.model.annotated import health_check_of, ingress_annotations, policies_of, service_annotations
from atsk8s.model.annotations import ANNOTATIONS, OURS
from atsk8s.model.ir import Backend, HostKey, PathMatchKind, Place, Rule, ServiceKey, VirtualHost
from atsk8s.model.policies import plain
from tests.fuzz.target import Target, check_message

_NAMES = tuple(f"{name}=" for row in ANNOTATIONS for name in (OURS + row.name, *(alias.name for alias in row.aliases)))
_VALUES = (
    *(
        "round-robin",
        "least-request",
        "hash",
        "ewma",
        "header:",
        "cookie:",
        "$http_",
        "$request_uri",
        "cookie",
        "true",
        "None",
        "Lax",
    ),
    *(
        "s=1 t=2",
        "connect",
        "timeout",
        "reset",
        "non-idempotent",
        "off",
        "error",
        "http_",
        "503",
        "429",
        "500ms",
        "30s",
        "5m",
        "1h",
    ),
    *("5m", "1h", "10.0.0.0/8", "2001:db8::/32", "8m", "64k", "1g", "/up", "125", "1000000"),
)
_KEY = HostKey(place=Place.NO_HOST)
_BACKENDS = (Backend(service=ServiceKey(namespace="a", name="s", port=80)),)


def check(data: bytes) -> None:
    """There are policies that a blob holds as they are, and faults that are lines of a log."""
    annotations: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition("=")
        annotations[name] = value
    said, faults = ingress_annotations(annotations)
    policies, useless = policies_of(said)
    said_of_service, faults_of_service = service_annotations(annotations)
    _, useless_of_service = health_check_of(said_of_service)

    for fault in (*faults, *useless, *faults_of_service, *useless_of_service):
        check_message(fault.message)
    for policy in policies:
        check_message(plain(policy)[1])
    rule = Rule(
        object=ObjectKey("a", "x"),
        kind=PathMatchKind.PREFIX,
        path="/",
        path_as_written="/",
        backends=_BACKENDS,
        policies=policies,
    )
    vhost = VirtualHost(key=_KEY, rules=(rule,))
    assert decode(encode(vhost), _KEY) == vhost
    assert all(weight >= 0 for _, weight in said.service_weights or ())


TARGET = Target(check=check, words=(*_NAMES, *_VALUES), size_max=4096)
