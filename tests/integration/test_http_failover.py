"""A pod that refuses, is silent, times out or resets is replaced by another inside the same request; a POST only when no byte of it
can have reached a pod.  Addresses of a pod network, each failing in its own way."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import podnet, processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod, WebSocket, exchange, http_connection
from tests.harness.manifests import app, ingress, path, service
from tests.harness.patience import stretched
from tests.harness.podnet import NODE_IP, PodNet

pytestmark = [
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
]

CONNECT_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 2.0

GOOD = Pod(app="good", ip="10.244.1.1")
RESETS = Pod(app="resets", ip="10.244.1.2", behaviour="reset=before")
HANGS_UP = Pod(app="hangs-up", ip="10.244.1.3", behaviour="close=before")
SILENT = Pod(app="silent", ip="10.244.1.4", behaviour="slow_ms=8000")
CUTS = Pod(app="cuts", ip="10.244.1.5", behaviour="close=mid&size=100000")
BUSY = Pod(app="busy", ip="10.244.1.6", behaviour="status=503")
SIX = Pod(app="six", ip="fd00:10:244:1::1")
ALONE = Pod(app="alone", ip="10.244.1.7")
METADATA = Pod(app="metadata", ip="169.254.169.254")  # what no name may lead to
REFUSES = "10.244.5.1"  # nobody listens
DROPS = "10.244.5.2"  # every packet is lost
NO_ROUTE = "10.244.5.3"
DEAD = tuple(f"10.244.6.{n}" for n in range(1, 6))

SERVICES = {
    "refuses": [REFUSES, GOOD.ip],
    "drops": [DROPS, GOOD.ip],
    "no-route": [NO_ROUTE, GOOD.ip],
    "resets": [RESETS.ip, GOOD.ip],
    "hangs-up": [HANGS_UP.ip, GOOD.ip],
    "silent": [SILENT.ip, GOOD.ip],
    "cuts": [CUTS.ip],
    "busy": [BUSY.ip],
    "three-dead": [*DEAD[:3], GOOD.ip],
    "all-dead": list(DEAD),
    "alone": [ALONE.ip],
    "only-silent": [SILENT.ip],
    "only-drops": [DROPS],
    "only-refuses": [REFUSES],
}


EXTERNAL = {
    "external": "good.internal",
    "any": "any.internal",
    "link-local": "local.internal",
    "multicast": "multi.internal",
    "unknown": "nobody.internal",
}
RESOLVED = {"good.internal": GOOD.ip, "any.internal": "0.0.0.0", "local.internal": METADATA.ip, "multi.internal": "224.0.0.5"}


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    """One pod network, some of whose addresses fail."""
    with PodNet((*podnet.POD_CIDRS, "169.254.0.0/16")) as made:
        made.blackhole(DROPS)
        made.unreachable(NO_ROUTE)
        yield made


@pytest.fixture(scope="module")
def backends(net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """Every pod."""
    pods = (GOOD, RESETS, HANGS_UP, SILENT, CUTS, BUSY, SIX, ALONE, METADATA)
    with Backends(pods, directory=tmp_path_factory.mktemp("backends"), place=net) as made:
        yield made


def server_options(hosts_file: str) -> Options:
    """Short time limits, ExternalNames allowed and resolved by a file."""
    return Options(
        address=NODE_IP,
        plugin_options=[
            f"--connect-timeout-ms={int(CONNECT_TIMEOUT_S * 1000)}",
            f"--read-timeout-ms={int(ANSWER_TIMEOUT_S * 1000)}",
            "--retry-tries=4",
            "--health-max-failures=0",  # each pod stays a choice, however often it has failed
            "--allow-external-names=true",
        ],
        records={
            "proxy.config.hostdb.host_file.path": hosts_file,
        },
    )


@pytest.fixture(scope="module")
def running(build: Build, net: PodNet, backends: Backends) -> Generator[Ats]:
    """One server for the module."""
    with ats_directory() as directory:
        options = server_options(f"{directory}/ats/etc/hosts")
        made = Ats(build, directory, place=net, options=options)
        objects = [ingress("pods", {f"{name}.test": [path(name)] for name in SERVICES})]
        for name, addresses in SERVICES.items():
            objects += app(name, addresses)
        for name, target in EXTERNAL.items():
            objects.append(service(name, external_name=target, port=8080))
        objects.append(ingress("external", {f"{name}.test": [path(name, port=8080)] for name in EXTERNAL}))
        made.write("site.yaml", objects)
        made.tree.write("hosts", "".join(f"{ip} {name}\n" for name, ip in RESOLVED.items()))
        with made:
            yield made


def assert_failed(answer: Fetched, status: int) -> None:
    """An error answer of ours: plain, short, naming nobody."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("cache-control") == "no-store"
    request_id = answer.header("x-request-id")
    assert request_id is not None and f"request {request_id}" in answer.body.decode()
    assert b"10.244." not in answer.body and b"<" not in answer.body and len(answer.body) < 160


FAILS_BEFORE_A_BYTE = ["refuses", "no-route", "three-dead", "drops"]


@pytest.mark.parametrize("name", FAILS_BEFORE_A_BYTE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_connection_means_another_pod(ats: Ats, name: str, method: str) -> None:
    """Whatever the method: nothing was sent.  Asked often enough for each pod to be the first choice."""
    body = b"x" * 200_000 if method == "POST" else None
    for _ in range(len(SERVICES[name])):
        answer = ats.get("/", host=f"{name}.test", method=method, body=body)
        assert (answer.status, answer.json()["app"], answer.json()["body_bytes"]) == (200, "good", len(body or b""))


def test_chunked_post_is_replaced_too(ats: Ats) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1000, b"y" * 1000) for _ in range(100)) + b"0\r\n\r\n"
    for _ in range(2):
        head = b"POST / HTTP/1.1\r\nHost: refuses.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        answer = ats.raw(head + chunks)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        assert b"100000" in answer


@pytest.mark.parametrize("name", ["resets", "hangs-up", "silent"])
def test_safe_request_without_an_answer_goes_to_another_pod(ats: Ats, name: str) -> None:
    for _ in range(2):
        answer = ats.get("/", host=f"{name}.test")
        assert (answer.status, answer.json()["app"]) == (200, "good")


@pytest.mark.parametrize("name", ["resets", "hangs-up", "silent"])
def test_post_that_a_pod_has_seen_is_not_sent_again(ats: Ats, backends: Backends, name: str) -> None:
    answers = [ats.get("/", host=f"{name}.test", method="POST", body=b"once") for _ in range(2)]
    assert sorted(answer.status for answer in answers) in ([200, 502], [200, 504])
    for answer in answers:
        if answer.status != 200:
            assert_failed(answer, answer.status)
    assert len(backends.requests()) == 2


def test_connect_timeout_is_ours_for_every_method(ats: Ats) -> None:
    for method in ("GET", "POST", "PUT"):
        before = time.monotonic()
        assert_failed(ats.get("/", host="only-drops.test", method=method, body=b"x" if method != "GET" else None), 502)
        assert time.monotonic() - before < 4 * CONNECT_TIMEOUT_S + stretched(3)  # ATS looks at its timers once a second


def test_slow_answer_outlives_the_connect_timeout(ats: Ats) -> None:
    """--connect-timeout-ms is for connecting alone."""
    for method in ("GET", "POST"):
        target = f"/?slow_ms={int(CONNECT_TIMEOUT_S * 1000 + 700)}"
        assert ats.get(target, host="alone.test", method=method, body=b"x" if method == "POST" else None).status == 200


def test_nobody_there_is_502(ats: Ats) -> None:
    before = ats.counter("atsk8s_endpoint_failures_total", result="connect")
    assert_failed(ats.get("/", host="all-dead.test"), 502)
    assert_failed(ats.get("/", host="all-dead.test", method="POST", body=b"x" * 100_000), 502)
    after = ats.counter("atsk8s_endpoint_failures_total", result="connect")
    assert after - before == 8, "four attempts a request, and no more"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_silence_of_a_lone_pod_is_504(ats: Ats, backends: Backends, method: str) -> None:
    """Asked once: there is no other pod, and the connection was new."""
    before = ats.counter("atsk8s_endpoint_failures_total", result="timeout")
    assert_failed(ats.get("/", host="only-silent.test", method=method, body=b"x" if method == "POST" else None), 504)
    assert len(backends.requests()) == 1
    assert ats.counter("atsk8s_endpoint_failures_total", result="timeout") - before == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_lone_pod_that_refuses_is_asked_once(ats: Ats, method: str) -> None:
    before = ats.counter("atsk8s_endpoint_failures_total", result="connect")
    assert_failed(ats.get("/", host="only-refuses.test", method=method, body=b"x" if method == "POST" else None), 502)
    assert ats.counter("atsk8s_endpoint_failures_total", result="connect") - before == 1


def test_a_pods_own_error_is_an_answer(ats: Ats, backends: Backends) -> None:
    for method in ("GET", "POST"):
        answer = ats.get("/", host="busy.test", method=method, body=b"x" if method == "POST" else None)
        assert (answer.status, answer.header("x-request-id")) == (503, None)
    assert len(backends.requests()) == 2


def test_half_an_answer_is_not_made_whole(ats: Ats, backends: Backends) -> None:
    answer = ats.raw(b"GET / HTTP/1.1\r\nHost: cuts.test\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and len(answer) < 100_000
    assert len(backends.requests()) == 1


def test_websocket_is_replaced(ats: Ats) -> None:
    for _ in range(2):
        client = WebSocket(processes.connect(ats.place, NODE_IP, ats.http_port), "refuses.test", "/")
        try:
            client.send(b"hello", opcode=1)
            assert client.receive() == (1, b"hello")
        finally:
            client.close()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_idle_connections_that_a_lone_pod_closed_cost_no_request(ats: Ats, net: PodNet, backends: Backends, method: str) -> None:
    """A Service with one pod: the pooled connection is gone, the pod is not."""
    connection = http_connection(net, NODE_IP, ats.http_port)
    try:
        for _ in range(5):
            assert exchange(connection, "/", headers=[("Host", "alone.test")]).status == 200
            net.abort_connections(ALONE.ip, ALONE.port)
            answer = exchange(
                connection, "/", method=method, headers=[("Host", "alone.test")], body=b"x" if method == "POST" else None
            )
            assert answer.status == 200
    finally:
        connection.close()


def test_pod_that_closes_after_each_answer_costs_no_request(ats: Ats, backends: Backends) -> None:
    """It says keep-alive and closes: the race that every proxy meets."""
    connection = http_connection(ats.place, NODE_IP, ats.http_port)
    try:
        for n in range(50):
            method = "POST" if n % 3 == 0 else "GET"
            answer = exchange(
                connection,
                "/?close=after",
                method=method,
                headers=[("Host", "alone.test")],
                body=b"x" if method == "POST" else None,
            )
            assert answer.status == 200
    finally:
        connection.close()


def test_external_name_is_resolved(ats: Ats) -> None:
    """ATS reads the file of names a moment after its start, when it first looks one up."""
    processes.await_condition("the name is known", lambda: ats.get("/", host="external.test").status == 200)
    answer = ats.get("/", host="external.test")
    assert (answer.status, answer.json()["app"]) == (200, "good")
    assert {name.lower(): value for name, value in answer.json()["headers"]}["host"] == "external.test"


@pytest.mark.parametrize("name", ["any", "link-local", "multicast", "unknown"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_external_name_that_leads_inward_or_nowhere_is_refused(ats: Ats, backends: Backends, name: str, method: str) -> None:
    """What the API names must not open the node's own services, even where ExternalName is allowed.  (Loopback is allowed with
    --manifests, so it is not among these.)"""
    processes.await_condition("names are known", lambda: ats.get("/", host="external.test").status == 200)
    backends.clear()
    for _ in range(2):
        assert_failed(ats.get("/", host=f"{name}.test", method=method, body=b"x" if method == "POST" else None), 502)
    assert not backends.requests()


def test_concurrent_requests_all_survive_a_dead_first_choice(ats: Ats) -> None:
    done = [ats.get("/", host="refuses.test").status for _ in range(100)]
    assert done == [200] * 100
