"""Traffic Server starts and stops, again and again, under load and in the middle of changes: status 0 and no core, each time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy import server
from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod
from tests.harness.load import Load, Request
from tests.harness.manifests import Json, app, ingress, path, tls_secret
from tests.harness.patience import stretched

STARTS = 20
HOST = "app.test"
N_EXTRA_HOSTS = 200  # so that Python has work at the moment of a stop
ONE_START_S = 15.0  # bound of a start, some requests and a stop


class Site:
    """A server that is started again and again, its one pod, and loads that outlive it."""

    def __init__(self, build: Build, directory: Path, scratch: Path, pod: Pod, seed: int) -> None:
        self.ats = Ats(build, directory)
        self.pod, self._scratch = pod, scratch
        self.random = random.Random(seed)
        self.authority = Authority(scratch / "ca.pem")
        self._pairs = [self.authority.pair([HOST]) for _ in range(4)]
        self.change()

    def change(self) -> None:
        """Write other hosts and another certificate, and wait for nothing."""
        chosen = self.random.sample(range(10 * N_EXTRA_HOSTS), N_EXTRA_HOSTS)
        pair = self.random.choice(self._pairs)
        objects: list[Json] = [
            ingress("app", {HOST: [path("app")]}, tls={"cert": [HOST]}),
            ingress("extra", {f"h{number}.test": [path("app")] for number in chosen}),
            *app("app", [self.pod.ip], port=self.pod.port),
            tls_secret("cert", pair.certificate, pair.key),
        ]
        self.ats.write("site.yaml", objects)

    @contextlib.contextmanager
    def loaded(self) -> Generator[list[Load]]:
        """HTTP and HTTPS load that goes on while the server is away, when its requests fail, of course."""
        loads = []
        with contextlib.ExitStack() as stack:
            for name, port, ca_file in (
                ("http", self.ats.http_port, None),
                ("https", self.ats.https_port, self.authority.path),
            ):
                load = Load(
                    [Request(host=HOST, app="app")],
                    ip="127.0.0.1",
                    port=port,
                    ca_file=ca_file,
                    directory=self._scratch,
                    requests_per_s=300 if ca_file is None else 80,
                    requests_per_connection=0 if ca_file is None else 3,
                    name=name,
                )
                loads.append(stack.enter_context(load))
            yield loads

    def start_and_stop(self, loads: list[Load]) -> None:
        """One life: start, serve the loads, change under them, stop in the middle of it; status 0, no core, clean logs."""
        self.ats.start()
        try:
            self.ats.await_ready()
            for load in loads:
                _await_served(load, 10)
            self.change()
        finally:
            status = self.ats.stop()
        self.ats.check(status)


def _await_served(load: Load, n_requests: int) -> None:
    """Wait for further good answers, whatever fails between; the load's own wait ends at a failure."""
    goal = load.now().n_ok + n_requests
    processes.await_condition("the load is served", lambda: load.now().n_ok >= goal, timeout_s=20)


@pytest.fixture
def with_cores() -> Generator[None]:
    """Let the server drop core, whatever the caller's shell says (ulimit -c), so that finding none says something."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture
def site(build: Build, tmp_path: Path, seed: int, with_cores: None) -> Generator[Site]:
    """A server, not started yet, and its running pod."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    pod = Pod(app="app", ip="127.0.0.2", port=port)
    with Backends([pod], directory=tmp_path), ats_directory() as directory:
        made = Site(build, directory, tmp_path, pod, seed)
        if os.geteuid() == 0:  # a core lands in the working directory, which is root's
            user = server.ats_user()
            os.chown(made.ats.tree.root, user.pw_uid, user.pw_gid)
        yield made


def _repeat(site: Site, n_starts: int) -> None:
    began_s = time.monotonic()
    with site.loaded() as loads:
        for number in range(n_starts):
            try:
                site.start_and_stop(loads)
            except BaseException as error:
                error.add_note(f"in start {number + 1} of {n_starts}")
                raise
    served = sum(load.finished.n_ok for load in loads)
    print(f"{n_starts} starts and stops in {time.monotonic() - began_s:.0f} s, {served} requests served between")


@pytest.mark.timeout(STARTS * stretched(ONE_START_S))
def test_starts_and_stops_under_load(site: Site) -> None:
    _repeat(site, STARTS)


@pytest.mark.soak
@pytest.mark.timeout(0)  # as long as the number asked for takes: each start and stop is bounded by itself
def test_starts_and_stops_for_long(site: Site, soak_starts: int) -> None:
    _repeat(site, soak_starts)


@pytest.mark.skipif(
    Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core", reason="this machine's cores go elsewhere (core_pattern)"
)
def test_a_crash_would_be_seen(site: Site) -> None:
    """The other tests' proof: a server that dies of a signal has another status, and its core is found where they look."""
    site.ats.start()
    site.ats.await_ready()
    site.ats.child.signal(signal.SIGABRT)
    processes.await_condition("it has died", lambda: site.ats.child.status is not None)
    with pytest.raises(AssertionError, match="ended with status"):
        site.ats.check(site.ats.child.status or 0)
    with pytest.raises(AssertionError, match="core files"):
        site.ats.check(0)


def test_a_stop_while_it_starts(site: Site) -> None:
    """SIGTERM at random moments of the start: before Python, in its imports, before the first table; never a crash."""
    for moment_s in sorted(site.random.uniform(0.0, 1.2) for _ in range(8)):
        child = site.ats.start()
        begun_s = time.monotonic()
        processes.await_condition(
            "the moment has come",
            lambda begun_s=begun_s, moment_s=moment_s: time.monotonic() >= begun_s + moment_s,  # type: ignore[misc]
        )
        status = child.stop(timeout_s=20)
        # Before Traffic Server has set its signal handlers up, SIGTERM does what it does to any process.
        assert status in (0, -15, 143), f"stopped {moment_s:.2f} s after its start: status {status}\n{site.ats.log_tail()}"
        assert not [one for one in site.ats.tree.root.rglob("core*") if re.fullmatch(r"core(\.\d+)?", one.name)]


def test_a_stop_while_it_waits_for_the_api_server(build: Build, tmp_path: Path) -> None:
    """Nobody answers at the kubeconfig's address: the start waits for a table, and a stop does not wait with it."""
    with processes.listen(processes.LOOPBACK, "127.0.0.1", 0) as silent, ats_directory() as directory:
        directory.mkdir(mode=0o755)
        kubeconfig = directory / "kubeconfig"
        config = {
            "clusters": [{"name": "a", "cluster": {"server": f"https://127.0.0.1:{silent.getsockname()[1]}"}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        kubeconfig.write_text(json.dumps(config))
        kubeconfig.chmod(0o644)
        (admin_port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.1", 1)
        given = [f"--kubeconfig={kubeconfig}", f"--admin=127.0.0.1:{admin_port}", "--start-timeout-ms=3000"]
        ats = Ats(build, directory, options=Options(manifests=False, plugin_options=given))
        child = ats.start()
        child.await_ready("Python asks the API server", lambda: processes.is_listening(processes.LOOPBACK, "127.0.0.1", admin_port))
        begun_s = time.monotonic()
        status = child.stop(timeout_s=20)
        assert status == 0, ats.log_tail()
        assert time.monotonic() - begun_s < stretched(10)
