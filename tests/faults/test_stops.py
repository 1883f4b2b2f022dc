"""A stop costs nobody anything: readiness goes first, what is under way ends, and whoever balances over us has gone elsewhere."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.faults.report import Fault, FaultFactory
from tests.faults.site import App, Site, took_s
from tests.faults.test_processes import WrappedAts, made_ats, with_ats
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats, ats_directory
from tests.harness.backends import WebSocket
from tests.harness.balancer import Balanced
from tests.harness.load import Request
from tests.harness.patience import stretched
from tests.harness.podnet import NODE_IP

GROUP = "Starts and stops"
DRAIN_S = 6
SLOW_MS = 3000
N_SLOW = 8
BALANCER_IP = "10.244.0.80"
RECORDS = {"proxy.config.stop.shutdown_timeout": DRAIN_S}
# From SIGTERM to the exit: the whole drain, and what Traffic Server takes to notice and to end.
STOP_S = DRAIN_S + 6

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def app(shared_site: Site) -> App:
    """An app of three pods."""
    made = shared_site.create("stopping", ["10.244.22.1", "10.244.22.2", "10.244.22.3"])
    shared_site.await_app(made)
    return made


@contextlib.contextmanager
def prepared(build: Build, site: Site) -> Generator[WrappedAts]:
    """A further server that drains, not started; killed at the end."""
    with ats_directory() as directory:
        made = made_ats(build, site, directory, records=RECORDS)
        try:
            yield made
        finally:
            made.kill()


def stopped(ats: Ats) -> float:
    """SIGTERM; wait for status 0; return the seconds that took."""
    began_s = time.monotonic()
    status = ats.child.stop(timeout_s=STOP_S + 10)
    spent_s = time.monotonic() - began_s
    assert status == 0, f"status {status}\n{ats.log_tail()}"
    assert spent_s <= stretched(STOP_S), f"a stop took {spent_s:.1f} s"
    return spent_s


class Slow:
    """Requests that take SLOW_MS, each in a thread of its own, and a WebSocket that talks on."""

    def __init__(self, site: Site, app: App, fault: Fault) -> None:
        self._site, self._app, self._fault = site, app, fault
        self._threads: list[threading.Thread] = []
        self.found: list[str] = []

    def begin(self) -> None:
        """Send everything."""
        tls = self._site.cluster.authority.client_context()
        for number in range(N_SLOW):
            how = {"tls": tls, "server_name": self._app.host} if number % 2 else {}
            self._spawn(self._get, how)
        self._spawn(self._talk, {})

    def _spawn(self, target: object, how: dict[str, object]) -> None:
        thread = threading.Thread(target=target, kwargs={"how": how})  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _get(self, how: dict[str, object]) -> None:
        try:
            if how:
                answer = self._site.ats.get_tls(f"/?slow_ms={SLOW_MS}", host=self._app.host, tls=how["tls"])  # type: ignore[arg-type]
            else:
                answer = self._site.get(self._app.host, f"/?slow_ms={SLOW_MS}")
            self.found.append("" if answer.status == 200 else f"status {answer.status}")
        except Exception as error:
            self.found.append(repr(error))

    def _talk(self, how: dict[str, object]) -> None:
        ats = self._site.ats
        try:
            sock = processes.connect(ats.place, NODE_IP, ats.http_port, timeout_s=10)
            talk = WebSocket(sock, self._app.host)
            ends_s, n = time.monotonic() + SLOW_MS / 1000, 0
            while time.monotonic() < ends_s:
                talk.send(b"%d" % n)
                assert talk.receive() == (2, b"%d" % n)
                n += 1
                threading.Event().wait(0.05)
            talk.close()
            self.found.append("")
        except Exception as error:
            self.found.append(f"WebSocket: {error!r}")

    def end(self) -> None:
        """Wait for all of them, and count them."""
        for thread in self._threads:
            thread.join(30)
        failures = {what: self.found.count(what) for what in set(self.found) if what}
        self._fault.count(self.found.count(""), failures)


def test_drain(build: Build, site: Site, app: App, fault: FaultFactory) -> None:
    """SIGTERM: unready within a second, what is under way ends well, new requests are still answered, status 0 in time."""
    measured = fault("SIGTERM, requests under way", right="200; unready first; status 0", recovered_max_s=STOP_S)
    with prepared(build, site) as ats:
        ats.start()
        ats.await_ready()
        other = with_ats(site, ats)
        before = sum(site.fleet.n_requests(ip) for ip in app.ips)
        slow = Slow(other, app, measured)
        slow.begin()
        processes.await_condition("they are under way", lambda: sum(site.fleet.n_requests(ip) for ip in app.ips) >= before + N_SLOW)
        began_s = time.monotonic()
        ats.child.signal(signal.SIGTERM)
        unready_s = took_s("the health path answers 503", lambda: ats.get(HEALTH_PATH).status == 503, timeout_s=DRAIN_S)
        measured.notes.append(f"unready after {unready_s:.2f} s")
        assert ats.admin("/readyz").status == 503
        assert other.get(app.host).status == 200, "a request that comes during the drain"
        slow.end()
        status = ats.child.popen.wait(stretched(STOP_S))
        measured.recovered_s = time.monotonic() - began_s
        assert status == 0, ats.log_tail()
        ats.check(status)
    measured.check(at_least=N_SLOW + 1)


def test_rolling_restart(build: Build, site: Site, app: App, fault: FaultFactory, tmp_path: Path) -> None:
    """Two instances behind a balancer, one after the other stopped and started under load: no request is lost."""
    measured = fault("rolling restart of two instances", right="200", recovered_max_s=30)
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(prepared(build, site)) for _ in range(2)]
        for ats in both:
            ats.start()
        for ats in both:
            ats.await_ready()
        instances = [(NODE_IP, (ats.http_port, ats.https_port)) for ats in both]
        balanced = stack.enter_context(
            Balanced(instances, health_path=HEALTH_PATH, ip=BALANCER_IP, place=site.cluster.net, directory=tmp_path)
        )
        processes.await_condition("both are in", lambda: all(balanced.which()))
        ports = (balanced.ports[0], balanced.ports[1])
        # A WebSocket lives a second here: what lives longer than the drain is cut with it, and its client comes again.
        lives = {"websocket": 10}
        with site.loaded(
            app,
            measured,
            ip=BALANCER_IP,
            ports=ports,
            requests_per_connection=lives,  # type: ignore[arg-type]
            requests=[Request(host=app.host, app=app.name), Request(host=app.host, path="/?slow_ms=300", app=app.name)],
        ) as traffic:
            traffic.served(40)
            for number, ats in enumerate(both):
                stopped(ats)
                began_s = time.monotonic()
                ats.start()
                ats.await_ready()
                processes.await_condition("it is in again", lambda number=number: balanced.which()[number])  # type: ignore[misc]
                measured.recovered_s = max(measured.recovered_s, time.monotonic() - began_s)
                traffic.served(40)
        for ats in both:
            stopped(ats)
            ats.check_logs()
    measured.check(at_least=360)
