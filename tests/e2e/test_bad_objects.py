"""Bad objects that a real API server takes in: each costs itself alone, with a condition that says why; and those it refuses."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from tests.e2e.cluster import Cluster
from tests.harness.authority import Pair
from tests.harness.kubeapi import ApiError, JsonObject
from tests.harness.manifests import path

MAKES_BAD_OBJECTS = True
GOOD = "10.244.40.1"
LONG = "/" + "x" * 2999


def good(cluster: Cluster) -> None:
    """A right Ingress beside the bad one: HTTP and HTTPS of its host must be none the worse."""
    host = cluster.host("good")
    cluster.pods("app", [GOOD])
    cluster.create(
        cluster.service("app"),
        cluster.secret("good", cluster.authority.pair([host])),
        cluster.ingress("good", {host: [path("app")]}, tls={"good": [host]}),
    )


def expect_good(cluster: Cluster) -> None:
    """The right one is answered."""
    for https in (False, True):
        cluster.await_answer(cluster.host("good"), app="app", https=https)
    assert cluster.conditions("Ingress", "good") == []
    assert cluster.ats.counter("atsk8s_controller_errors_total") == 0


def _resource_backend(spec: JsonObject) -> None:
    resource = {"apiGroup": "k8s.example.test", "kind": "Bucket", "name": "static"}
    spec["rules"][0]["http"]["paths"].append({"path": "/bad", "pathType": "Prefix", "backend": {"resource": resource}})


def _no_http(spec: JsonObject) -> None:
    del spec["rules"][0]["http"]


def _long_path(spec: JsonObject) -> None:
    spec["rules"][0]["http"]["paths"].append(path("app", LONG))


def _no_such_port(spec: JsonObject) -> None:
    spec["rules"][0]["http"]["paths"].append(path("app", "/bad", port="no-such-port"))


def _no_such_service(spec: JsonObject) -> None:
    spec["rules"][0]["http"]["paths"].append(path("no-such-service", "/bad"))


@pytest.mark.parametrize(
    ("spoil", "at", "status", "blamed"),
    [
        (_resource_backend, "/bad", 404, ("Ingress", "bad", "Unsupported")),
        (_no_http, "/", 404, None),
        (_long_path, LONG, 200, None),
        (_no_such_port, "/bad", 503, ("Service", "app", "PortNotFound")),
        (_no_such_service, "/bad", 503, ("Ingress", "bad", "NotFound")),
    ],
)
def test_an_ingress_that_the_api_takes(
    cluster: Cluster, spoil: Callable[[JsonObject], None], at: str, status: int, blamed: tuple[str, str, str] | None
) -> None:
    """The bad path gets a clear answer, its neighbours work, and the condition says what to do."""
    host = cluster.host("bad")
    bad = cluster.ingress("bad", {host: [path("app", "/fine")]})
    spoil(bad["spec"])
    with cluster.backends("app", [GOOD]):
        good(cluster)
        cluster.create(bad)
        cluster.await_answer(host, at, status=status)
        if blamed is not None:
            kind, name, reason = blamed
            assert cluster.await_condition_of(kind, name, reason)["message"]
            assert cluster.ats.counter("atsk8s_rejected_objects", kind=kind, reason=reason) >= 1
            told = cluster.ats.explain(f"http://{host}/fine")["conditions"]
            assert reason in str(told)
        else:
            assert cluster.conditions("Ingress", "bad") == []
        if spoil is not _no_http:
            cluster.await_answer(host, "/fine", app="app")
        expect_good(cluster)


def _without_path_type(spec: JsonObject) -> None:
    del spec["rules"][0]["http"]["paths"][0]["pathType"]


def _with_path_type(kind: str) -> Callable[[JsonObject], None]:
    def spoil(spec: JsonObject) -> None:
        spec["rules"][0]["http"]["paths"][0]["pathType"] = kind

    return spoil


def _with_host(host: str) -> Callable[[JsonObject], None]:
    def spoil(spec: JsonObject) -> None:
        spec["rules"][0]["host"] = host

    return spoil


def _null_paths(spec: JsonObject) -> None:
    spec["rules"][0]["http"]["paths"] = None


@pytest.mark.parametrize(
    "spoil",
    [
        _without_path_type,
        _with_path_type("Regex"),
        _null_paths,
        _with_host("UPPER.test"),
        _with_host("10.0.0.1"),
        _with_host("*.*.test"),
        _with_host("a..test"),
        _with_host("under_score.test"),
    ],
)
def test_an_ingress_that_the_api_refuses(cluster: Cluster, spoil: Callable[[JsonObject], None]) -> None:
    """These come from manifests alone, where integration/test_bad_manifests.py has them; if a server lets one in, we must know."""
    bad = cluster.ingress("bad", {cluster.host("bad"): [path("app")]})
    spoil(bad["spec"])
    with pytest.raises(ApiError) as refused:
        cluster.plane.api.create(bad)
    assert refused.value.status in (400, 422)


def _mismatched(cluster: Cluster, host: str) -> Pair:
    one, other = cluster.authority.pair([host]), cluster.authority.pair([host])
    return Pair(certificate=one.certificate, key=other.key)


def _encrypted(cluster: Cluster, host: str) -> Pair:
    return cluster.authority.pair([host], passphrase=b"secret-passphrase")


def _garbage(cluster: Cluster, host: str) -> Pair:
    return Pair(certificate=b"\x00\xffgarbage" * 100, key=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def _empty(cluster: Cluster, host: str) -> Pair:
    return Pair(certificate=b"", key=b"")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_mismatched, "KeyMismatch"),
        (_encrypted, "InvalidKey"),
        (_garbage, "InvalidCertificate"),
        (_empty, "InvalidCertificate"),
    ],
)
def test_a_secret_without_a_usable_pair(cluster: Cluster, make: Callable[[Cluster, str], Pair], reason: str) -> None:
    """HTTP goes on, no handshake succeeds, and the condition repeats no byte of the Secret; the right pair mends it."""
    host = cluster.host("bad")
    bad = make(cluster, host)
    with cluster.backends("app", [GOOD]):
        good(cluster)
        cluster.create(cluster.secret("bad", bad), cluster.ingress("bad", {host: [path("app")]}, tls={"bad": [host]}))
        found = cluster.await_condition_of("Secret", "bad", reason)
        cluster.await_answer(host, app="app")
        with pytest.raises(OSError, match=r"."):  # an alert, or a reset
            cluster.connection(host)
        expect_good(cluster)
        told = found["message"] + cluster.ats.log()
        for secret in (bad.key, base64.b64encode(bad.key), b"secret-passphrase"):
            assert not secret or secret.decode("latin-1") not in told
        cluster.plane.api.apply(cluster.secret("bad", cluster.authority.pair([host])))
        cluster.await_answer(host, app="app", https=True)
        assert cluster.conditions("Secret", "bad") == []


def test_an_expired_certificate_is_served_and_said(cluster: Cluster) -> None:
    """The client decides about it; the condition and the metric tell the operator."""
    host = cluster.host("bad")
    pair = cluster.authority.pair([host], expired=True)
    with cluster.backends("app", [GOOD]):
        good(cluster)
        cluster.create(cluster.secret("bad", pair), cluster.ingress("bad", {host: [path("app")]}, tls={"bad": [host]}))
        cluster.await_condition_of("Secret", "bad", "CertificateExpired")
        with pytest.raises(OSError, match="certificate has expired"):
            cluster.connection(host)
        expect_good(cluster)


def test_endpoints_where_no_pod_can_be(cluster: Cluster) -> None:
    """The API refuses loopback and link-local in slices; what it lets through and is no pod, the table refuses."""
    host = cluster.host("bad")
    with cluster.backends("app", [GOOD]):
        good(cluster)
        bare = cluster.service("bare", [{"name": "http", "port": 80}])
        del bare["spec"]["selector"]
        cluster.create(bare, cluster.ingress("bad", {host: [path("bare")]}))
        cluster.await_answer(host, status=503)
        slices = cluster.plane.api.path("discovery.k8s.io/v1", "EndpointSlice", namespace=cluster.namespace)
        for address in ("127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"):
            slice_ = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "bare-" + address.replace(".", "-"),
                    "namespace": cluster.namespace,
                    "labels": {"kubernetes.io/service-name": "bare"},
                },
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": cluster.ats.admin_port}],
                "endpoints": [{"addresses": [address]}],
            }
            taken = cluster.plane.api.request("POST", slices, body=slice_)
            assert taken.status in (201, 422), taken.body
            if taken.status == 201:
                cluster.await_condition_of("EndpointSlice", slice_["metadata"]["name"], "InvalidAddress")  # type: ignore[index]
        assert cluster.get(host).status == 503
        assert cluster.endpoints() == [f"{GOOD}:8080"]
        expect_good(cluster)


def test_an_ingress_of_ten_thousand_paths_is_bounded(cluster: Cluster) -> None:
    """The largest object that etcd takes neither stops nor delays its neighbours for long."""
    host = cluster.host("many")
    with cluster.backends("app", [GOOD]):
        good(cluster)
        cluster.create(cluster.ingress("many", {host: [path("app", f"/p{number}") for number in range(8000)]}))
        cluster.await_answer(host, "/p7999", app="app")
        expect_good(cluster)
