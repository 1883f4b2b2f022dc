"""No request and no handshake waits for Python: a hostile thread holds the GIL for ten seconds, and clients do not notice."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import SITE_PACKAGES, Build
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod, fetch
from tests.harness.load import Load, Request
from tests.harness.manifests import app, ingress, path, tls_secret
from tests.harness.patience import stretched

HELD_S = 10
# What no request may take while the GIL is held for ten seconds: much less than that.
LONGEST_MS = 2000
HOST = "app.test"

# Waits for somebody to open the FIFO, the GIL released; then sleep(3) with the GIL held, which is what PyDLL is for.  Imports
# nothing before that: cffi's start does not like its interpreter touched.
_HOSTILE = """
import _thread, posix
def hold():
    while True:
        posix.close(posix.open({fifo!r}, posix.O_RDONLY))
        import ctypes
        ctypes.PyDLL(None).sleep({held_s})
_thread.start_new_thread(hold, ())
"""


class Hostage:
    """A server whose Python has a thread that holds the GIL when it is told to."""

    def __init__(self, ats: Ats, fifo: Path, authority: Authority, directory: Path) -> None:
        self.ats, self.authority, self._fifo, self._directory = ats, authority, fifo, directory

    def hold_gil(self) -> None:
        """Let the thread take the GIL, and wait until nothing of Python answers any more."""
        os.close(os.open(self._fifo, os.O_WRONLY))
        processes.await_condition("the GIL is held", lambda: not self.python_answers())

    def python_answers(self) -> bool:
        """Whether the admin endpoint, which is Python, answers within a second: the canary."""
        try:
            return fetch(processes.LOOPBACK, "127.0.0.1", self.ats.admin_port, "/livez", timeout_s=1.0).status == 200
        except TimeoutError:
            return False

    @contextlib.contextmanager
    def loaded(self) -> Generator[list[Load]]:
        """HTTP and HTTPS load, new connections and handshakes among it."""
        plain = [Request(host=HOST, app="app"), Request(host="nobody.test", status=404), Request(host=HOST, path=HEALTH_PATH)]
        ats = self.ats
        with (
            Load(plain, ip="127.0.0.1", port=ats.http_port, directory=self._directory, requests_per_connection=20) as http,
            Load(
                [Request(host=HOST, app="app")],
                ip="127.0.0.1",
                port=ats.https_port,
                ca_file=self.authority.path,
                directory=self._directory,
                requests_per_s=50,
                requests_per_connection=2,
                name="https",
            ) as https,
        ):
            yield [http, https]


@pytest.fixture
def hostage(build: Build, tmp_path: Path) -> Generator[Hostage]:
    """The server, ready, in a copy of the venv that holds the hostile thread."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    pod = Pod(app="app", ip="127.0.0.2", port=port)
    authority = Authority(tmp_path / "ca.pem")
    pair = authority.pair([HOST])
    with ats_directory() as directory, Backends([pod], directory=tmp_path):
        directory.mkdir(mode=0o755)
        fifo, venv = directory / "hold-the-gil", directory / "venv"
        os.mkfifo(fifo)
        fifo.chmod(0o644)
        shutil.copytree(build.venv, venv, symlinks=True)
        (venv / SITE_PACKAGES / "hostile.py").write_text(_HOSTILE.format(fifo=str(fifo), held_s=HELD_S))
        (venv / SITE_PACKAGES / "hostile.pth").write_text("import hostile\n")
        for made in (venv / SITE_PACKAGES / "hostile.py", venv / SITE_PACKAGES / "hostile.pth"):
            made.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        ats = Ats(build, directory, options=Options(plugin_options=[f"--venv={venv}"]))
        ats.write(
            "site.yaml",
            [
                ingress("app", {HOST: [path("app")]}, tls={"cert": [HOST]}),
                *app("app", [pod.ip], port=pod.port),
                tls_secret("cert", pair.certificate, pair.key),
            ],
        )
        with ats:
            yield Hostage(ats, fifo, authority, tmp_path)


def test_a_held_gil_costs_freshness_alone(hostage: Hostage) -> None:
    """Requests, answers of our own and handshakes go on as before; a change waits, and comes when the GIL is free."""
    ats = hostage.ats
    with hostage.loaded() as before:
        for load in before:
            load.await_more(100)
    with hostage.loaded() as held:
        begun_s = time.monotonic()
        hostage.hold_gil()
        more = ingress("more", {"more.test": [path("app")]})
        ats.write("more.yaml", [more])
        for load in held:
            load.await_more(50)
        assert not hostage.python_answers(), "the canary lives: the GIL was not held all the time"
        assert time.monotonic() - begun_s < HELD_S
        assert ats.get("/", host="more.test").status == 404
        processes.await_condition("Python answers again", hostage.python_answers, timeout_s=HELD_S + 10)
        assert time.monotonic() - begun_s > HELD_S - 1
        processes.await_condition("the change has come", lambda: ats.get("/", host="more.test").status == 200)
    for name, free, busy in zip(("http", "https"), before, held, strict=True):
        free_result, busy_result = free.finished, busy.finished
        print(
            f"{name}: {busy_result.n_ok} requests, {busy_result.n_failed} failed; p99 {busy_result.p99_ms} ms, longest "
            f"{busy_result.max_ms} ms; with the GIL free {free_result.p99_ms} and {free_result.max_ms} ms"
        )
        busy_result.expect_no_failure(at_least=50)
        assert busy_result.max_ms < min(stretched(LONGEST_MS), HELD_S * 800)
        assert busy_result.n_connections > busy_result.n_ok // 20


def test_a_stop_does_not_wait_for_the_gil(hostage: Hostage) -> None:
    """SIGTERM while the GIL is held: status 0, and well before it is free again."""
    hostage.hold_gil()
    begun_s = time.monotonic()
    status = hostage.ats.stop()
    assert time.monotonic() - begun_s < HELD_S - 3
    hostage.ats.check(status)
