"""What is done to a real cluster is seen by real clients: routes, endpoints, certificates and classes, come and gone, live."""

from __future__ import annotations

import contextlib
import itertools
import ssl

from tests.e2e.cluster import Cluster, pod_name
from tests.harness import processes
from tests.harness.authority import served_serial
from tests.harness.backends import exchange
from tests.harness.load import Load, Request
from tests.harness.manifests import endpoint_slice, path
from tests.harness.podnet import NODE_IP

NETWORKING = "networking.k8s.io/v1"


def ingress_class(name: str, controller: str, *, is_default: bool = False) -> dict[str, object]:
    """Return an IngressClass."""
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": NETWORKING, "kind": "IngressClass", "metadata": metadata, "spec": {"controller": controller}}


def test_an_ingress_comes_and_goes(cluster: Cluster) -> None:
    """Nothing, then Service, pods and Ingress, over HTTP and HTTPS; then everything is deleted again."""
    host, ips = cluster.host(), ["10.244.10.1", "10.244.10.2"]
    assert cluster.get(host).status == 404
    pair = cluster.authority.pair([host])
    with cluster.backends("app", ips) as backends:
        cluster.pods("app", ips)
        cluster.create(
            cluster.service("app"),
            cluster.secret("cert", pair),
            cluster.ingress("site", {host: [path("app")]}, tls={"cert": [host]}),
        )
        cluster.await_answer(host, app="app")
        cluster.await_endpoints(["10.244.10.1:8080", "10.244.10.2:8080"])
        answer = cluster.await_answer(host, "/x", app="app", https=True)
        headers = {name.lower(): value for name, value in answer.json()["headers"]}
        assert (headers["host"], headers["x-forwarded-proto"]) == (host, "https")
        backends.clear()
        for _ in range(10):
            assert cluster.get(host).status == 200
        assert [count.requests for count in backends.counts().values()] == [5, 5]

        cluster.delete(NETWORKING, "Ingress", "site")
        cluster.await_answer(host, status=404)
        cluster.delete("v1", "Service", "app")
        cluster.delete("v1", "Secret", "cert")
        cluster.await_endpoints([])
        # With its certificate gone a host is like any that nobody knows: no certificate, no handshake.
        processes.await_condition("no certificate is shown any more", lambda: not _shakes_hands(cluster, host))


def _shakes_hands(cluster: Cluster, host: str) -> bool:
    try:
        cluster.connection(host).close()
    except (ssl.SSLError, ConnectionResetError):
        return False
    return True


def test_scaling_a_service_loses_nothing(cluster: Cluster) -> None:
    """One pod, three, another one, under load: every request is answered, by pods that are there."""
    host = cluster.host()
    ips = [f"10.244.11.{number}" for number in range(1, 5)]
    with contextlib.ExitStack() as stopped_last:
        first = stopped_last.enter_context(cluster.backends("app", ips[:1]))
        cluster.pods("app", ips[:1])
        cluster.create(cluster.service("app"), cluster.ingress("site", {host: [path("app")]}))
        cluster.await_answer(host, app="app")
        load = Load(
            [Request(host=host, app="app"), Request(host=host, path="/post", method="POST", body="x" * 100, app="app")],
            ip=NODE_IP,
            port=cluster.ats.http_port,
            place=cluster.net,
            directory=cluster.directory,
        )
        with load:
            load.await_more(100)
            others = [stopped_last.enter_context(cluster.backends("app", [ip])) for ip in ips[1:]]
            cluster.pods("app", ips[1:])
            cluster.await_endpoints([f"{ip}:8080" for ip in ips])
            load.await_more(200)
            assert all(count.requests for backends in others for count in backends.counts().values())

            for ip, backends in zip(ips, (first, *others[:2]), strict=False):
                cluster.remove_pod("app", ip)
                backends.child.stop()
                load.await_more(50)
            cluster.await_endpoints([f"{ips[3]}:8080"])

        load.finished.expect_no_failure(at_least=450)

        # An unready pod gets no request, and is back when it is ready again.
        cluster.plane.set_ready(cluster.namespace, pod_name("app", ips[3]), is_ready=False)
        cluster.await_answer(host, status=503)
        cluster.plane.set_ready(cluster.namespace, pod_name("app", ips[3]), is_ready=True)
        cluster.await_answer(host, app="app")


def test_a_certificate_is_swapped_under_open_connections(cluster: Cluster) -> None:
    """A new handshake shows the new certificate; a connection made before goes on; load of new handshakes fails never."""
    host, ip = cluster.host(), "10.244.12.1"
    old, new = cluster.authority.pair([host]), cluster.authority.pair([host], kind="rsa")
    with cluster.backends("app", [ip]):
        cluster.pods("app", [ip])
        cluster.create(
            cluster.service("app"),
            cluster.secret("cert", old),
            cluster.ingress("site", {host: [path("app")]}, tls={"cert": [host]}),
        )
        cluster.await_answer(host, app="app", https=True)
        open_before = cluster.connection(host)
        load = Load(
            [Request(host=host, app="app")],
            ip=NODE_IP,
            port=cluster.ats.https_port,
            place=cluster.net,
            directory=cluster.directory,
            ca_file=cluster.authority.path,
            requests_per_s=60,
            requests_per_connection=2,
        )
        with contextlib.closing(open_before), load:
            assert isinstance(open_before.sock, ssl.SSLSocket)
            assert served_serial(open_before.sock) == old.serial
            assert exchange(open_before, "/", headers=[("Host", host)]).status == 200
            for pair in (new, old, new):
                cluster.plane.api.apply(cluster.secret("cert", pair))
                cluster.await_serial(host, pair.serial)
                load.await_more(20)
                assert exchange(open_before, "/", headers=[("Host", host)]).status == 200
            assert served_serial(open_before.sock) == old.serial
        load.finished.expect_no_failure(at_least=60)


def test_ports_of_every_kind(cluster: Cluster) -> None:
    """Ports by number and by name, targetPort unlike port, by number and by name, and several ports of one Service."""
    host, ip = cluster.host(), "10.244.13.1"
    ports = [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "api", "port": 8443, "targetPort": 9090},
        {"name": "same", "port": 7070},
    ]
    with cluster.backends("web", [ip]), cluster.backends("api", [ip], port=9090), cluster.backends("same", [ip], port=7070):
        cluster.pods("app", [ip], ports={"http": 8080})
        only = cluster.service("only", [{"port": 1234, "targetPort": 8080}], selector={"app": "app"})
        paths = [
            path("app", "/number", port=80),
            path("app", "/name", port="web"),
            path("app", "/api", port=8443),
            path("app", "/same", port="same"),
            path("only", "/unnamed", port=1234),
        ]
        cluster.create(cluster.service("app", ports), only, cluster.ingress("site", {host: paths}))
        for at, app in (("/number", "web"), ("/name", "web"), ("/api", "api"), ("/same", "same"), ("/unnamed", "web")):
            cluster.await_answer(host, at, app=app)


def test_services_of_every_kind(cluster: Cluster) -> None:
    """Headless; without selector, with a hand-made slice; dual stack, where both families are used."""
    host = cluster.host()
    families = ("10.244.14.2", "fd00:10:244:14::2")
    with (
        cluster.backends("headless", ["10.244.14.1"]),
        cluster.backends("dual", families),
        cluster.backends("bare", ["10.244.14.3"], port=5050),
    ):
        cluster.pods("headless", ["10.244.14.1"])
        cluster.pods("dual", [families])
        bare = cluster.service("bare", [{"name": "http", "port": 80, "targetPort": 5050}])
        del bare["spec"]["selector"]
        paths = [path("headless", "/headless", port="web"), path("dual", "/dual"), path("bare", "/bare")]
        cluster.create(
            cluster.service("headless", clusterIP="None"),
            cluster.service("dual", ipFamilyPolicy="RequireDualStack"),
            bare,
            endpoint_slice("bare", ["10.244.14.3"], port=5050, namespace=cluster.namespace),
            cluster.ingress("site", {host: paths}),
        )
        for app in ("headless", "dual", "bare"):
            cluster.await_answer(host, f"/{app}", app=app)
        cluster.await_endpoints(["10.244.14.1:8080", "10.244.14.2:8080", "10.244.14.3:5050", "[fd00:10:244:14::2]:8080"])
        used = {cluster.get(host, "/dual").header("x-pod") for _ in range(4)}
        assert used == {"10.244.14.2:8080", "[fd00:10:244:14::2]:8080"}

        cluster.delete("discovery.k8s.io/v1", "EndpointSlice", "bare-1")
        cluster.await_answer(host, "/bare", status=503)


def test_two_namespaces_share_a_host(cluster: Cluster) -> None:
    """Path by path; where both claim the same path the older Ingress has it until it goes, and the other is told why."""
    host = cluster.host("shared")
    other = cluster.in_namespace(f"z-{cluster.namespace}")
    with cluster.backends("mine", ["10.244.15.1"]), other.backends("theirs", ["10.244.15.2"]):
        cluster.pods("app", ["10.244.15.1"])
        other.pods("app", ["10.244.15.2"])
        cluster.create(cluster.service("app"), cluster.ingress("site", {host: [path("app", "/one"), path("app", "/both")]}))
        cluster.await_answer(host, "/both", app="mine")
        # creationTimestamp has whole seconds: the second Ingress is the younger one by name as well.
        other.create(other.service("app"), other.ingress("site", {host: [path("app", "/two"), path("app", "/both")]}))
        cluster.await_answer(host, "/two", app="theirs")
        assert cluster.get(host, "/one").header("x-app") == "mine"
        assert cluster.get(host, "/both").header("x-app") == "mine"
        found = other.await_condition_of("Ingress", "site", "Conflict")
        assert f"{cluster.namespace}/site" in found["message"]

        cluster.delete(NETWORKING, "Ingress", "site")
        cluster.await_answer(host, "/both", app="theirs")
        cluster.await_answer(host, "/one", status=404)
        other.remove()
        other.allow_conditions()
        cluster.await_answer(host, "/two", status=404)


def test_classes_decide_whose_an_ingress_is(cluster: Cluster) -> None:
    """Ours by name, by annotation and by the class's controller; not ours: another controller's, and none; then the default."""
    ip, api = "10.244.16.1", cluster.plane.api
    paths = [path("app")]
    classes = [
        ingress_class("e2e-ours", "atsk8s.io/ingress-controller"),
        ingress_class("e2e-foreign", "example.test/controller"),
    ]
    default = ingress_class("e2e-default", "atsk8s.io/ingress-controller", is_default=True)
    with cluster.backends("app", [ip]), contextlib.ExitStack() as undone:
        cluster.pods("app", [ip])
        cluster.create(cluster.service("app"))
        for one in classes:
            api.create(one)
            undone.callback(api.delete, NETWORKING, "IngressClass", one["metadata"]["name"])  # type: ignore[index]
        cluster.create(
            cluster.ingress("none", {cluster.host("none"): paths}, ingress_class=None),
            cluster.ingress("foreign", {cluster.host("foreign"): paths}, ingress_class="e2e-foreign"),
            cluster.ingress("controller", {cluster.host("controller"): paths}, ingress_class="e2e-ours"),
            cluster.ingress(
                "legacy",
                {cluster.host("legacy"): paths},
                ingress_class=None,
                annotations={"kubernetes.io/ingress.class": "atsk8s"},
            ),
            cluster.ingress("name", {cluster.host("name"): paths}),
        )
        for name in ("controller", "legacy", "name"):
            cluster.await_answer(cluster.host(name), app="app")
        for name in ("none", "foreign"):
            assert cluster.get(cluster.host(name)).status == 404

        api.create(default)
        with contextlib.ExitStack() as no_default:
            no_default.callback(api.delete, NETWORKING, "IngressClass", "e2e-default")
            cluster.await_answer(cluster.host("none"), app="app")
            assert cluster.get(cluster.host("foreign")).status == 404
        cluster.await_answer(cluster.host("none"), status=404)

        # A class that changes hands takes its Ingresses along.  Its controller cannot be changed, so it is made anew.
        api.delete(NETWORKING, "IngressClass", "e2e-foreign")
        api.create(ingress_class("e2e-foreign", "atsk8s.io/ingress-controller"))
        cluster.await_answer(cluster.host("foreign"), app="app")


def test_hosts_and_paths_of_every_kind(cluster: Cluster) -> None:
    """Exact and wildcard hosts, Exact and Prefix paths, the host's default backend; and each moved to another Service, live."""
    host, ips = cluster.host(), {"one": "10.244.17.1", "two": "10.244.17.2"}
    with cluster.backends("one", [ips["one"]]), cluster.backends("two", [ips["two"]]):
        for app, ip in ips.items():
            cluster.pods(app, [ip])
            cluster.create(cluster.service(app))
        site = cluster.ingress(
            "site",
            {
                host: [path("one", "/exact", "Exact"), path("two", "/prefix"), path("one", "/prefix/deeper")],
                cluster.host("*"): [path("two")],
            },
        )
        site["spec"]["defaultBackend"] = {"service": {"name": "one", "port": {"name": "web"}}}
        cluster.create(site)
        expected = {
            (host, "/exact"): "one",
            (host, "/prefix/x"): "two",
            (host, "/prefix/deeper/x"): "one",
            (host, "/elsewhere"): "one",
            (cluster.host("any"), "/"): "two",
        }
        for (name, at), app in expected.items():
            cluster.await_answer(name, at, app=app)

        swapped = {"one": "two", "two": "one"}
        stored = cluster.plane.api.get(NETWORKING, "Ingress", "site", namespace=cluster.namespace)
        backends = [item["backend"]["service"] for rule in stored["spec"]["rules"] for item in rule["http"]["paths"]]
        for backend in itertools.chain(backends, [stored["spec"]["defaultBackend"]["service"]]):
            backend["name"] = swapped[backend["name"]]
        cluster.plane.api.replace(stored)
        for (name, at), app in expected.items():
            cluster.await_answer(name, at, app=swapped[app])
