"""Starting and stopping inside traffic_server: what stops a start and says why, what does not disturb traffic, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest

from deploy.compile import PYTHON_INCLUDE, Build
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, START_TIMEOUT_S, Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import app, ingress, path
from tests.harness.processes import LOOPBACK

SHOP = Pod(app="shop", ip="127.48.1.1", port=28083)
SITE = [ingress("shop", {"shop.test": [path("shop")]}), *app("shop", [SHOP.ip], port=SHOP.port)]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """One pod."""
    with Backends([SHOP], directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@contextlib.contextmanager
def prepared(build: Build, options: Options | None = None) -> Iterator[Ats]:
    """A server over the site, not started; killed at the end if it still runs."""
    with ats_directory() as directory:
        made = Ats(build, directory, options=options)
        made.write("site.yaml", SITE)
        try:
            yield made
        finally:
            made.kill()


def failed_start(ats: Ats) -> str:
    """Start it, expect it to end by itself with an error, and return all it said."""
    child = ats.start()
    status = child.popen.wait(START_TIMEOUT_S)
    assert status not in (0, None) and status > 0, f"status {status}\n{ats.log_tail()}"
    return ats.log()


# --- starts that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ["remap", "ssl"])
@pytest.mark.parametrize(
    ("venv", "words"),
    [
        ("/nonexistent", ["--venv", "/nonexistent/bin/python3", "No such file", "build.py install"]),
        ("relative/path", ["--venv=relative/path", "absolute path"]),
    ],
)
def test_missing_venv_is_said(build: Build, plugin: str, venv: str, words: Sequence[str]) -> None:
    options = Options(plugin_options=[f"--venv={venv}"], with_remap=plugin == "remap", with_ssl=plugin == "ssl")
    with prepared(build, options) as ats:
        log = failed_start(ats)
        for word in words:
            assert word in log, log


def test_unreadable_venv_is_said(build: Build) -> None:
    """Traffic Server has dropped its privileges by then."""
    with prepared(build) as probe:
        closed = probe.directory / "closed"
        closed.mkdir(mode=0o700)
        options = Options(plugin_options=[f"--venv={closed}/venv"])
        with prepared(build, options) as ats:
            log = failed_start(ats)
            assert "Permission denied" in log and "proxy.config.admin.user_id" in log


def test_venv_without_the_package_is_said(build: Build) -> None:
    with prepared(build) as probe:
        venv = probe.directory / "venv"
        subprocess.run([f"/usr/bin/{Path(PYTHON_INCLUDE).name}", "-m", "venv", "--without-pip", str(venv)], check=True)
        with prepared(build, Options(plugin_options=[f"--venv={venv}"])) as ats:
            log = failed_start(ats)
            assert f"--venv={venv}" in log and "could not import atsk8s" in log and "ModuleNotFoundError" in log


# --- starts that go on ---------------------------------------------------------------------------------


def test_first_request_after_the_port_opens_is_answered_by_a_pod(build: Build, backends: Backends) -> None:
    """The start waits for the first table: nobody sees a 404 or 503 that is only early."""
    with prepared(build) as ats:
        child = ats.start()
        child.await_ready("the port listens", lambda: processes.is_listening(LOOPBACK, "127.0.0.1", ats.http_port))
        assert ats.get("/", host="shop.test").status == 200
        ats.check(ats.stop())


def test_without_a_table_every_answer_is_503(build: Build) -> None:
    """An API server that is away does not keep Traffic Server from starting; only from being ready."""
    closed = processes.free_ports(LOOPBACK, "127.0.0.1", 1)[0]
    options = Options(
        manifests=False,
        plugin_options=[f"--server=https://127.0.0.1:{closed}", "--start-timeout-ms=300", "--admin=off"],
        environment={"ATSK8S_TOKEN": "token"},
    )
    with prepared(build, options) as ats:
        child = ats.start()
        child.await_ready("the port listens", lambda: processes.is_listening(LOOPBACK, "127.0.0.1", ats.http_port))
        for target in ("/", HEALTH_PATH):
            answer = ats.get(target, host="shop.test")
            assert answer.status == 503
            assert answer.header("x-request-id") is not None
        assert "starting without a table" in ats.log()
        assert ats.stop() == 0


def test_environment_names_options_too(build: Build, backends: Backends) -> None:
    with prepared(build, Options(environment={"ATSK8S_HEALTH_PATH": "/alive"})) as ats:
        child = ats.start()
        child.await_ready("the health path answers 200", lambda: ats.get("/alive").status == 200)
        assert ats.get(HEALTH_PATH, host="never.test").status == 404
        ats.check(ats.stop())


def test_encoded_slash_can_be_refused(build: Build, backends: Backends) -> None:
    with prepared(build, Options(plugin_options=["--reject-encoded-slash=true"])) as ats, ats:
        assert ats.get("/a%2Fb", host="shop.test").status == 400
        assert ats.get("/a%2fb", host="shop.test").status == 400
        assert ats.get("/a/b?c=%2F", host="shop.test").status == 200


# --- running and stopping --------------------------------------------------------------------------------


def test_file_descriptors_do_not_grow(build: Build, backends: Backends) -> None:
    with prepared(build) as ats, ats:
        for _ in range(50):
            ats.get("/", host="shop.test")
        before = ats.n_fds()
        for n in range(20):
            ats.put("more.yaml", [ingress("more", {f"more-{n}.test": [path("shop")]})])
            assert ats.get("/", host=f"more-{n}.test").status == 200
        assert ats.n_fds() <= before + 5


def test_a_drain_ends_readiness_first_and_answers_meanwhile(build: Build, backends: Backends) -> None:
    """SIGTERM with proxy.config.stop.shutdown_timeout: whoever balances over us learns of it while requests are still answered."""
    with prepared(build, Options(records={"proxy.config.stop.shutdown_timeout": 6})) as ats:
        child = ats.start()
        ats.await_ready()
        child.signal(signal.SIGTERM)
        processes.await_condition("the health path answers 503", lambda: ats.get(HEALTH_PATH).status == 503, timeout_s=5.0)
        assert "draining" in ats.admin("/readyz").body.decode()
        assert ats.get("/", host="shop.test").status == 200
        ats.check(ats.stop())
