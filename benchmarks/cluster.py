"""A real API server, pods and our Traffic Server in one private network, for what is measured from write to answer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine, native, objects, traffic_server
from benchmarks.objects import Object
from benchmarks.probe import Probe
from benchmarks.traffic_server import Proxy
from deploy import server
from tests.harness import podnet, processes
from tests.harness.controlplane import ControlPlane
from tests.harness.podnet import NODE_IP, PodNet

ORIGIN_PORT = 8080
PROXY_PORT = 8001  # outside the range of ephemeral ports: a client there could connect to itself
ADMIN_PORT = 9464
N_CREATORS, N_CREATOR_THREADS = 2, 4


class ClusterError(RuntimeError):
    """The API load failed; the message is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """See `running`."""

    net: PodNet
    plane: ControlPlane
    scratch: Path
    kubeconfig: Path
    _numbers: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def proxy(
        self, *, options: Sequence[str] = (), await_listening: bool = True, tls: bool = False, port: int = PROXY_PORT
    ) -> Generator[Proxy]:
        """Run our Traffic Server on the API server, listening at the node's address, while the block runs."""
        self._numbers.append(len(self._numbers))
        given = [f"--kubeconfig={self.kubeconfig}", f"--admin=127.0.0.1:{ADMIN_PORT}", *options]
        remap, plugins = traffic_server.plugin_lines(given, tls=tls)
        records: dict[str, server.RecordValue] = {} if os.geteuid() == 0 else {"proxy.config.admin.user_id": "#-1"}
        tree = server.make_tree(
            self.scratch / f"ats-{self._numbers[-1]}", server_ports=f"{port}", remap=remap, plugins=plugins, records=records
        )
        env = tree.environment({"ATSK8S_START_TIMEOUT_MS": str(traffic_server.START_TIMEOUT_MS)})
        started_s = time.monotonic()
        child = processes.start(self.net, tree.command, name="traffic_server", log_path=tree.output, env=env, cwd=tree.root)
        with processes.running(child):
            if await_listening:
                self.await_listening(child, port)
            yield Proxy(name="atsk8s", port=port, pids=(child.pid,), started_s=started_s)

    def await_listening(self, child: processes.Child, port: int) -> None:
        """Wait until the proxy's port is open."""
        child.await_ready("traffic_server listens", lambda: processes.is_listening(self.net, NODE_IP, port), timeout_s=300)

    def probe(self, port: int = PROXY_PORT) -> Probe:
        """Return a client of the proxy."""
        return Probe(self.net, NODE_IP, port)

    def create(self, created: Iterable[Object]) -> Creation:
        """Begin to create objects as fast as the API server takes them."""
        lines = [json.dumps(obj) for obj in created]
        return Creation([self._load("create", lines[k::N_CREATORS], N_CREATOR_THREADS) for k in range(N_CREATORS)])

    @contextlib.contextmanager
    def churn(self, slices: Sequence[Object], per_second: float) -> Generator[Churn]:
        """Write one of these EndpointSlices after another, `per_second` of them, while the block runs."""
        churn = Churn(self._load("churn", [json.dumps(obj) for obj in slices], per_second))
        try:
            yield churn
        finally:
            churn.stop()

    def _load(self, verb: str, lines: Sequence[str], number: float) -> subprocess.Popen[str]:
        where = [self.plane.address, str(self.plane.port), str(self.plane.ca_path), str(number)]
        env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(machine.CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
        env["BENCH_TOKEN"] = self.plane.admin_token
        log = (self.scratch / f"{verb}.log").open("ab")
        with log:
            command = self.net.argv([sys.executable, "-m", "benchmarks.api_load", verb, *where])
            popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.write("".join(f"{line}\n" for line in lines) + "\n")
        popen.stdin.flush()
        if popen.stdout.readline().strip() != "ready":
            popen.wait()
            raise ClusterError(f"the API load did not start:\n{(self.scratch / f'{verb}.log').read_text()[-2000:]}")
        return popen


class Creation:
    """Objects being created; the clock runs from the start of the object."""

    def __init__(self, loads: Sequence[subprocess.Popen[str]]) -> None:
        self._loads = loads
        self.began_s = time.monotonic()
        for load in loads:
            assert load.stdin is not None
            load.stdin.write("go\n")
            load.stdin.flush()

    def finish(self) -> float:
        """Wait for the last reply and return when it came (time.monotonic).  Raises ClusterError."""
        return max(_said(load)["ended_s"] for load in self._loads)


class Churn:
    """Endpoint changes that go on."""

    def __init__(self, load: subprocess.Popen[str]) -> None:
        self._load = load
        assert load.stdin is not None
        load.stdin.write("go\n")
        load.stdin.flush()
        self.per_s = 0.0  # achieved; known once stopped

    def stop(self) -> None:
        """End it.  Raises ClusterError."""
        said = _said(self._load)
        self.per_s = said["n"] / (said["ended_s"] - said["began_s"])


def _said(load: subprocess.Popen[str]) -> dict[str, float]:
    out, _ = load.communicate()
    if load.returncode != 0:
        raise ClusterError(f"the API load ended with status {load.returncode}; its log is in the scratch directory")
    said: dict[str, float] = json.loads(out)
    return said


@contextlib.contextmanager
def running(scratch: Path) -> Generator[Cluster]:
    """Run a pod network, a control plane without controllers and an origin on every pod address while the block runs."""
    reason = podnet.unavailable_reason()
    if reason is not None:
        raise ClusterError(f"this machine cannot have a pod network: {reason}")
    state = scratch / "plane"
    state.mkdir(mode=0o755)
    with PodNet() as net, ControlPlane(directory=state, place=net, controllers=()) as plane:
        kubeconfig = plane.kubeconfig(scratch / "kubeconfig")
        command = [str(native.program("origin")), str(ORIGIN_PORT)]
        origin = processes.start(net, command, name="origin", log_path=scratch / "origin.log")
        with processes.running(origin):
            plane.namespace(objects.NAMESPACE)
            yield Cluster(net=net, plane=plane, scratch=scratch, kubeconfig=kubeconfig)
