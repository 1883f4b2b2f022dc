"""RBAC that forbids a kind: an optional one costs what depends on it and says so; a mandatory one keeps the server unready."""

from __future__ import annotations

import pytest

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, Cluster, watching
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats
from tests.harness.manifests import path

DISTURBS_THE_API_SERVER = True
RETRY_TIMEOUT_S = 40.0  # a refused kind is asked for again after 0.8 s, doubling


def readyz(ats: Ats) -> tuple[int, str]:
    """Status and text of the admin endpoint's readiness."""
    answer = ats.admin("/readyz")
    return answer.status, answer.body.decode()


def unready(ats: Ats, code: str) -> str:
    """Wait until the first line of readiness names an HTTP status, and return the text."""

    def probe() -> str:
        status, text = readyz(ats)
        assert status == 503, text
        return text if code in text.splitlines()[0] else ""

    return processes.await_condition(f"readiness names {code}", probe, timeout_s=10)


def test_without_secrets_everything_else_works(build: Build, cluster: Cluster) -> None:
    """A refused optional kind: ready, HTTP works, no certificate; health and metrics say why; a grant mends it, live."""
    host, ip, plane = cluster.host(), "10.244.30.1", cluster.plane
    without = [name for name in (*MANDATORY, *OPTIONAL) if name != "secrets"]
    plane.allow("narrow", without)
    with cluster.backends("app", [ip]):
        cluster.pods("app", [ip])
        pair = cluster.authority.pair([host])
        cluster.create(
            cluster.service("app"),
            cluster.secret("cert", pair),
            cluster.ingress("site", {host: [path("app")]}, tls={"cert": [host]}),
        )
        with watching(build, cluster.net, plane, token=plane.token("narrow")) as ats, ats:
            assert ats.get("/", host=host).header("x-app") == "app"
            status, text = readyz(ats)
            assert status == 200
            (line,) = (line for line in text.splitlines() if line.startswith("Secret: "))
            assert line.startswith("Secret: not synced (") and "403" in line and "RBAC" in line, text
            assert ats.counter("atsk8s_kind_synced", kind="Secret") == 0
            assert ats.counter("atsk8s_kind_synced", kind="Ingress") == 1
            assert ats.counter("atsk8s_ready") == 1

            plane.allow("narrow", [*without, "secrets"])
            tls = cluster.authority.client_context()
            processes.await_condition(
                "HTTPS works once Secrets may be read",
                lambda: ats.get_tls("/", host=host, tls=tls).header("x-app") == "app",
                timeout_s=RETRY_TIMEOUT_S,
            )
            assert "Secret: synced" in readyz(ats)[1].splitlines()

            # Taken away again while it runs: what is known stays in use.
            plane.allow("narrow", without)
            plane.kill_api_server()
            cluster.end_outage()
            processes.await_condition("the refusal shows", lambda: "403" in readyz(ats)[1], timeout_s=RETRY_TIMEOUT_S)
            assert readyz(ats)[0] == 200
            assert ats.get_tls("/", host=host, tls=tls).header("x-app") == "app"
            ats.allow("list or watch failed")
            cluster.allow_conditions(ats)


@pytest.mark.parametrize("kind", ["Service", "EndpointSlice", "Ingress"])
def test_without_a_mandatory_kind_the_server_is_not_ready(build: Build, cluster: Cluster, kind: str) -> None:
    """Nothing is published by halves: not ready, 503, with the kind and the remedy named; a grant mends it, live."""
    host, ip, plane = cluster.host(), "10.244.31.1", cluster.plane
    resource = {"Service": "services", "EndpointSlice": "endpointslices.discovery.k8s.io", "Ingress": "ingresses.networking.k8s.io"}
    without = [name for name in (*MANDATORY, *OPTIONAL) if name != resource[kind]]
    plane.allow("narrow", without)
    with (
        cluster.backends("app", [ip]),
        watching(build, cluster.net, plane, token=plane.token("narrow"), plugin_options=["--start-timeout-ms=1000"]) as ats,
    ):
        cluster.pods("app", [ip])
        cluster.create(cluster.service("app"), cluster.ingress("site", {host: [path("app")]}))
        ats.start()
        try:
            ats.child.await_ready(
                "the ports listen", lambda: processes.is_listening(ats.place, ats.options.address, ats.https_port), timeout_s=30
            )
            text = unready(ats, "403")
            assert text.startswith(f"not ready: waiting for {kind}: ") and "RBAC" in text, text
            assert ats.counter("atsk8s_ready") == 0
            assert ats.get(HEALTH_PATH).status == 503
            assert ats.get("/", host=host).status == 503

            plane.allow("narrow", [*MANDATORY, *OPTIONAL])
            processes.await_condition(
                "it is ready once it may read them", lambda: ats.get(HEALTH_PATH).status == 200, timeout_s=RETRY_TIMEOUT_S
            )
            assert ats.get("/", host=host).header("x-app") == "app"
        finally:
            status = ats.stop()
        ats.allow("list or watch failed")
        ats.allow("starting without a table")
        ats.check(status)


def test_an_expired_token_is_named_and_the_new_one_used(build: Build, cluster: Cluster) -> None:
    """401: not ready and says why; the kubeconfig with a good token is taken up without a restart."""
    plane = cluster.plane
    plane.allow("narrow", [*MANDATORY, *OPTIONAL])
    with watching(build, cluster.net, plane, token="expired", plugin_options=["--start-timeout-ms=1000"]) as ats:
        ats.start()
        try:
            ats.child.await_ready(
                "the ports listen", lambda: processes.is_listening(ats.place, ats.options.address, ats.https_port), timeout_s=30
            )
            assert "has the token expired?" in unready(ats, "401")
            assert "expired\n" not in ats.log()  # the token itself
            plane.kubeconfig(ats.directory / "kubeconfig", token=plane.token("narrow"))
            processes.await_condition(
                "the new token is used", lambda: ats.get(HEALTH_PATH).status == 200, timeout_s=RETRY_TIMEOUT_S
            )
        finally:
            status = ats.stop()
        ats.allow("list or watch failed")
        ats.allow("starting without a table")
        ats.check(status)


def test_one_namespace_needs_rights_in_that_one_alone(build: Build, cluster: Cluster) -> None:
    """--watch-namespaces with a Role and no ClusterRole: ready, serves that namespace, and no other's Ingress."""
    plane, ip, rbac = cluster.plane, "10.244.32.1", "rbac.authorization.k8s.io"
    other = cluster.in_namespace(f"z-{cluster.namespace}")
    plane.allow("narrow", [])
    rules = [{"apiGroups": [group], "resources": [plural], "verbs": ["get", "list", "watch"]} for group, plural in _namespaced()]
    role = {
        "apiVersion": f"{rbac}/v1",
        "kind": "Role",
        "metadata": {"name": "narrow", "namespace": cluster.namespace},
        "rules": rules,
    }
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "narrow", "namespace": cluster.namespace},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "narrow"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": "narrow"}],
    }
    cluster.create(role, binding)
    narrow = plane.api.with_token(plane.token("narrow"))
    path_of_ingresses = narrow.path("networking.k8s.io/v1", "Ingress", namespace=cluster.namespace)
    processes.await_condition("the Role is in force", lambda: narrow.request("GET", path_of_ingresses).status == 200)
    cluster.pods("app", [ip])
    for one in (cluster, other):
        one.create(one.service("app"), one.ingress("site", {one.host(): [path("app")]}))
    options = [f"--watch-namespaces={cluster.namespace}", f"--pod-namespace={cluster.namespace}"]
    with (
        cluster.backends("app", [ip]),
        watching(build, cluster.net, plane, token=plane.token("narrow"), plugin_options=options) as ats,
        ats,
    ):
        assert ats.get("/", host=cluster.host()).header("x-app") == "app"
        assert ats.get("/", host=other.host()).status == 404
        assert other.namespace not in ats.admin("/dump").body.decode()
        ats.allow("list or watch failed kind=(IngressClass|Namespace) ")
    other.remove()
    other.allow_conditions()


def _namespaced() -> list[tuple[str, str]]:
    """Group and plural of every watched kind that has a namespace."""
    names = [name for name in (*MANDATORY, *OPTIONAL) if not name.startswith(("ingressclasses", "namespaces"))]
    return [(group, plural) for plural, _, group in (name.partition(".") for name in names)]
