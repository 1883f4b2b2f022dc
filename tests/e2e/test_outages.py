"""An API server that is killed, cut off, or has forgotten the past costs freshness for a while, and no client a request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator

import pytest

from tests.e2e.cluster import Cluster
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH
from tests.harness.load import Load, Request
from tests.harness.manifests import path
from tests.harness.patience import slowness
from tests.harness.podnet import NODE_IP

NETWORKING = "networking.k8s.io/v1"
OUTAGE_S = 30.0
# After an outage each kind waits its backoff of at most 30 s, doubled by jitter, before it asks again.
RECOVERY_TIMEOUT_S = 75.0
HALF_OPEN_TIMEOUT_S = 60.0  # the connection is found dead by keep-alive probes after 25 s

DISTURBS_THE_API_SERVER = True
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def site(cluster: Cluster) -> Generator[Cluster]:
    """One app of two pods behind http and https."""
    host, ips = cluster.host(), ["10.244.20.1", "10.244.20.2"]
    with cluster.backends("app", ips):
        cluster.pods("app", ips)
        cluster.create(
            cluster.service("app"),
            cluster.secret("cert", cluster.authority.pair([host])),
            cluster.ingress("site", {host: [path("app")]}, tls={"cert": [host]}),
        )
        cluster.await_answer(host, app="app")
        cluster.await_answer(host, app="app", https=True)
        yield cluster


@contextlib.contextmanager
def loaded(site: Cluster) -> Generator[list[Load]]:
    """Constant load while the block runs, over HTTP (the health path with it) and HTTPS; no request may fail."""
    host = site.host()
    plain = [Request(host=host, app="app"), Request(host=host, path="/x", app="app"), Request(host=host, path=HEALTH_PATH)]
    http = Load(plain, ip=NODE_IP, port=site.ats.http_port, place=site.net, directory=site.directory, name="http")
    https = Load(
        [Request(host=host, app="app")],
        ip=NODE_IP,
        port=site.ats.https_port,
        place=site.net,
        directory=site.directory,
        ca_file=site.authority.path,
        requests_per_s=50,
        requests_per_connection=5,
        name="https",
    )
    with http, https:
        yield [http, https]
    for load in (http, https):
        result = load.finished
        print(f"{result.n_ok} requests, {result.n_failed} failed, p99 {result.p99_ms} ms, longest {result.max_ms} ms")
        result.expect_no_failure(at_least=int(result.elapsed_s * 20 / slowness()))


def recovery(what: str, probe: Callable[[], object], *, timeout_s: float) -> None:
    """Wait for `probe`, and print how long it took."""
    began_s = time.monotonic()
    processes.await_condition(what, probe, timeout_s=timeout_s)
    print(f"{what}: after {time.monotonic() - began_s:.1f} s")


def answers(site: Cluster, host: str, status: int) -> Callable[[], bool]:
    """A probe: a request for this host is answered by this status."""
    return lambda: site.get(host).status == status


def relists(site: Cluster) -> float:
    """How often Ingresses were listed anew."""
    return site.ats.counter("atsk8s_relists_total", kind="Ingress")


def test_a_killed_api_server_loses_no_request(site: Cluster) -> None:
    """SIGKILL, 30 s of nothing, a start: no request fails, the server stays ready, and what is changed then arrives."""
    late, plane = site.host("late"), site.plane
    with loaded(site) as loads:
        plane.kill_api_server()
        try:
            ends_s = time.monotonic() + OUTAGE_S

            def is_over() -> bool:
                answer = site.ats.admin("/readyz")
                assert answer.status == 200, answer.body
                return time.monotonic() >= ends_s

            # Not OSError and AssertionError as "not yet": an unready moment must end the wait.
            processes.await_condition("the outage has lasted", lambda: _strict(is_over), timeout_s=OUTAGE_S + 10)
            text = site.ats.admin("/readyz").body.decode()
            assert "ready" in text.splitlines() and "connection refused" in text, text
            assert site.ats.counter("atsk8s_kind_age_seconds", kind="Ingress") > OUTAGE_S / 2
        finally:
            site.end_outage()
        site.create(site.ingress("late", {late: [path("app")]}))
        recovery("a new Ingress is seen after the outage", answers(site, late, 200), timeout_s=RECOVERY_TIMEOUT_S)
        site.delete(NETWORKING, "Ingress", "late")
        recovery("it is gone again", answers(site, late, 404), timeout_s=RECOVERY_TIMEOUT_S)
        for load in loads:
            load.await_more(20)


class _NotReadyError(Exception):
    """Readiness was lost; not what await_condition takes for "not yet"."""


def _strict(probe: Callable[[], bool]) -> bool:
    try:
        return probe()
    except AssertionError as error:
        raise _NotReadyError(str(error)) from error


def test_forgotten_history_leads_to_a_new_list(site: Cluster) -> None:
    """410: what was deleted, made and changed while nobody watched is as it should be after the relist."""
    plane, api = site.plane, site.plane.api
    gone, made, moved = site.host("gone"), site.host("made"), site.host("moved")
    site.create(site.ingress("gone", {gone: [path("app")]}), site.ingress("moved", {site.host("before"): [path("app")]}))
    site.await_answer(gone)
    site.await_answer(site.host("before"))
    before = relists(site)
    site.ats.child.pause()
    try:
        # Else the events would lie in the socket's buffer until it goes on.
        site.net.abort_connections(plane.address, plane.port)
        api.close()
        site.delete(NETWORKING, "Ingress", "gone")
        site.create(site.ingress("made", {made: [path("app")]}))
        api.apply(site.ingress("moved", {moved: [path("app")]}))
        plane.compact()
        plane.kill_api_server()
        site.end_outage()
    finally:
        site.ats.child.resume()
    recovery("the deleted Ingress is gone", answers(site, gone, 404), timeout_s=RECOVERY_TIMEOUT_S)
    site.await_answer(made)
    site.await_answer(moved)
    site.await_answer(site.host("before"), status=404)
    assert relists(site) > before, "the watch went on: this test showed nothing"
    assert site.ats.admin("/readyz").status == 200


def test_a_connection_that_died_silently_is_replaced(site: Cluster) -> None:
    """Every packet to and from the API server is dropped: watches hang, are found dead, and are made again when it is back."""
    late, net, plane = site.host("late"), site.net, site.plane

    def has_noticed() -> bool:
        return "Ingress: synced (" in site.ats.admin("/readyz").body.decode()

    with loaded(site) as loads:
        net.blackhole(plane.address)
        try:
            recovery("the silence is noticed", has_noticed, timeout_s=HALF_OPEN_TIMEOUT_S)
            assert site.ats.admin("/readyz").status == 200
        finally:
            net.heal(plane.address)
        plane.await_api_server()
        site.create(site.ingress("late", {late: [path("app")]}))
        recovery("a new Ingress is seen after the silence", answers(site, late, 200), timeout_s=RECOVERY_TIMEOUT_S)
        for load in loads:
            load.await_more(20)
    site.renew_controllers()
