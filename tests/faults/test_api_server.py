"""An API server that fails in any way costs freshness for a while, and no client a request."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL
from tests.faults.report import FaultFactory
from tests.faults.site import ALL, App, Site, took_s
from tests.harness import processes
from tests.harness.api_proxy import ApiProxy
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.manifests import path
from tests.harness.podnet import NODE_IP

GROUP = "API server"
N_KILLS = 3
# Each kind asks again after a backoff of at most 5 s (nobody answers) or 30 s (an error), doubled by jitter.
RECOVERY_S = 75.0
# A watch of EndpointSlices lives 70 s at most, and is given up 15 s later; then one list.
HALF_OPEN_S = 90.0
OUTAGE_REQUESTS = 150  # of each protocol, while the fault lasts
STORM_REQUESTS_MAX, STORM_S = 120, 12.0  # what a storm of 410 may cost the API server, and in which time

# What is logged of an API server that fails, also by a server that starts just then.
EXPECTED = "list or watch failed|rejected|accepted with conditions|starting without a table"

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxied:
    """A site whose server watches through a proxy that can go wrong."""

    site: Site
    proxy: ApiProxy


@contextlib.contextmanager
def proxied_site(build: Build, site: Site, ip: str, tmp_path_factory: pytest.TempPathFactory, *, user: str) -> Generator[Proxied]:
    """A further server over the same cluster."""
    plane, net = site.cluster.plane, site.cluster.net
    with (
        ApiProxy(plane, place=net, ip=ip, directory=tmp_path_factory.mktemp("proxy")) as proxy,
        ats_directory() as directory,
    ):
        directory.mkdir(mode=0o755)
        kubeconfig = proxy.kubeconfig(directory / "kubeconfig", token=plane.token(user))
        (admin_port,) = processes.free_ports(net, "127.0.0.1", 1)
        given = [f"--kubeconfig={kubeconfig}", f"--admin=127.0.0.1:{admin_port}"]
        ats = Ats(build, directory, place=net, options=Options(address=NODE_IP, manifests=False, plugin_options=given))
        ats.admin_port = admin_port
        with ats:
            yield Proxied(site=Site(cluster=site.cluster, fleet=site.fleet, ats_override=ats), proxy=proxy)
            ats.allow(EXPECTED)


@pytest.fixture(scope="module")
def app(shared_site: Site) -> App:
    """An app of three pods."""
    made = shared_site.create("steady", ["10.244.20.1", "10.244.20.2", "10.244.20.3"])
    shared_site.await_app(made)
    return made


@pytest.fixture(scope="module")
def shared_proxied(build: Build, shared_site: Site, app: App, tmp_path_factory: pytest.TempPathFactory) -> Generator[Proxied]:
    """One server behind a proxy, for what a real API server cannot be made to say."""
    with proxied_site(build, shared_site, "10.244.0.9", tmp_path_factory, user="proxied") as made:
        yield made


@pytest.fixture
def proxied(shared_proxied: Proxied) -> Generator[Proxied]:
    """The same, with a look at its logs."""
    yield shared_proxied
    shared_proxied.site.ats.allow(EXPECTED)
    shared_proxied.site.ats.check_logs()


@dataclass(slots=True, kw_only=True)
class HalfOpen:
    """A server whose connections to the API server have been half-open since `since_s`."""

    proxied: Proxied
    since_s: float


@pytest.fixture(scope="module", autouse=True)
def half_open(build: Build, shared_site: Site, app: App, tmp_path_factory: pytest.TempPathFactory) -> Generator[HalfOpen]:
    """Begun with the module's first test, as it takes more than a minute; the last test looks at what became of it."""
    with proxied_site(build, shared_site, "10.244.0.10", tmp_path_factory, user="ingress") as made:
        assert made.site.get(app.host).status == 200
        made.proxy.asked.clear()
        made.proxy.stall()
        yield HalfOpen(proxied=made, since_s=time.monotonic())


def disturbed(site: Site) -> None:
    """Expect what is logged of an API server that fails."""
    site.ats.allow(EXPECTED)


def test_killed_again_and_again(site: Site, app: App, fault: FaultFactory) -> None:
    """SIGKILL while it serves, while it starts, and while it is asked again."""
    plane = site.cluster.plane
    disturbed(site)
    measured = fault(f"API server killed {N_KILLS} times", right="200; readiness stays", recovered_max_s=RECOVERY_S)
    with site.loaded(app, measured, protocols=ALL) as traffic:
        for _ in range(N_KILLS):
            plane.kill_api_server()
            traffic.flow(OUTAGE_REQUESTS // 3)
            assert site.ats.admin("/readyz").status == 200
            plane.start_api_server()
        site.cluster.renew_controllers()
        measured.recovered_s = site.await_fresh(app, timeout_s=RECOVERY_S)
        traffic.served(20)
    measured.check(at_least=300)


def test_paused(site: Site, app: App, fault: FaultFactory) -> None:
    """SIGSTOP: the kernel accepts connections and acknowledges, and nobody answers."""
    plane = site.cluster.plane
    disturbed(site)
    measured = fault("API server paused", right="200; readiness stays", recovered_max_s=RECOVERY_S)
    with site.loaded(app, measured, protocols=ALL) as traffic:
        plane.pause_api_server()
        try:
            traffic.flow(OUTAGE_REQUESTS)
            assert site.ats.admin("/readyz").status == 200
        finally:
            plane.resume_api_server()
            began_s = time.monotonic()
        plane.await_api_server()
        site.await_fresh(app, timeout_s=RECOVERY_S)
        measured.recovered_s = time.monotonic() - began_s
        traffic.served(20)
    measured.check(at_least=300)


def test_credentials_refused(proxied: Proxied, app: App, fault: FaultFactory) -> None:
    """401 to everything: the API server itself says it, to a token that it does not know."""
    site, proxy = proxied.site, proxied.proxy
    measured = fault("API server answers 401", right="200; readiness stays", recovered_max_s=RECOVERY_S)
    with site.loaded(app, measured) as traffic:
        proxy.spoil_token(True)
        proxy.cut()
        took_s("/readyz names it", lambda: "401" in site.ats.admin("/readyz").body.decode(), timeout_s=30)
        traffic.flow(OUTAGE_REQUESTS)
        assert site.ats.admin("/readyz").status == 200
        proxy.spoil_token(False)
        measured.recovered_s = site.await_fresh(app, timeout_s=RECOVERY_S)
    measured.check(at_least=300)


def test_one_kind_forbidden(proxied: Proxied, app: App, fault: FaultFactory) -> None:
    """403 to EndpointSlices alone, by RBAC: the pods that are known stay, and other kinds go on."""
    site, proxy, plane = proxied.site, proxied.proxy, proxied.site.cluster.plane
    measured = fault("API server answers 403 to one kind", right="200; readiness stays", recovered_max_s=RECOVERY_S)
    with site.loaded(app, measured) as traffic:
        plane.allow("proxied", [one for one in (*MANDATORY, *OPTIONAL) if not one.startswith("endpointslices")])
        try:
            proxy.cut()
            took_s("/readyz names it", lambda: "403" in site.ats.admin("/readyz").body.decode(), timeout_s=30)
            site.await_fresh(app, timeout_s=RECOVERY_S)  # Ingresses are still watched
            traffic.flow(OUTAGE_REQUESTS)
            assert site.ats.admin("/readyz").status == 200
        finally:
            plane.allow("proxied", [*MANDATORY, *OPTIONAL])
        measured.recovered_s = took_s("EndpointSlices are watched again", site.is_watched, timeout_s=RECOVERY_S)
    measured.check(at_least=300)


@pytest.mark.parametrize("in_stream", [False, True], ids=["status", "event"])
def test_storm_of_410(proxied: Proxied, app: App, fault: FaultFactory, in_stream: bool) -> None:
    """Every watch is told that its history is gone, again and again: lists follow, and not as many as the storm would have."""
    site, proxy = proxied.site, proxied.proxy
    how = "as an event" if in_stream else "as the status"
    measured = fault(f"410 to every watch, {how}", right="200; few lists", recovered_max_s=RECOVERY_S)
    with site.loaded(app, measured) as traffic:
        before, began_s = proxy.n_requests, time.monotonic()
        # A streamed list is a watch, too, and a good one: else there would be no list to follow the storm.
        proxy.refuse("watch=true(?!.*sendInitialEvents)", 410, in_stream=in_stream)
        proxy.cut()
        traffic.flow(OUTAGE_REQUESTS * 3)
        n_asked, spent_s = proxy.n_requests - before, time.monotonic() - began_s
        proxy.refuse("watch=true(?!.*sendInitialEvents)", 0)
        assert n_asked <= STORM_REQUESTS_MAX * max(spent_s / STORM_S, 1), f"{n_asked} requests in {spent_s:.0f} s of storm"
        measured.notes.append(f"{n_asked} requests to the API server")
        assert site.ats.admin("/readyz").status == 200
        measured.recovered_s = site.await_fresh(app, timeout_s=RECOVERY_S)
    measured.check(at_least=300)


def test_half_open(half_open: HalfOpen, app: App, fault: FaultFactory) -> None:
    """Something between acknowledges for a server that no longer speaks: our own time limits find it out."""
    site = half_open.proxied.site
    cluster, late = site.cluster, "10.244.20.4"
    disturbed(site)
    measured = fault("API server half-open, acknowledged", right="200; a new pod is found after all", recovered_max_s=HALF_OPEN_S)
    with site.loaded(app, measured) as traffic:
        site.fleet.start("steady", [late])
        cluster.pods("steady", [late])
        left_s = max(half_open.since_s + HALF_OPEN_S + 20 - time.monotonic(), RECOVERY_S)
        took_s("the new pod is in the table", lambda: _has(site.ats, late), timeout_s=left_s)
        traffic.flow(40)
    again_s = [at_s for at_s, target in half_open.proxied.proxy.asked if "/endpointslices" in target]
    measured.recovered_s = again_s[0] - half_open.since_s
    measured.check(at_least=100)


def _has(ats: Ats, ip: str) -> bool:
    return f"{ip}:8080" in ats.admin("/dump").body.decode()


def test_etcd_goes_back(site: Site, proxied: Proxied, app: App, fault: FaultFactory) -> None:
    """etcd is restored from a backup: resourceVersions go back, and what was made since is gone."""
    cluster, plane = site.cluster, site.cluster.plane
    disturbed(site)
    measured = fault("etcd restored to an older state", right="200; what came after the backup is gone", recovered_max_s=RECOVERY_S)
    plane.checkpoint()
    with site.loaded(app, measured, protocols=ALL) as traffic:
        host = _made(site, app, "future")
        for number in range(20):  # versions that the restored etcd has not reached by the time it is asked
            cluster.create(_noise(cluster.namespace, number))
        plane.go_back()
        began_s = time.monotonic()
        cluster.renew_controllers()
        for one in (site, proxied.site):
            took_s("what came later is gone", lambda one=one: one.get(host).status == 404, timeout_s=RECOVERY_S)
        site.await_fresh(app, timeout_s=RECOVERY_S)
        measured.recovered_s = time.monotonic() - began_s
        traffic.served(20)
    measured.check(at_least=300)


def _made(site: Site, app: App, name: str) -> str:
    host = site.cluster.host(name)
    site.cluster.create(site.cluster.ingress(name, {host: [path(app.name)]}))
    processes.await_condition(f"{host} is served", lambda: site.get(host).status == 200, timeout_s=RECOVERY_S)
    return host


def _noise(namespace: str, number: int) -> dict[str, object]:
    metadata = {"name": f"noise-{number}", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}
