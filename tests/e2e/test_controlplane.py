"""The control plane that e2e tests stand on is real, and can be broken in every way they need."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import backends, podnet, processes
from tests.harness.controlplane import ControlPlane
from tests.harness.kubeapi import ApiError, JsonObject
from tests.harness.podnet import PodNet

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
]

INGRESS_RESOURCE = "ingresses.networking.k8s.io"


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    """One pod network for the module."""
    with PodNet() as made:
        yield made


@pytest.fixture(scope="module")
def plane(net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """One control plane with short watches and a user without rights; every test leaves it running."""
    directory = tmp_path_factory.mktemp("plane")
    with ControlPlane(directory=directory, place=net, users=["reader"], min_request_timeout_s=2) as made:
        yield made


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = str(request.function.__name__).replace("_", "-")
    plane.namespace(name)
    return name


def service(namespace: str, name: str, **spec: object) -> JsonObject:
    """Return a Service that selects app=NAME, port 80 to the port named http."""
    ports = [{"name": "web", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": name}, "ports": ports} | spec,
    }


def ingress(namespace: str, name: str, host: str) -> JsonObject:
    """Return an Ingress of one host and one path to the Service of the same name."""
    backend = {"service": {"name": name, "port": {"name": "web"}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}]},
    }


def expect_endpoints(plane: ControlPlane, namespace: str, name: str, ips: list[str]) -> None:
    """Wait until the ready endpoints of a Service are just `ips`."""
    processes.await_condition(f"{namespace}/{name} has endpoints {ips}", lambda: plane.endpoint_ips(namespace, name) == sorted(ips))


def expect_expired(plane: ControlPlane, version: str) -> None:
    """Watch Services from `version`, and find it expired: an ERROR event with a Status of code 410."""
    with contextlib.closing(plane.api.watch("v1", "Service", resource_version=version)) as events:
        event = next(events)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_endpoint_slices_follow_pods(plane: ControlPlane, namespace: str) -> None:
    """The real controller makes slices of both families for ready Pods, and takes unready and deleted ones out."""
    plane.api.create(service(namespace, "app", ipFamilyPolicy="PreferDualStack"))
    plane.api.create(ingress(namespace, "app", "app.test"))
    for number in (5, 6):
        ips = [f"10.244.1.{number}", f"fd00:10:244:1::{number}"]
        plane.ready_pod(namespace, f"app-{number}", ips, labels={"app": "app"}, ports={"http": 8080})
    expect_endpoints(plane, namespace, "app", ["10.244.1.5", "10.244.1.6", "fd00:10:244:1::5", "fd00:10:244:1::6"])

    plane.set_ready(namespace, "app-5", is_ready=False)
    expect_endpoints(plane, namespace, "app", ["10.244.1.6", "fd00:10:244:1::6"])
    plane.set_ready(namespace, "app-5", is_ready=True)
    plane.api.delete("v1", "Pod", "app-6", namespace=namespace, grace_s=0)
    expect_endpoints(plane, namespace, "app", ["10.244.1.5", "fd00:10:244:1::5"])

    slices = plane.api.list("discovery.k8s.io/v1", "EndpointSlice", namespace=namespace)["items"]
    assert {port["port"] for item in slices for port in item["ports"]} == {8080}


def test_object_verbs(plane: ControlPlane, namespace: str) -> None:
    """Create, replace, the three patches, apply, status and delete do what the API does."""
    api = plane.api
    made = api.create(ingress(namespace, "app", "one.test"))
    with pytest.raises(ApiError) as raised:
        api.create(ingress(namespace, "app", "one.test"))
    assert (raised.value.status, raised.value.reason) == (409, "AlreadyExists")

    made["spec"]["rules"][0]["host"] = "two.test"
    replaced = api.replace(made)
    with pytest.raises(ApiError, match="409 Conflict"):
        api.replace(made)
    assert replaced["spec"]["rules"][0]["host"] == "two.test"

    version, kind = "networking.k8s.io/v1", "Ingress"
    merged = api.patch(version, kind, "app", {"metadata": {"annotations": {"a": "b"}}}, namespace=namespace)
    assert merged["metadata"]["annotations"] == {"a": "b"}
    change = [{"op": "replace", "path": "/spec/rules/0/host", "value": "three.test"}]
    patched = api.patch(version, kind, "app", change, namespace=namespace, patch_type="json")
    assert patched["spec"]["rules"][0]["host"] == "three.test"
    applied = api.apply(ingress(namespace, "app", "four.test"))
    assert applied["spec"]["rules"][0]["host"] == "four.test"

    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    api.patch(version, kind, "app", status, namespace=namespace, subresource="status")
    assert api.get(version, kind, "app", namespace=namespace)["status"] == status["status"]

    api.delete(version, kind, "app", namespace=namespace)
    with pytest.raises(ApiError, match="404 NotFound"):
        api.get(version, kind, "app", namespace=namespace)
    invalid = ingress(namespace, "bad", "app.test")
    del invalid["spec"]["rules"][0]["http"]["paths"][0]["pathType"]
    with pytest.raises(ApiError, match=r"422 Invalid.*pathType"):
        api.create(invalid)


def test_watch_ends_early_and_goes_on(plane: ControlPlane, namespace: str) -> None:
    """Watches start with what is there, see changes, and are ended by the server within twice the set time."""
    plane.api.create(service(namespace, "app"))
    began = time.monotonic()
    events = plane.api.watch("v1", "Service", namespace=namespace)
    first = next(events)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "app")
    plane.api.create(service(namespace, "later"))
    assert next(events)["object"]["metadata"]["name"] == "later"
    assert list(events) == []
    assert time.monotonic() - began < 60  # not the server's usual half hour


def test_restart_keeps_state_and_address(plane: ControlPlane, namespace: str) -> None:
    """SIGKILL breaks watches and refuses connections; after a restart the same URL serves the same objects."""
    plane.api.create(service(namespace, "app"))
    events = plane.api.watch("v1", "Service", namespace=namespace, timeout_s=300)
    next(events)
    plane.kill_api_server()
    try:
        with pytest.raises((OSError, http.client.HTTPException)):
            list(events)
        with pytest.raises(ConnectionRefusedError):
            plane.api.get("v1", "Service", "app", namespace=namespace)
    finally:
        plane.start_api_server()
    assert plane.api.get("v1", "Service", "app", namespace=namespace)["spec"]["selector"] == {"app": "app"}
    plane.ready_pod(namespace, "app-1", "10.244.1.7", labels={"app": "app"}, ports={"http": 8080})
    expect_endpoints(plane, namespace, "app", ["10.244.1.7"])


def test_paused_server_accepts_and_says_nothing(plane: ControlPlane, net: PodNet) -> None:
    """A stopped API server looks alive to connect(2), as a hung one does."""
    plane.pause_api_server()
    try:
        with net.connect(plane.address, plane.port, timeout_s=0.3) as sock:
            context = ssl.create_default_context(cafile=str(plane.ca_path))
            with pytest.raises(TimeoutError):
                context.wrap_socket(sock, server_hostname=plane.address)
    finally:
        plane.resume_api_server()
    plane.await_api_server()


def test_server_can_be_cut_off(plane: ControlPlane, net: PodNet) -> None:
    """The API server has an address of its own in the pod network, which can fall silent."""
    net.blackhole(plane.address)
    try:
        with pytest.raises(TimeoutError):
            net.connect(plane.address, plane.port, timeout_s=0.3)
    finally:
        net.heal(plane.address)
    plane.await_api_server()


def test_old_versions_expire(plane: ControlPlane, namespace: str) -> None:
    """After a compaction and a restart, older lists and watches are told 410 Expired, each in its own way."""
    made = [plane.api.create(service(namespace, f"app-{number}")) for number in range(3)]
    listed = plane.api.list("v1", "Service", namespace=namespace, query={"limit": 1})["metadata"]
    plane.api.delete("v1", "Service", "app-2", namespace=namespace)
    plane.compact()
    plane.restart_api_server()

    queries: list[dict[str, str | int]] = [
        {"limit": 1, "continue": listed["continue"]},
        {"resourceVersion": listed["resourceVersion"], "resourceVersionMatch": "Exact"},
    ]
    for query in queries:
        with pytest.raises(ApiError, match="410 Expired"):
            plane.api.list("v1", "Service", namespace=namespace, query=query)
    expect_expired(plane, made[0]["metadata"]["resourceVersion"])


def test_refused_kind(plane: ControlPlane) -> None:
    """A user may list just what was allowed, and loses what is taken away, without a restart."""
    reader = plane.api.with_token(plane.token("reader"))
    with pytest.raises(ApiError, match="403 Forbidden"):
        reader.list("networking.k8s.io/v1", "Ingress")
    plane.allow("reader", [INGRESS_RESOURCE, "services"])
    assert reader.list("networking.k8s.io/v1", "Ingress")["kind"] == "IngressList"
    with pytest.raises(ApiError, match=r"403 Forbidden.*secrets"):
        reader.list("v1", "Secret")
    with pytest.raises(ApiError, match="403 Forbidden"):
        next(reader.watch("v1", "Secret"))
    plane.allow("reader", ["services"])
    with pytest.raises(ApiError, match="403 Forbidden"):
        reader.list("networking.k8s.io/v1", "Ingress")
    wrong = plane.api.with_token("no-such-token")
    with pytest.raises(ApiError, match="401 Unauthorized"):
        wrong.list("v1", "Service")


def test_projected_token_and_its_files(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """A ServiceAccount's token from TokenRequest is known to the server, and laid out as a Pod finds it."""
    token = plane.service_account_token("ingress", namespace=namespace, expires_s=600)
    plane.allow(f"system:serviceaccount:{namespace}:ingress", ["services"])
    environment = plane.service_account_files(tmp_path / "account", token=token, namespace=namespace)
    assert environment["KUBERNETES_SERVICE_HOST"] == plane.address
    read = (tmp_path / "account" / "token").read_text()
    assert plane.api.with_token(read).list("v1", "Service")["kind"] == "ServiceList"


def test_certificate_names_the_address(plane: ControlPlane, net: PodNet) -> None:
    """Any client can verify the server by `ca_path`, at its address and under the name Pods use."""
    context = ssl.create_default_context(cafile=str(plane.ca_path))
    headers = [("Authorization", f"Bearer {plane.admin_token}")]
    for name in (None, "kubernetes.default.svc"):
        answer = backends.fetch(net, plane.address, plane.port, "/readyz", headers=headers, tls=context, server_name=name)
        assert (answer.status, answer.body) == (200, b"ok")
    with pytest.raises(ssl.SSLCertVerificationError):
        backends.fetch(net, plane.address, plane.port, "/readyz", tls=context, server_name="other.test")


def test_kubectl_and_kubeconfig(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """kubectl runs inside; a kubeconfig written for a user is that user's."""
    plane.kubectl("apply", "-f", "-", text=json.dumps(ingress(namespace, "app", "app.test")))
    assert "app.test" in plane.kubectl("get", "ingress", "-n", namespace)
    assert "serverVersion" in plane.kubectl("version", "-o", "json")
    config = plane.kubeconfig(tmp_path / "config", token="no-such-token", ca="file", mode=0o600)
    assert config.stat().st_mode & 0o777 == 0o600
    with pytest.raises(subprocess.CalledProcessError):
        plane.kubectl("get", "ingress", "--kubeconfig", str(config))


def test_on_loopback_without_controllers(tmp_path: Path) -> None:
    """Without a pod network and kube-controller-manager: Pods need no account; without watch cache: 410 at once."""
    with ControlPlane(directory=tmp_path, controllers=(), api_server_flags=["--watch-cache=false"]) as plane:
        assert plane.address == "127.0.0.1"
        plane.namespace("shop")
        plane.ready_pod("shop", "app-1", "10.244.1.5", labels={"app": "app"})
        pod = plane.api.get("v1", "Pod", "app-1", namespace="shop")
        assert pod["status"]["podIP"] == "10.244.1.5"
        assert plane.controller_manager is None

        version = plane.api.create(service("shop", "app"))["metadata"]["resourceVersion"]
        plane.api.create(service("shop", "other"))
        plane.compact()
        expect_expired(plane, version)

        children = (plane.api_server, plane.etcd)
        assert [child.status for child in children] == [None, None]
    assert [child.status for child in children] == [-signal.SIGKILL, -signal.SIGKILL]
