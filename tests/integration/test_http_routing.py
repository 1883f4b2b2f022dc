"""Requests through a real Traffic Server to real pods: who gets them, what pods are told, and what we answer ourselves."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import podnet, processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod, WebSocket, exchange, http_connection
from tests.harness.manifests import app, ingress, path
from tests.harness.podnet import NODE_IP, NODE_IP6, PodNet

pytestmark = [
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
]

BLUE = tuple(Pod(app="blue", ip=f"10.244.1.{n}") for n in (1, 2, 3))
GREEN = Pod(app="green", ip="10.244.2.1")
SIX = Pod(app="six", ip="fd00:10:244:1::7")
PRIVATE = Pod(app="private", ip="10.244.3.1")
NOBODY = Pod(app="nobody", ip="10.244.4.1")

SITE = [
    ingress("blue", {"blue.test": [path("blue"), path("private", "/private"), path("nobody", "/none")]}),
    ingress("green", {"green.test": [path("green", "/only")], "*.wild.test": [path("green")]}),
    ingress("six", {"six.test": [path("six")]}),
    ingress("hostless", {"": [path("green", "/hostless")]}),
    *app("blue", [pod.ip for pod in BLUE]),
    *app("green", [GREEN.ip]),
    *app("six", [SIX.ip]),
    *app("private", [PRIVATE.ip]),
    *app("nobody", []),
]


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    """One pod network."""
    with PodNet() as made:
        yield made


@pytest.fixture(scope="module")
def backends(net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """Every pod."""
    with Backends((*BLUE, GREEN, SIX, PRIVATE), directory=tmp_path_factory.mktemp("backends"), place=net) as made:
        yield made


@pytest.fixture(scope="module")
def running(build: Build, net: PodNet, backends: Backends) -> Generator[Ats]:
    """One server for the module, on the node's address: clients come from a pod network, not from loopback."""
    options = Options(address=NODE_IP, plugin_options=["--trusted-proxies=10.244.9.0/24,fd00:10:244:9::/64"])
    with ats_directory() as directory:
        made = Ats(build, directory, place=net, options=options)
        made.write("site.yaml", SITE)
        with made:
            yield made


@pytest.fixture
def ats(running: Ats) -> Generator[Ats]:
    """The server; its logs are looked at after each test."""
    yield running
    running.check_logs()


def seen_headers(answer: Fetched) -> dict[str, str]:
    """The request's header as the pod got it: names in lower case."""
    assert answer.status == 200, answer
    return {name.lower(): value for name, value in answer.json()["headers"]}


def assert_ours(answer: Fetched, status: int) -> None:
    """A short plain answer with a request id, never cached, without internals."""
    assert answer.status == status
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("cache-control") == "no-store"
    request_id = answer.header("x-request-id")
    assert request_id is not None and len(request_id) == 16
    assert f"request {request_id}" in answer.body.decode()
    assert len(answer.body) < 160
    assert answer.header("via") is None and answer.header("server") is None
    for internal in (b"10.244.", b"test/", b"blue", b"nobody", b"Traffic", b"ATS"):
        assert internal not in answer.body


def test_host_and_path_choose_the_pod_and_round_robin_spreads(ats: Ats, backends: Backends) -> None:
    backends.clear()
    for _ in range(30):
        assert ats.get("/x?y=1", host="blue.test").json()["app"] == "blue"
    counts = backends.counts()
    assert [counts[pod.name].requests for pod in BLUE] == [10, 10, 10]
    assert ats.get("/private/page", host="blue.test").json()["app"] == "private"
    assert ats.get("/only/deeper", host="green.test").json()["app"] == "green"
    assert ats.get("/", host="a.wild.test").json()["app"] == "green"
    assert ats.get("/", host="six.test").json()["app"] == "six"
    assert ats.get("/hostless", host="never.heard.of").json()["app"] == "green"


def test_pod_gets_the_request_as_the_client_sent_it(ats: Ats) -> None:
    """Host, path, query, spelling and body are untouched; matching works on its own normalised view."""
    target = "/a%2Fb/%7e//c;p=1?q=%20&r=/../x"
    answer = ats.get(target, host="BLUE.test:80", method="PUT", body=b"12345", headers=[("X-Odd", "a"), ("x-odd", "b")])
    said = answer.json()
    assert (said["method"], said["target"], said["body_bytes"]) == ("PUT", target, 5)
    assert seen_headers(answer)["host"] == "BLUE.test:80"
    assert [value for name, value in said["headers"] if name.lower() == "x-odd"] in (["a", "b"], ["a, b"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"])
def test_what_http_clients_use_passes_from_a_pod_network(ats: Ats, method: str) -> None:
    answer = ats.get("/", host="blue.test", method=method)
    assert answer.status == 200
    if method != "HEAD":
        assert answer.json()["method"] == method


@pytest.mark.parametrize("method", ["PURGE", "TRACE", "PUSH"])
def test_methods_that_touch_the_proxy_are_refused(ats: Ats, backends: Backends, method: str) -> None:
    backends.clear()
    assert ats.get("/", host="blue.test", method=method).status in (403, 405)
    assert not backends.requests()


def test_connect_is_refused(ats: Ats) -> None:
    head = ats.raw(b"CONNECT 10.244.2.1:8080 HTTP/1.1\r\nHost: 10.244.2.1:8080\r\nConnection: close\r\n\r\n")
    assert head.split(b"\r\n")[0].split(b" ")[1] in (b"403", b"405")


def test_unknown_hosts_and_paths_are_404(ats: Ats) -> None:
    assert_ours(ats.get("/", host="never.heard.of"), 404)
    assert_ours(ats.get("/other", host="green.test"), 404)
    assert_ours(ats.get("/", host="two.levels.wild.test"), 404)
    assert_ours(ats.get("/", host="wild.test"), 404)


def test_no_ready_endpoint_is_503(ats: Ats) -> None:
    assert_ours(ats.get("/none/x", host="blue.test"), 503)
    assert_ours(ats.get("/none/x", host="blue.test", method="POST", body=b"x" * 100_000), 503)


def test_our_answer_to_head_has_no_body(ats: Ats) -> None:
    answer = ats.raw(b"HEAD / HTTP/1.1\r\nHost: never.heard.of\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404") and body == b""


def test_connection_goes_on_after_our_answer(ats: Ats) -> None:
    connection = http_connection(ats.place, NODE_IP, ats.http_port)
    try:
        assert exchange(connection, "/", headers=[("Host", "never.heard.of")]).status == 404
        assert exchange(connection, "/", headers=[("Host", "blue.test")]).status == 200
    finally:
        connection.close()


def test_health_path_answers_for_every_host(ats: Ats) -> None:
    for host in ("blue.test", "never.heard.of", f"{NODE_IP}:{ats.http_port}"):
        answer = ats.get(HEALTH_PATH, host=host)
        assert answer.status == 200 and answer.header("cache-control") == "no-store"
    assert ats.get(HEALTH_PATH + "/x", host="never.heard.of").status == 404


def test_counters_tell_what_became_of_requests(ats: Ats) -> None:
    def count(result: str) -> float:
        return ats.counter("atsk8s_requests_total", result=result)

    before = {name: count(name) for name in ("forwarded", "no_path", "no_endpoint", "bad_request")}
    ats.get("/", host="blue.test")
    ats.get("/other", host="green.test")
    ats.get("/none", host="blue.test")
    ats.get("/%00", host="blue.test")
    assert {name: count(name) - value for name, value in before.items()} == dict.fromkeys(before, 1.0)


# --- X-Forwarded-* -----------------------------------------------------------------------------------

CLAIMS = [
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "bank.test"),
    ("X-Forwarded-Port", "443"),
    ("X_Forwarded_Proto", "https"),
    ("X-Forwarded-Prefix", "/admin"),
    ("Forwarded", "for=203.0.113.7"),
    ("X-Real-IP", "203.0.113.7"),
    ("Client-IP", "203.0.113.7"),
    ("True-Client-IP", "203.0.113.7"),
]


def test_pod_is_told_about_the_client(ats: Ats) -> None:
    headers = seen_headers(ats.get("/", host="blue.test"))
    assert headers["x-forwarded-for"] == NODE_IP
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == "blue.test"
    assert headers["x-forwarded-port"] == "80"
    assert seen_headers(ats.get("/", host="blue.test:8080"))["x-forwarded-port"] == "8080"


def test_claims_of_untrusted_clients_are_replaced(ats: Ats) -> None:
    headers = seen_headers(ats.get("/", host="blue.test", headers=[*CLAIMS, *CLAIMS, ("@internal", "x")]))
    assert {name: value for name, value in headers.items() if "forwarded" in name or "ip" in name.split("-")} == {
        "x-forwarded-for": NODE_IP,
        "x-forwarded-proto": "http",
        "x-forwarded-host": "blue.test",
        "x-forwarded-port": "80",
    }
    assert "x_forwarded_proto" not in headers and "@internal" not in headers


@pytest.mark.parametrize("source", ["10.244.9.8"])
def test_trusted_proxies_are_believed_and_appended_to(ats: Ats, source: str) -> None:
    headers = seen_headers(ats.get("/", host="blue.test", headers=CLAIMS[:4], source=source))
    assert headers["x-forwarded-for"].replace(" ", "") == f"203.0.113.7,{source}"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == "bank.test"
    assert headers["x-forwarded-port"] == "443"
    assert seen_headers(ats.get("/", host="blue.test", source=source))["x-forwarded-proto"] == "http"


def test_ipv6_clients(build: Build, net: PodNet, backends: Backends) -> None:
    options = Options(address=NODE_IP6, plugin_options=["--trusted-proxies=fd00:10:244:9::/64"])
    with ats_directory() as directory:
        made = Ats(build, directory, place=net, options=options)
        made.write("site.yaml", SITE)
        with made as ats:
            headers = seen_headers(ats.get("/", host="blue.test", headers=CLAIMS))
            assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (NODE_IP6, "http")
            headers = seen_headers(ats.get("/", host="six.test", headers=CLAIMS[:4], source="fd00:10:244:9::8"))
            assert headers["x-forwarded-for"].replace(" ", "") == "203.0.113.7,fd00:10:244:9::8"
            assert headers["x-forwarded-proto"] == "https"


# --- WebSocket ------------------------------------------------------------------------------------------


def test_websocket_upgrade_reaches_a_pod(ats: Ats) -> None:
    client = WebSocket(processes.connect(ats.place, NODE_IP, ats.http_port), "blue.test", "/socket")
    try:
        client.send(b"hello", opcode=1)
        assert client.receive() == (1, b"hello")
        client.send(b"x" * 70_000)
        assert client.receive() == (2, b"x" * 70_000)
    finally:
        client.close()


# --- bad requests ----------------------------------------------------------------------------------------

CLOSE = b"Connection: close\r\n\r\n"


def status_of(answer: bytes) -> int:
    """The status of a raw answer."""
    assert answer.startswith(b"HTTP/1."), answer[:80]
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("request_bytes", "status", "chosen"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n" + CLOSE, 400, None, id="no Host on HTTP/1.1"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", 404, None, id="no Host on HTTP/1.0: no rule"),
        pytest.param(b"GET /hostless HTTP/1.0\r\n\r\n", 200, b"green", id="no Host on HTTP/1.0: rules without a host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: blue.test\r\nHost: green.test\r\n" + CLOSE, 400, None, id="two Hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: \r\n" + CLOSE, 400, None, id="empty Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: blue.test:99999\r\n" + CLOSE, 400, None, id="port out of range"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: blue.test/x\r\n" + CLOSE, 400, None, id="Host with a slash"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n" + CLOSE, 404, None, id="IPv6 literal"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: blue.test:8080\r\n" + CLOSE, 200, b"blue", id="port"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: BLUE.Test\r\n" + CLOSE, 200, b"blue", id="upper case"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: blue.test.\r\n" + CLOSE, 200, b"blue", id="trailing dot"),
        pytest.param(b"GET http://green.test/only HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"green", id="absolute form wins"),
        pytest.param(b"GET http://green.test/only HTTP/1.1\r\n" + CLOSE, 200, b"green", id="absolute form without Host"),
        pytest.param(
            b"GET http://green.test/only HTTP/1.1\r\nHost: blue.test\r\nMax-Forwards: 0\r\n" + CLOSE, 400, None, id="two hosts"
        ),
        pytest.param(b"GET /x/%2e%2e/private HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="encoded dots"),
        pytest.param(b"GET /x/../private HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="dots"),
        pytest.param(b"GET //private HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="two slashes"),
        pytest.param(b"GET /x/..//private HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="slashes inside"),
        pytest.param(b"GET /%70rivate HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="encoded letter"),
        pytest.param(
            b"GET /private;x=1 HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"blue", id="params are part of the segment"
        ),
        pytest.param(b"GET /private/;x=1 HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"private", id="params below"),
        pytest.param(b"GET /private%2Fx HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"blue", id="%2F is opaque"),
        pytest.param(b"GET /../private HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="dots out of the root"),
        pytest.param(b"GET /a%00b HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="NUL"),
        pytest.param(b"GET /a%zz HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="bad escape"),
        pytest.param(b"GET /a\x01b HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="control byte"),
        pytest.param(b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 414, None, id="path of 8193 bytes"),
        pytest.param(b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"blue", id="path of 8192 bytes"),
        pytest.param(b"GET /" + b"a" * 64_000 + b" HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 414, None, id="path of 64,001 bytes"),
        pytest.param(
            b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="path over ATS's 64 KiB"
        ),
        pytest.param(b"GET /?" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 200, b"blue", id="long query"),
        pytest.param(b"GET blue.test HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="no path"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: blue.test\r\n" + CLOSE, 400, None, id="asterisk form"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None, None, id="TLS on the plain port"),
    ],
)
def test_odd_requests_have_one_answer(ats: Ats, request_bytes: bytes, status: int | None, chosen: bytes | None) -> None:
    answer = ats.raw(request_bytes)
    if status is not None:
        assert status_of(answer) == status, answer[:200]
    if chosen is not None:
        assert b'"app": "' + chosen + b'"' in answer or b'"app":"' + chosen + b'"' in answer, answer[:400]
    assert ats.get("/", host="blue.test").status == 200
