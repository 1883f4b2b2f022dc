"""Many teams: rights in single namespaces only, namespaces chosen by label, and what is ignored never leaves the API server."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from deploy.compile import Build
from tests.e2e.cluster import Cluster, watching
from tests.harness import processes
from tests.harness.ats import Ats
from tests.harness.controlplane import ControlPlane
from tests.harness.kubeapi import JsonObject
from tests.harness.manifests import path

RBAC = Path(__file__).resolve().parents[2] / "deploy" / "rbac"
MAKES_BAD_OBJECTS = True
SEEN_TIMEOUT_S = 30.0
ACME = "/.well-known/acme-challenge/token"


def granted(file: str, user: str, *, own: str, watched: str) -> list[JsonObject]:
    """The documents of a manifest of deploy/rbac, for a user, the controller's own namespace, and one that it watches."""
    places = {"atsk8s": own, "team-a": watched}
    found: list[JsonObject] = []
    for document in yaml.safe_load_all((RBAC / file).read_text()):
        metadata = document["metadata"]
        if "namespace" in metadata:
            metadata["namespace"] = places[metadata["namespace"]]
        if "subjects" in document:
            document["subjects"] = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]
        found.append(document)
    return found


@contextlib.contextmanager
def allowed_by(plane: ControlPlane, documents: list[JsonObject]) -> Generator[None]:
    """Apply RBAC objects, and take those of the cluster away again; the others go with their namespaces."""
    for document in documents:
        plane.api.apply(document)
    try:
        yield
    finally:
        for document in documents:
            if "namespace" not in document["metadata"]:
                plane.api.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])


def await_status(ats: Ats, host: str, status: int) -> None:
    """Wait until requests for a host are answered so."""
    processes.await_condition(
        f"{host} is answered {status}", lambda: ats.get("/", host=host).status == status, timeout_s=SEEN_TIMEOUT_S
    )


def site(cluster: Cluster, ip: str) -> str:
    """A host of the namespace with a Service, a pod and an Ingress; whoever serves at `ip` is the caller's business."""
    host = cluster.host()
    cluster.pods("app", [ip])
    cluster.create(cluster.service("app"), cluster.ingress("site", {host: [path("app")]}))
    return host


def test_a_role_in_each_namespace_is_enough(build: Build, cluster: Cluster) -> None:
    """deploy/rbac/namespaced.yaml: no right on the cluster; two namespaces are served, with certificates and settings."""
    plane, ip = cluster.plane, "10.244.60.1"
    plane.allow("narrow", [])
    other, unwatched = (cluster.in_namespace(f"{cluster.namespace[:40]}-{name}") for name in ("b", "c"))
    made: list[JsonObject] = []
    for watched in (cluster, other):
        made += granted("namespaced.yaml", "narrow", own=cluster.namespace, watched=watched.namespace)
    for document in made:
        plane.api.apply(document)
    options = [f"--watch-namespaces={cluster.namespace},{other.namespace.upper()}", f"--pod-namespace={cluster.namespace}"]
    with cluster.backends("app", [ip]):
        hosts = [site(one, ip) for one in (cluster, other, unwatched)]
        pair = cluster.authority.pair([hosts[1]])
        cluster.create(
            other.secret("cert", pair), other.ingress("tls", {hosts[1]: [path("app", "/tls")]}, tls={"cert": [hosts[1]]})
        )
        access = {"domain-access-list": f"{hosts[0]}:{cluster.namespace} *:{other.namespace}"}
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": cluster.namespace, "name": "proxy", "annotations": {"ats-configmap": "true"}},
                "data": access,
            }
        )
        with watching(build, cluster.net, plane, token=plane.token("narrow"), plugin_options=options) as ats, ats:
            assert not plane.may("narrow", "list", "ingresses.networking.k8s.io")
            await_status(ats, hosts[0], 200)
            await_status(ats, hosts[1], 200)
            assert ats.get_tls("/tls", host=hosts[1], tls=cluster.authority.client_context()).status == 200
            assert ats.get("/", host=hosts[2]).status == 404
            status, text = ats.admin("/readyz").status, ats.admin("/readyz").body.decode()
            assert status == 200
            for kind in ("IngressClass", "Namespace"):
                (line,) = (line for line in text.splitlines() if line.startswith(f"{kind}: "))
                assert "403" in line
            stolen = cluster.host("stolen")
            cluster.create(cluster.ingress("stolen", {stolen: [path("app")]}))
            found = processes.await_condition(
                "the refusal is said",
                lambda: next((one for one in ats.admin("/conditions").json() if one["name"] == "stolen"), None),
                timeout_s=SEEN_TIMEOUT_S,
            )
            assert found["reason"] == "Forbidden" and "domain-access-list" in found["message"], found
            assert ats.get("/", host=stolen).status == 404
            ats.allow("list or watch failed")
            for one in (cluster, other):
                one.allow_conditions(ats)
    finish(plane, other, unwatched)


def test_labels_of_namespaces_decide_live(build: Build, cluster: Cluster) -> None:
    """A namespace that gains the label is served, and no longer when it loses it; without the right to read them: not ready."""
    plane, ip = cluster.plane, "10.244.61.1"
    own = cluster.in_namespace(f"{cluster.namespace[:40]}-own")
    plane.allow("narrow", [])
    options = ["--namespace-selector=ingress,ingress!=private,!closed", f"--pod-namespace={own.namespace}"]
    with cluster.backends("app", [ip]), allowed_by(plane, granted("cluster.yaml", "narrow", own=own.namespace, watched="")):
        processes.await_condition("it may read Namespaces", lambda: plane.may("narrow", "list", "namespaces"))
        host = site(cluster, ip)
        with watching(build, cluster.net, plane, token=plane.token("narrow"), plugin_options=options) as ats, ats:
            assert ats.get("/", host=host).status == 404
            steps = (({"ingress": "public"}, 200), ({"ingress": "public", "closed": "yes"}, 404), ({"ingress": "internal"}, 200))
            for labels, status in (*steps, ({"ingress": "private"}, 404)):
                label(plane, cluster.namespace, labels)
                await_status(ats, host, status)
            assert all("403" not in line for line in ats.admin("/readyz").body.decode().splitlines())
    finish(plane, own)


def test_what_is_ignored_never_leaves_the_server(build: Build, cluster: Cluster) -> None:
    """Ingresses, Services, EndpointSlices and Secrets of an ignored namespace are not even listed, let alone served."""
    plane, ip = cluster.plane, "10.244.62.1"
    other = cluster.in_namespace(f"{cluster.namespace[:40]}-b")
    options = [f"--ignore-namespaces={other.namespace}"]
    with cluster.backends("app", [ip]):
        hosts = [site(one, ip) for one in (cluster, other)]
        with watching(build, cluster.net, plane, token=plane.token("ingress"), plugin_options=options) as ats, ats:
            await_status(ats, hosts[0], 200)
            assert ats.get("/", host=hosts[1]).status == 404
            assert "not synced" not in ats.admin("/readyz").body.decode()  # the server knows this selector for every kind
            seen = {
                kind: [obj for obj in plane.api.list(version, kind)["items"] if obj["metadata"]["namespace"] != other.namespace]
                for version, kind in (
                    ("networking.k8s.io/v1", "Ingress"),
                    ("discovery.k8s.io/v1", "EndpointSlice"),
                    ("v1", "Service"),
                )
            }
            for kind, objects in seen.items():
                assert ats.counter("atsk8s_objects", kind=kind) == len(objects), kind
    finish(plane, other)


@pytest.mark.parametrize("how", ["strict", "grants"])
def test_two_hostile_namespaces_cannot_touch_a_third(build: Build, cluster: Cluster, how: str) -> None:
    """Host, longer path, ACME path, wildcard, certificate, rule without host, default backend, thousands of paths: all in vain.

    Under strict tenancy the third is older; under grants it is the youngest.
    """
    hostile = [cluster.in_namespace(f"{cluster.namespace[:30]}-{how}-{name}") for name in ("m", "n")]
    host, wildcard, paths = cluster.host(), f"*.{cluster.namespace}.test", ("/shop", "/shop/login", "/", ACME)
    ip, bad_ip = ("10.244.63.1", "10.244.63.2") if how == "strict" else ("10.244.64.1", "10.244.64.2")
    granted_hosts = ";".join([f"{host}:{cluster.namespace}", *(f"{one.host()}:{one.namespace}" for one in hostile)])
    option = "--tenancy=strict" if how == "strict" else f"--domain-access-list={granted_hosts}"
    pair = cluster.authority.pair([host])

    def victim() -> None:
        cluster.pods("app", [ip])
        cluster.create(cluster.service("app"), cluster.secret("pair", pair))
        cluster.create(cluster.ingress("site", {host: [path("app", "/shop")]}, tls={"pair": [host]}))

    def attack() -> None:
        for one in hostile:
            one.pods("evil", [bad_ip])
            one.create(one.service("evil"), one.secret("pair", cluster.authority.pair([host, wildcard])))
            many = [path("evil", f"/shop/{i}") for i in range(1500)]
            routes = {host: [path("evil", "/"), path("evil", "/shop/login"), path("evil", ACME)], wildcard: [path("evil")]}
            one.create(one.ingress("a-hosts", routes, tls={"pair": [host, wildcard]}))
            one.create(one.ingress("b-every", {"": [path("evil")]}), one.ingress("c-many", {host: many}))
            one.create(one.ingress("d-certificate", {f"x.{one.host()}": [path("evil")]}, tls={"pair": [host, wildcard]}))
            backend = {"service": {"name": "evil", "port": {"number": 80}}}
            default = one.ingress("e-default", {})
            default["spec"] = {"ingressClassName": "atsk8s", "defaultBackend": backend}
            one.create(default, one.ingress("f-own", {one.host(): [path("evil")]}))

    def served(ats: Ats) -> list[tuple[int, str | None]]:
        answers = [ats.get(one, host=host) for one in paths]
        answers += [ats.get_tls(one, host=host, tls=cluster.authority.client_context()) for one in paths]
        return [(answer.status, answer.header("x-app")) for answer in answers]

    first, second = (victim, attack) if how == "strict" else (attack, victim)
    with cluster.backends("app", [ip]), cluster.backends("evil", [bad_ip]):
        first()
        made = time.time()
        processes.await_condition("the others are younger by a second", lambda: time.time() >= made + 1.1)
        second()
        with watching(build, cluster.net, cluster.plane, token=cluster.plane.token("ingress"), plugin_options=[option]) as ats, ats:
            for one in hostile:
                await_status(ats, one.host(), 200)
            await_status(ats, host, 404)
            processes.await_condition("it is served", lambda: ats.get("/shop", host=host).status == 200, timeout_s=SEEN_TIMEOUT_S)
            assert served(ats) == [(200, "app"), (200, "app"), (404, None), (404, None)] * 2
            dataclasses.replace(cluster, ats=ats).await_serial(host, pair.serial)
            for one in (cluster, *hostile):
                one.allow_conditions(ats)
                one.allow_conditions()
    for one in hostile:
        one.remove()


def label(plane: ControlPlane, namespace: str, labels: dict[str, str]) -> None:
    """Give a namespace these labels, and take the others of ours away."""
    metadata = {"labels": {"ingress": None, "closed": None, **labels}}
    plane.api.patch("v1", "Namespace", namespace, {"metadata": metadata})


def finish(plane: ControlPlane, *others: Cluster) -> None:
    """Take away what was granted, and the namespaces besides the test's own."""
    plane.allow("narrow", [])
    for one in others:
        one.remove()
