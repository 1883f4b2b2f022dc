"""What happens to the process itself: killed, out of disk, out of descriptors, out of time, and a Python that fails within it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import pytest

from deploy import server
from deploy.compile import Build
from deploy.prerequisites import CHECKOUT, PYTHON
from tests.faults.report import FaultFactory
from tests.faults.site import App, Site, admin_answers, took_s
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.hostile import Door
from tests.harness.load import Request
from tests.harness.podnet import NODE_IP

GROUP = "The process"
SUPERVISOR = CHECKOUT / "docker/supervisor.py"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
N_CRASHES = 3
N_CONNECTIONS = 4  # of the load
RESTART_S = 1.0  # from the kill to the first answer of a pod
DESCRIPTORS = 700
HELD_CONNECTIONS = 900
CLOCK_STEP_S = 3600

pytestmark = pytest.mark.timeout(180)


class WrappedAts(Ats):
    """A server whose command line has something before it: a supervisor, a limit."""

    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = {}

    def start(self) -> processes.Child:
        """As Ats.start, with the prefix."""
        environment = {**self.tree.environment(self.options.environment), **self.environment}
        self._child = processes.start(
            self.place,
            [*self.prefix, *self.tree.command],
            name="traffic_server",
            log_path=self.tree.output,
            env=environment,
            cwd=self.tree.root,
        )
        return self._child


def made_ats(
    build: Build,
    site: Site,
    directory: Path,
    *,
    options: Sequence[str] = (),
    records: Mapping[str, str | int] | None = None,
    cache_mb: int = 32,
    global_plugins: Sequence[str] = (),
) -> WrappedAts:
    """A further server over the same cluster, not started."""
    directory.mkdir(mode=0o755, exist_ok=True)
    cluster = site.cluster
    kubeconfig = cluster.plane.kubeconfig(directory / "kubeconfig", token=cluster.plane.token("ingress"))
    (admin_port,) = processes.free_ports(cluster.net, "127.0.0.1", 1)
    given = [f"--kubeconfig={kubeconfig}", f"--admin=127.0.0.1:{admin_port}", *options]
    ats = WrappedAts(
        build,
        directory,
        place=cluster.net,
        options=Options(
            address=NODE_IP,
            manifests=False,
            plugin_options=given,
            records=records or {},
            cache_mb=cache_mb,
            global_plugins=global_plugins,
        ),
    )
    ats.admin_port = admin_port
    return ats


def state_directory(directory: Path) -> Path:
    """A directory for the last good state that belongs to Traffic Server alone."""
    made = directory / "state"
    made.mkdir(mode=0o700)
    user = server.ats_user()
    os.chown(made, user.pw_uid, user.pw_gid)
    return made


def with_ats(site: Site, ats: Ats) -> Site:
    """The site as seen through another server."""
    return Site(cluster=site.cluster, fleet=site.fleet, ats_override=ats)


@pytest.fixture(scope="module")
def app(shared_site: Site) -> App:
    """An app of three pods."""
    made = shared_site.create("lasting", ["10.244.21.1", "10.244.21.2", "10.244.21.3"])
    shared_site.await_app(made)
    return made


@pytest.fixture
def directory() -> Generator[Path]:
    """Where a server's tree goes."""
    with ats_directory() as made:
        made.mkdir(mode=0o755)
        yield made


# --- killed ---------------------------------------------------------------------------------------------


def only_child(pid: int) -> int:
    """The child of a process, 0 if it has none (now)."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(found[0]) if found else 0
    return 0


def test_killed_under_a_supervisor(build: Build, site: Site, app: App, directory: Path, fault: FaultFactory) -> None:
    """SIGKILL while the API server is away: started again at once, it serves from the last good state within a second."""
    measured = fault(
        f"traffic_server killed {N_CRASHES} times, API server away",
        right="200; no client is refused; cut only what is open at the kill",
        recovered_max_s=RESTART_S,
        n_failed_max=N_CRASHES * N_CONNECTIONS,
    )
    plane = site.cluster.plane
    spent: list[float] = []
    ats = made_ats(build, site, directory, options=[f"--state-dir={state_directory(directory.parent)}"])
    ats.prefix = [PYTHON, "-I", "-S", str(SUPERVISOR)]
    with ats:
        other = with_ats(site, ats)
        processes.await_condition("it is saved", lambda: ats.counter("atsk8s_state_saves_total", result="saved") > 0)
        with other.loaded(app, measured, protocols=("http1",)) as traffic:
            traffic.served(20)
            plane.pause_api_server()
            try:
                for _ in range(N_CRASHES):
                    victim = processes.await_condition("it runs", lambda: only_child(ats.child.pid))
                    os.kill(victim, signal.SIGKILL)
                    spent.append(took_s("a pod answers again", lambda: _is_served(other, app), timeout_s=20))
                    traffic.served(20)
            finally:
                plane.resume_api_server()
                plane.await_api_server()
        processes.await_condition("live data has taken over", lambda: ats.counter("atsk8s_degraded") == 0, timeout_s=60)
        ats.allow("list or watch failed|died of signal 9: starting it again|rejected|accepted with conditions")
    site.ats.allow("list or watch failed|rejected|accepted with conditions")
    measured.recovered_s = statistics.median(spent)
    measured.notes.append(f"the longest took {max(spent):.1f} s")
    measured.check(at_least=20 * (N_CRASHES + 1))


def _is_served(site: Site, app: App) -> bool:
    return site.get(app.host).status == 200


# --- no room ----------------------------------------------------------------------------------------------


def test_disk_full(build: Build, site: Site, app: App, directory: Path, fault: FaultFactory) -> None:
    """State directory, cache and logs have no byte left: requests are answered all the same, and what was missed is made up for."""
    measured = fault("disk full: state, cache and log", right="200; the state is written once there is room", recovered_max_s=30)
    net, user = site.cluster.net, server.ats_user()
    state = state_directory(directory.parent)
    ats = made_ats(
        build,
        site,
        directory,
        options=[f"--state-dir={state}", "--cache=on"],
        records={"proxy.config.log.max_space_mb_headroom": 0},
    )
    places = {state: "1m", ats.tree.logs: "2m", ats.tree.root / "cache": "34m"}
    for place, size in places.items():
        mode = "0700" if place == state else "0755"
        what = ["mount", "-t", "tmpfs", "-o", f"size={size},mode={mode},uid={user.pw_uid},gid={user.pw_gid}", "tmpfs", str(place)]
        net.run(what)
    try:
        with ats:
            other = with_ats(site, ats)
            cached = [
                Request(host=app.host, path=f"/{n}?size=4000&cache_control=max-age%3D1&n={n}", app=app.name) for n in range(200)
            ]
            with other.loaded(app, measured, protocols=("http1", "h2"), requests=cached) as traffic:
                traffic.served(40)
                for place in places:
                    net.run(["dd", "if=/dev/zero", f"of={place}/fill", "bs=4k"], check=False)
                failed = ats.counter("atsk8s_state_saves_total", result="failed")
                site.await_fresh(app, timeout_s=30)  # a change, which is to be saved
                took_s(
                    "the failure is counted",
                    lambda: ats.counter("atsk8s_state_saves_total", result="failed") > failed,
                    timeout_s=30,
                )
                traffic.flow(200)
                before = ats.counter("atsk8s_state_saves_total", result="saved")
                for place in places:
                    net.run(["rm", f"{place}/fill"])
                other.await_fresh(app, timeout_s=30)
                measured.recovered_s = took_s(
                    "the state is saved", lambda: ats.counter("atsk8s_state_saves_total", result="saved") > before, timeout_s=40
                )
                traffic.served(20)
            ats.allow(".*")  # a full disk has everybody complain
    finally:
        for place in places:
            net.run(["umount", "-l", str(place)], check=False)
    measured.check(at_least=400)


# --- no descriptors ---------------------------------------------------------------------------------------


def test_descriptors_exhausted(build: Build, site: Site, app: App, directory: Path, fault: FaultFactory) -> None:
    """Clients hold more connections than there are descriptors: those who are served stay so, and all are once the others go."""
    measured = fault("descriptors exhausted by idle clients", right="200 on connections that were there before", recovered_max_s=10)
    net = site.cluster.net
    ats = made_ats(build, site, directory)
    ats.prefix = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", "--"]
    with ats:
        other = with_ats(site, ats)
        with other.loaded(app, measured, protocols=("http1", "h2", "websocket")) as traffic:
            traffic.served(40)
            held: list[socket.socket] = []
            try:
                with contextlib.suppress(OSError):
                    for _ in range(HELD_CONNECTIONS):
                        sock = net.connect(NODE_IP, ats.http_port, timeout_s=3.0)
                        held.append(sock)
                        sock.sendall(b"GET / HTTP/1.1\r\n")  # what says nothing waits in the kernel, and costs no descriptor
                took_s("they are taken", lambda: ats.n_fds() > DESCRIPTORS // 2, timeout_s=30)
                traffic.flow(100)
                measured.notes.append(f"{len(held)} connections held, {ats.n_fds()} of {DESCRIPTORS} descriptors in use")
            finally:
                for sock in held:
                    sock.close()
            measured.recovered_s = took_s("a new client is served", lambda: _is_served(other, app), timeout_s=60)
            traffic.served(20)
        assert ats.admin("/readyz").status == 200
        other.await_fresh(app, timeout_s=60)
        ats.allow("too many connections, throttling|list or watch failed")
    measured.check(at_least=300)


# --- the clock --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
@pytest.mark.parametrize("step_s", [CLOCK_STEP_S, -CLOCK_STEP_S], ids=["forward", "back"])
def test_clock_jumps(build: Build, site: Site, app: App, directory: Path, fault: FaultFactory, step_s: int) -> None:
    """The wall clock is set by an hour under the process, as a virtual machine's is that was paused or badly synchronised.

    To Traffic Server's clocks a connection that is idle at a step forward has been so for an hour: it is closed, and a request that
    crosses that is lost, one a connection.
    """
    direction, right = ("forward", "200; idle connections are closed") if step_s > 0 else ("back", "200; /livez 503")
    measured = fault(
        f"wall clock jumps {direction} an hour",
        right=right,
        recovered_max_s=5,
        n_failed_max=2 * N_CONNECTIONS if step_s > 0 else 0,  # of HTTP/1 and HTTP/2
    )
    clock = directory / "clock"
    set_clock(clock, 0)
    ats = made_ats(build, site, directory)
    ats.environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    with ats:
        other = with_ats(site, ats)
        with other.loaded(app, measured) as traffic:
            traffic.served(40)
            set_clock(clock, step_s)
            traffic.flow(150)
            measured.recovered_s = took_s("a new client is served", lambda: _is_served(other, app), timeout_s=30)
            other.await_fresh(app, timeout_s=30)
            traffic.served(40)
            if step_s < 0:
                took_s("liveness fails", lambda: other.ats.admin("/livez").status == 503, timeout_s=30)
                # Traffic Server 9.2 times by the wall clock: until it has caught up no time limit ends anything, and no SIGTERM.
                set_clock(clock, 0)
                traffic.served(40)
        ats.allow("the wall clock was set back|list or watch failed")
    assert {what.partition(": ")[2] for what in measured.failures} <= {"closed", "broken"}, measured.failures
    measured.check(at_least=300)


def set_clock(path: Path, step_s: int) -> None:
    """Let libfaketime add `step_s` to the wall clock from the next second on."""
    aside = path.with_name("clock.new")
    aside.write_text(f"{step_s:+d}s\n", encoding="ascii")
    aside.chmod(0o644)
    aside.replace(path)


# --- Python -----------------------------------------------------------------------------------------------

FAILS = """
import threading
from atsk8s.model import state
real = state.Model.drain
left = [{times}]
def drain(self, **arguments):
    if left[0] > 0:
        left[0] -= 1
        raise {error}
    return real(self, **arguments)
state.Model.drain = drain
"""
HANGS = """
import threading
from atsk8s import admin
from atsk8s.model import state
admin.HEARTBEAT_MAX_S = 2.0
real = state.Model.drain
def drain(self, **arguments):
    state.Model.drain = real
    threading.Event().wait({seconds})
    return real(self, **arguments)
state.Model.drain = drain
"""
# What no handler of Exception stops: the thread is gone, whatever it was in the middle of.
ENDS_THREADS = """
import ctypes, sys, threading
names = {names!r}
for thread in threading.enumerate():
    if thread.name.startswith(names):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object({error}))
for ident, frame in sys._current_frames().items():
    while frame is not None:
        if frame.f_code.co_qualname in {functions!r}:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object({error}))
            break
        frame = frame.f_back
"""


@contextlib.contextmanager
def open_ats(build: Build, site: Site) -> Generator[tuple[Site, Door]]:
    """A server into whose Python a test can reach."""
    with ats_directory() as directory:
        directory.mkdir(mode=0o755)
        door = Door(build, directory)
        ats = made_ats(build, site, directory, options=[f"--venv={door.venv}"])
        with ats:
            yield with_ats(site, ats), door
            ats.allow(".*")  # what is thrown into a thread may land anywhere


@pytest.fixture(scope="module")
def opened(build: Build, shared_site: Site) -> Generator[tuple[Site, Door]]:
    """One for what it survives whole."""
    with open_ats(build, shared_site) as made:
        yield made


@pytest.fixture
def doomed(build: Build, site: Site) -> Generator[tuple[Site, Door]]:
    """One for a single test."""
    with open_ats(build, site) as made:
        yield made


@pytest.mark.parametrize("error", ["RuntimeError('made by a test')", "MemoryError()"])
def test_python_fails(opened: tuple[Site, Door], app: App, fault: FaultFactory, error: str) -> None:
    """Three commits in a row end in an exception: it is counted, the table stays, and what changed is there after all."""
    site, door = opened
    measured = fault(f"Python: {error.partition('(')[0]} in three commits", right="200; counted", recovered_max_s=10)
    with site.loaded(app, measured) as traffic:
        before = site.ats.counter("atsk8s_controller_errors_total")
        door.run(FAILS.format(times=3, error=error))
        took_s("it has begun", lambda: site.ats.counter("atsk8s_controller_errors_total") > before, timeout_s=30)
        measured.recovered_s = site.await_fresh(app, timeout_s=30)
        assert site.ats.counter("atsk8s_controller_errors_total") >= before + 3
        assert site.ats.admin("/livez").status == 200
        traffic.served(40)
    measured.check(at_least=100)


def test_python_hangs(opened: tuple[Site, Door], app: App, fault: FaultFactory) -> None:
    """The controller hangs: liveness says so, a metric says for how long, and no client notices."""
    site, door = opened
    measured = fault("Python: the controller hangs", right="200; /livez 503, heartbeat age", recovered_max_s=10)
    with site.loaded(app, measured) as traffic:
        door.run(HANGS.format(seconds=9))
        took_s("liveness fails", lambda: site.ats.admin("/livez").status == 503, timeout_s=20)
        assert site.ats.counter("atsk8s_controller_heartbeat_age_seconds") > 1
        traffic.flow(100)
        measured.recovered_s = took_s("liveness is back", lambda: site.ats.admin("/livez").status == 200, timeout_s=20)
    measured.check(at_least=100)


def test_python_holds_the_gil(opened: tuple[Site, Door], app: App, fault: FaultFactory) -> None:
    """Nothing of Python runs any more, the admin endpoint neither, which is what a liveness probe sees; no client notices."""
    site, door = opened
    measured = fault("Python: the GIL is held for 8 s", right="200; /livez does not answer", recovered_max_s=10)
    with site.loaded(app, measured) as traffic:
        door.run("import ctypes\nctypes.PyDLL(None).sleep(8)\n")
        took_s("liveness does not answer", lambda: admin_answers(site.ats, "/livez") is None, timeout_s=20)
        traffic.flow(100)
        measured.recovered_s = took_s("liveness is back", lambda: admin_answers(site.ats, "/livez") is not None, timeout_s=20)
    measured.check(at_least=100)


@pytest.mark.parametrize(
    ("what", "names", "functions", "error"),
    [
        ("watch threads end by SystemExit", ("watch-",), (), "SystemExit"),
        ("watch threads end by MemoryError", ("watch-",), (), "MemoryError"),
        ("the controller's thread ends by SystemExit", (), ("Controller.run",), "SystemExit"),
    ],
)
def test_python_threads_end(
    doomed: tuple[Site, Door],
    app: App,
    fault: FaultFactory,
    what: str,
    names: Sequence[str],
    functions: Sequence[str],
    error: str,
) -> None:
    """A thread that watches, or the one that commits, is gone: another takes its place within the process."""
    site, door = doomed
    measured = fault(f"Python: {what}", right="200; restarted within the process", recovered_max_s=30)
    with site.loaded(app, measured) as traffic:
        pid = site.ats.child.pid
        door.run(ENDS_THREADS.format(names=tuple(names), functions=tuple(functions), error=error))
        wake = Waker(site, app)
        measured.recovered_s = took_s("a change is seen", wake, timeout_s=60)
        assert site.ats.child.pid == pid
        took_s("liveness is back", lambda: site.ats.admin("/livez").status == 200, timeout_s=20)
        traffic.served(40)
    measured.check(at_least=100)


class Waker:
    """A probe that makes a change each time it is called, so that a thread that waits for one meets its exception, and says
    whether such a change was seen."""

    def __init__(self, site: Site, app: App) -> None:
        self._site, self._app = site, app
        self._n_seen = 0

    def __call__(self) -> bool:
        with contextlib.suppress(processes.ConditionTimeoutError):
            self._site.await_fresh(self._app, timeout_s=2.0)
            self._n_seen += 1
        return self._n_seen >= 4  # the first may be seen by a thread that is about to end
