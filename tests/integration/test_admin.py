"""The admin endpoint of a running server: health with reasons, metrics, explain, dump and conditions; on its own port alone."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from atsk8s import __version__, metrics
from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod, fetch
from tests.harness.manifests import app, ingress, path, tls_secret


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")


# Once, a second after the start: which test is then under way, or none any more, is chance.
SAID_OF_DANGLING = 'accepted with conditions object="Ingress test/dangling"'


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pod]:
    """One pod on a free port."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    made = Pod(app="blue", ip="127.0.0.2", port=port)
    with Backends([made], directory=tmp_path_factory.mktemp("backends")):
        yield made


@pytest.fixture(scope="module")
def running(build: Build, pod: Pod, authority: Authority) -> Generator[Ats]:
    """One server for the module: a good Ingress with a certificate, and one whose path leads to no Service."""
    pair = authority.pair(["blue.test"])
    with ats_directory() as directory:
        made = Ats(build, directory)
        made.write(
            "site.yaml",
            [
                ingress("blue", {"blue.test": [path("blue")]}, tls={"blue": ["blue.test"]}),
                ingress("dangling", {"dangling.test": [path("nowhere", "/x")]}),
                *app("blue", [pod.ip], port=pod.port),
                tls_secret("blue", pair.certificate, pair.key),
            ],
        )
        with made:
            yield made
            made.allow(SAID_OF_DANGLING)


@pytest.fixture
def ats(running: Ats) -> Generator[Ats]:
    """The server; its logs are looked at after each test."""
    yield running
    running.allow(SAID_OF_DANGLING)
    running.check_logs()


def samples(ats: Ats) -> dict[str, float]:
    """Every sample of /metrics: name with labels to value."""
    answer = ats.admin("/metrics")
    assert answer.status == 200 and (answer.header("content-type") or "").startswith("text/plain; version=")
    lines = (line for line in answer.body.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_live_and_ready(ats: Ats) -> None:
    assert (ats.admin("/livez").status, ats.admin("/livez").body) == (200, b"ok\n")
    answer = ats.admin("/readyz")
    assert answer.status == 200
    lines = answer.body.decode().splitlines()
    assert lines[0] == "ready"
    for kind in ("Ingress", "Service", "EndpointSlice", "IngressClass", "Secret", "Namespace"):
        assert f"{kind}: synced" in lines
    assert lines[-1] == f"table version {ats.version()}"


def test_readyz_waits_for_a_version(ats: Ats) -> None:
    """Without a wait it says at once what is missing; with one it answers when the version is there."""
    version = ats.version()
    answer = ats.admin(f"/readyz?version={version + 1}")
    assert answer.status == 503
    assert f"table version is {version}, asked for {version + 1}" in answer.body.decode()

    answers = []
    waiting = threading.Thread(target=lambda: answers.append(ats.admin(f"/readyz?wait=20&version={version + 1}")))
    waiting.start()
    try:
        ats.write("more.yaml", [ingress("more", {"more.test": [path("blue")]})])
    finally:
        waiting.join(30)
    assert [answer.status for answer in answers] == [200]
    assert ats.get("/", host="more.test").status == 200
    for bad in ("wait=soon", "version=first", "wait=nan"):
        assert ats.admin(f"/readyz?{bad}").status in (200, 400)
    assert ats.admin("/readyz?wait=soon").status == 400


def test_every_metric_is_there(ats: Ats) -> None:
    """What docs/metrics.md promises is exposed, with the documented type, and counts what happens."""
    text = ats.admin("/metrics").body.decode()
    for metric in (*metrics.COUNTED_IN_C, *metrics.READ_FROM_CONTROLLER):
        assert re.search(rf"^# TYPE {metric.name} {metric.type}$", text, re.MULTILINE), metric.name
    before = samples(ats)
    assert ats.get("/", host="blue.test").status == 200
    assert ats.get("/", host="nobody.test").status == 404
    assert ats.get("/x", host="dangling.test").status == 503
    after = samples(ats)
    grown = {name for name in after if name.startswith("atsk8s_requests_total") and after[name] > before.get(name, 0)}
    assert len(grown) == 3, f"three requests, three results: {grown}"
    assert after[f'atsk8s_info{{version="{__version__}"}}'] == 1
    assert (after["atsk8s_ready"], after["atsk8s_controller_errors_total"]) == (1, 0)
    assert after['atsk8s_objects{kind="Ingress"}'] >= 2
    assert after['atsk8s_rejected_objects{kind="Ingress",reason="NotFound"}'] == 1
    assert after['atsk8s_commits_total{result="published"}'] >= 1
    assert after['atsk8s_table_objects{what="certificates"}'] == 1
    expiry = [value for name, value in after.items() if name.startswith("atsk8s_certificate_not_after_seconds")]
    assert len(expiry) == 1 and expiry[0] > 1.7e9


def test_handshakes_are_counted(ats: Ats, authority: Authority) -> None:
    before = sum(value for name, value in samples(ats).items() if name.startswith("atsk8s_tls_handshakes_total"))
    assert ats.get_tls("/", host="blue.test", tls=authority.client_context()).status == 200
    after = sum(value for name, value in samples(ats).items() if name.startswith("atsk8s_tls_handshakes_total"))
    assert after == before + 1


def test_explain_says_what_the_request_path_does(ats: Ats, pod: Pod) -> None:
    """C's decision and the model's account of it, side by side."""
    said = ats.explain("http://BLUE.test:80/a/../b")
    assert said["decision"] == "rule"
    assert said["object"] == "test/blue"
    assert said["virtual_host"] == "blue.test"
    assert said["services"] == {"test/blue:80": [f"127.0.0.2:{pod.port}"]}
    assert ats.explain("http://nobody.test/")["decision"] == "no_host"
    said = ats.explain("http://dangling.test/other")
    assert said["decision"] == "no_path"
    said = ats.explain("http://dangling.test/x")
    assert (said["decision"], said["services"]) == ("rule", {"test/nowhere:80": []})
    conditions = said["conditions"]
    assert isinstance(conditions, list)
    (condition,) = conditions
    assert condition["reason"] == "NotFound" and "nowhere" in condition["message"]
    assert ats.explain("http://bad_%00host/")["decision"] != "rule"
    for url in ("", "no-url", "/only/a/path"):
        assert ats.admin(f"/explain?url={url}").status == 400


def test_dump_has_everything_but_secrets(ats: Ats, pod: Pod) -> None:
    answer = ats.admin("/dump")
    dumped = answer.json()
    assert {"blue.test", "dangling.test"} <= {one["host"] for one in dumped["virtual_hosts"]}
    assert dumped["services"]["test/blue:80"] == [f"127.0.0.2:{pod.port}"]
    (tls,) = dumped["tls"]
    assert (tls["host"], tls["certificates"][0]["names"]) == ("blue.test", ["blue.test"])
    key = Path(ats.manifests / "site.yaml").read_text().split('"tls.key": "')[1].split('"')[0]
    assert b"PRIVATE" not in answer.body and key.encode() not in answer.body


def test_conditions_name_object_reason_and_remedy(ats: Ats) -> None:
    found = ats.admin("/conditions").json()
    (mine,) = (one for one in found if (one["kind"], one["name"]) == ("Ingress", "dangling"))
    assert (mine["namespace"], mine["reason"], mine["fatal"]) == ("test", "NotFound", False)
    assert "Service test/nowhere" in mine["message"] and "create it" in mine["message"]
    assert not [one for one in found if one["name"] == "blue"]


def test_unknown_paths_and_methods(ats: Ats) -> None:
    answer = ats.admin("/unknown")
    assert answer.status == 404 and b"/explain?url=URL" in answer.body
    posted = fetch(processes.LOOPBACK, "127.0.0.1", ats.admin_port, "/livez", method="POST", body=b"x")
    assert posted.status == 501
    head = fetch(processes.LOOPBACK, "127.0.0.1", ats.admin_port, "/readyz", method="HEAD")
    assert (head.status, head.body) == (200, b"")


def test_it_is_not_on_the_traffic_ports(ats: Ats) -> None:
    """/metrics of a client's request is a path like any other."""
    for target in ("/metrics", "/dump", "/readyz"):
        assert ats.get(target, host="nobody.test").status == 404
        assert ats.get(target, host="blue.test").json()["app"] == "blue"


def test_idle_connections_cannot_shut_it(ats: Ats) -> None:
    """More clients than it serves at a time: further ones are closed, and it answers again when they are gone."""
    idle = [processes.connect(processes.LOOPBACK, "127.0.0.1", ats.admin_port) for _ in range(40)]
    try:
        assert ats.get("/", host="blue.test").status == 200
    finally:
        for sock in idle:
            sock.close()

    def is_back() -> bool:
        return ats.admin("/livez").status == 200

    # Closed by us without an answer, it shows as RemoteDisconnected, which is a ConnectionResetError and so "not yet".
    processes.await_condition("the admin endpoint answers again", is_back, timeout_s=15)


def test_off_means_no_port(build: Build, pod: Pod) -> None:
    with ats_directory() as directory:
        made = Ats(
            build, directory, options=Options(manifests=False, plugin_options=[f"--manifests={directory}/manifests", "--admin=off"])
        )
        made.write("site.yaml", [ingress("blue", {"blue.test": [path("blue")]}), *app("blue", [pod.ip], port=pod.port)])
        with made:
            assert made.get("/", host="blue.test").status == 200
            assert not processes.is_listening(processes.LOOPBACK, "127.0.0.1", 9464)
