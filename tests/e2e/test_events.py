"""Kubernetes Events, against a real API server: refused by RBAC, then granted; two replicas tell of one thing once."""

from __future__ import annotations

from collections.abc import Callable

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, SEEN_TIMEOUT_S, Cluster, watching
from tests.harness import processes
from tests.harness.ats import Ats
from tests.harness.kubeapi import JsonObject
from tests.harness.manifests import path

MAKES_BAD_OBJECTS = True
GRANTED_TIMEOUT_S = 120.0  # a namespace that refused is tried again after a minute
WRITERS = ("ingress", "narrow")  # the session's server, and the one that the test starts


def grant_events(cluster: Cluster) -> Callable[[], None]:
    """Let both servers write Events, as docs/logs.md says; returns what takes it back."""
    rbac, api = "rbac.authorization.k8s.io", cluster.plane.api
    rules = [{"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]
    api.create({"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "test:events"}, "rules": rules})
    api.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "test:events"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "test:events"},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": user} for user in WRITERS],
        }
    )

    def take_back() -> None:
        for kind in ("ClusterRoleBinding", "ClusterRole"):
            api.delete(f"{rbac}/v1", kind, "test:events")

    return take_back


def events_about(cluster: Cluster, name: str) -> list[JsonObject]:
    """The Events about an object of the namespace that are ours."""
    found = cluster.plane.api.list("v1", "Event", namespace=cluster.namespace)["items"]
    return [one for one in found if one["involvedObject"]["name"] == name and one["source"].get("component") == "atsk8s"]


def counted(ats: Ats, result: str) -> float:
    return ats.counter("atsk8s_kubernetes_events_total", result=result)


def test_a_problem_becomes_one_event_once_rbac_lets_it(build: Build, cluster: Cluster) -> None:
    """403 costs a line, and neither traffic nor readiness; granted, the object's author sees the problem, once for two replicas."""
    host, ip, plane = cluster.host(), "10.244.60.1", cluster.plane
    plane.allow("narrow", [*MANDATORY, *OPTIONAL])
    cluster.pods("app", [ip])
    cluster.create(
        cluster.service("app"),
        cluster.ingress("good", {host: [path("app")]}),
        cluster.ingress("bad", {cluster.host("bad"): [path("app")]}, annotations={"ats.ingress.kubernetes.io/retry-tries": "many"}),
    )
    with (
        cluster.backends("app", [ip]),
        watching(build, cluster.net, plane, token=plane.token("narrow")) as ats,
        ats,
    ):
        processes.await_condition("events are refused", lambda: counted(ats, "refused") >= 1, timeout_s=SEEN_TIMEOUT_S)
        assert ats.get("/", host=host).header("x-app") == "app"
        assert ats.admin("/readyz").status == 200
        assert ats.log().count("events are refused") == 1
        assert events_about(cluster, "bad") == []

        take_back = grant_events(cluster)
        try:
            for one in (ats, cluster.ats):
                processes.await_condition(
                    "both have told of it",
                    lambda one=one: counted(one, "written") + counted(one, "repeated") >= 1,  # type: ignore[misc]
                    timeout_s=GRANTED_TIMEOUT_S,
                )
            (event,) = events_about(cluster, "bad")
            (condition,) = cluster.conditions("Ingress", "bad")
            uid = plane.api.get("networking.k8s.io/v1", "Ingress", "bad", namespace=cluster.namespace)["metadata"]["uid"]
            assert event["involvedObject"]["uid"] == uid
            assert (event["type"], event["reason"], event["message"]) == ("Warning", condition["reason"], condition["message"])
            assert event["count"] == 1
            assert events_about(cluster, "good") == []
            described = plane.kubectl("describe", "ingress", "bad", "--namespace", cluster.namespace)
            assert condition["reason"] in described.partition("Events:")[2], described

            # To one that starts an hour later it is news again, and counted in the Event that is there.
            old = {"lastTimestamp": "2026-01-01T00:00:00Z"}
            plane.api.patch("v1", "Event", event["metadata"]["name"], old, namespace=cluster.namespace)
            with watching(build, cluster.net, plane, token=plane.token("narrow")) as late, late:
                processes.await_condition("it is counted up", lambda: counted(late, "written") == 1, timeout_s=SEEN_TIMEOUT_S)
                cluster.allow_conditions(late)
            (event,) = events_about(cluster, "bad")
            assert event["count"] == 2
            assert event["lastTimestamp"] > old["lastTimestamp"]
        finally:
            take_back()
        cluster.allow_conditions(ats)
