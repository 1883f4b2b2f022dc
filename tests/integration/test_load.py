"""Routes, endpoints and certificates change without a pause under load of every protocol: no request fails, no memory grows.

ATSK8S_LOAD_SECONDS sets how long (60).  The hosts under load stay; what changes is everything around them, the pods behind one of
them, and the certificate of another.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness import podnet, processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.authority import Authority, Pair, served_serial
from tests.harness.backends import Backends, Pod, http_connection
from tests.harness.load import Load, Protocol, Request
from tests.harness.manifests import Json, app, endpoint_slice, ingress, path, service, tls_secret
from tests.harness.patience import slowness
from tests.harness.podnet import NODE_IP, PodNet

SECONDS = float(os.environ.get("ATSK8S_LOAD_SECONDS", "60"))
N_CHANGING_HOSTS = 150
# Between a quarter of the run and its end.  Traffic Server's own pools and Python's arenas fill up during the first quarter; what
# then leaks by the change or by the request shows as more than this.
GROWTH_MAX_KB = 8 * 1024
FIXED = Pod(app="fixed", ip="10.244.1.1")

pytestmark = [
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
    pytest.mark.timeout(SECONDS + 180),
]


class Churn:
    """Everything that changes, one step after the other."""

    def __init__(
        self, ats: Ats, net: PodNet, authority: Authority, directory: Path, seed: int, stack: contextlib.ExitStack
    ) -> None:
        self._ats, self._net, self._authority, self._directory = ats, net, authority, directory
        self._random = random.Random(seed)
        self._stack = stack
        self._numbers = itertools.count(1)
        self._pods: list[tuple[Pod, Backends]] = []
        self._pairs = [authority.pair(["tls.test"], kind=kind) for kind in ("ecdsa", "rsa", "ecdsa")]
        self._hosts: set[str] = set()
        self.n_steps = 0
        self._start_pod()

    def first(self) -> None:
        """Write what is there before the server starts."""
        self._ats.write(
            "fixed.yaml",
            [
                ingress("fixed", {"fixed.test": [path("fixed"), path("moving", "/moving")]}),
                ingress("tls", {"tls.test": [path("fixed")]}, tls={"tls": ["tls.test"]}),
                *app("fixed", [FIXED.ip]),
                service("moving"),
            ],
        )
        self._write_pods()
        self._write_certificate(self._pairs[0])

    def step(self) -> None:
        """Change one thing of each kind, and see that the change is served."""
        self._routes()
        self._endpoints()
        self._certificate()
        self.n_steps += 1

    def _routes(self) -> None:
        chosen = {f"h{number}.test" for number in self._random.sample(range(4 * N_CHANGING_HOSTS), N_CHANGING_HOSTS)}
        rules = {host: [path("fixed"), path("moving", f"/{self._random.randrange(10)}")] for host in sorted(chosen)}
        objects: list[Json] = [
            ingress("changing", rules),
            ingress(f"only-{self.n_steps}", {f"only-{self.n_steps}.test": [path("fixed")]}),
        ]
        self._ats.put("changing.yaml", objects)
        for host in self._random.sample(sorted(chosen), 3):
            assert self._ats.get("/", host=host).status == 200
        for host in self._random.sample(sorted(self._hosts - chosen), min(3, len(self._hosts - chosen))):
            assert self._ats.get("/", host=host).status == 404
        self._hosts = chosen

    def _start_pod(self) -> None:
        number = next(self._numbers)
        pod = Pod(app="moving", ip=f"10.244.2.{number % 250 + 1}", port=8000 + number)
        backends = Backends([pod], directory=self._directory, place=self._net, name=f"moving-{number}")
        self._pods.append((pod, self._stack.enter_context(backends)))

    def _endpoints(self) -> None:
        """A pod comes; another is taken out first, and stopped when nothing leads to it any more."""
        self._start_pod()
        self._ats.change(self._write_pods)
        while len(self._pods) > self._random.randint(1, 3):
            gone, backends = self._pods.pop(0)
            self._ats.change(self._write_pods)
            assert gone.name not in self._ats.admin("/dump").body.decode()
            assert backends.child.stop() == 0

    def _write_pods(self) -> None:
        # Each has a port of its own, and so a slice of its own.
        slices = [endpoint_slice("moving", [pod.ip], port=pod.port, name=f"moving-{pod.port}") for pod, _ in self._pods]
        self._ats.write("pods.yaml", slices)

    def _certificate(self) -> None:
        pair = self._pairs[(self.n_steps + 1) % len(self._pairs)]
        self._ats.change(lambda: self._write_certificate(pair))
        tls = self._authority.client_context()
        connection = http_connection(self._net, NODE_IP, self._ats.https_port, tls=tls, server_name="tls.test")
        with contextlib.closing(connection):
            assert served_serial(connection.sock) == pair.serial  # type: ignore[arg-type]

    def _write_certificate(self, pair: Pair) -> None:
        self._ats.write("certificate.yaml", [tls_secret("tls", pair.certificate, pair.key)])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path / "ca.pem")


@pytest.fixture
def world(build: Build, tmp_path: Path, authority: Authority, seed: int) -> Generator[tuple[Ats, Churn, PodNet]]:
    """A running server in a pod network, and what changes around it."""
    with (
        PodNet() as net,
        Backends([FIXED], directory=tmp_path, place=net),
        contextlib.ExitStack() as pods,
        ats_directory() as directory,
    ):
        ats = Ats(build, directory, place=net, options=Options(address=NODE_IP))
        churn = Churn(ats, net, authority, tmp_path, seed, pods)
        churn.first()
        with ats:
            yield ats, churn, net


@contextlib.contextmanager
def loads(ats: Ats, net: PodNet, authority: Authority, directory: Path) -> Generator[dict[str, Load]]:
    """Load of every protocol; ends in order."""
    plain = [
        Request(host="fixed.test", app="fixed"),
        Request(host="fixed.test", path="/moving/x", app="moving"),
        Request(host="fixed.test", path="/moving/size?size=20000", app="moving"),
        Request(host="fixed.test", path="/moving/slow?slow_ms=30", app="moving"),
        Request(host="fixed.test", path="/post?echo=1", method="POST", body="x" * 1000, app="fixed"),
        Request(host="nobody.test", status=404),
        Request(host="fixed.test", path=HEALTH_PATH),
    ]
    secure = [Request(host="tls.test", app="fixed")]
    chosen: dict[str, tuple[Protocol, list[Request], bool, float, int]] = {
        # name: protocol, requests, over TLS, requests a second, requests a connection
        "http": ("http1", plain, False, 300, 0),
        "connections": ("http1", plain, False, 50, 1),
        "handshakes": ("http1", secure, True, 40, 2),
        "h2": ("h2", secure, True, 40, 0),
        "websocket": ("websocket", [Request(host="fixed.test", path="/ws")], False, 40, 0),
    }
    made: dict[str, Load] = {}
    with contextlib.ExitStack() as stack:
        for name, (protocol, requests, is_tls, rate, n_requests) in chosen.items():
            load = Load(
                requests,
                ip=NODE_IP,
                port=ats.https_port if is_tls else ats.http_port,
                place=net,
                directory=directory,
                protocol=protocol,
                ca_file=authority.path if is_tls else None,
                requests_per_s=rate,
                requests_per_connection=n_requests,
                name=name,
            )
            made[name] = stack.enter_context(load)
        yield made


def memory_kb(ats: Ats) -> int:
    """Resident memory of the server that is its own (RssAnon), kB."""
    status = Path(f"/proc/{ats.child.pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_everything_changes_and_nothing_is_lost(world: tuple[Ats, Churn, PodNet], authority: Authority, tmp_path: Path) -> None:
    """Every answer is right, memory and descriptors stay within bounds, the table moves on, and the log has nothing to say."""
    ats, churn, net = world
    first_version = ats.version()
    memory: list[tuple[float, int]] = []
    with loads(ats, net, authority, tmp_path) as running:
        begun_s = time.monotonic()
        while (elapsed_s := time.monotonic() - begun_s) < SECONDS:
            churn.step()
            memory.append((elapsed_s, memory_kb(ats)))
            failed = {name: load.now().failures for name, load in running.items() if load.now().failures}
            assert not failed, f"after {elapsed_s:.0f} s, {churn.n_steps} changes of each kind: {failed}"
        n_fds = ats.n_fds()
    warm = next(kb for at_s, kb in memory if at_s >= SECONDS / 4)
    grown_kb = memory[-1][1] - warm
    version = ats.version()
    print(f"{churn.n_steps} changes of each kind, table version {first_version} to {version}, {n_fds} descriptors under load")
    print(f"memory: {memory[0][1]} kB at first, {warm} kB when warm, {grown_kb:+} kB from then on")
    for name, load in running.items():
        result = load.finished
        print(f"{name}: {result.n_ok} requests, {result.n_failed} failed, p99 {result.p99_ms} ms, longest {result.max_ms} ms")
        result.expect_no_failure(at_least=int(SECONDS * 10 / slowness()))
    assert version >= first_version + 3 * churn.n_steps
    assert ats.counter("atsk8s_commits_total", result="failed") == 0
    assert grown_kb < GROWTH_MAX_KB
    assert ats.admin("/conditions").json() == []

    def has_few() -> bool:
        assert ats.n_fds() < n_fds, ats.n_fds()
        return True

    processes.await_condition("connections of the load are closed", has_few)


def test_the_load_counts_what_fails(tmp_path: Path) -> None:
    """What the other tests rest on: against a pod that misbehaves each failure is counted, once, as what it is."""
    (port, refused) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 2)
    faults = {
        "status 500": Request(host="a.test", path="/?status=500"),
        "wrong app": Request(host="a.test", app="other"),
        "closed": Request(host="a.test", path="/?close=before"),
        "broken": Request(host="a.test", path="/?reset=before"),
        "cut": Request(host="a.test", path="/?size=1000&close=mid"),
        "timeout": Request(host="a.test", path="/?slow_ms=8000"),
    }
    good = Request(host="a.test", app="app")
    with Backends([Pod(app="app", ip="127.0.0.2", port=port)], directory=tmp_path) as backends:
        for what, request in faults.items():
            backends.clear()
            load = Load(
                [good, request],
                ip="127.0.0.2",
                port=port,
                directory=tmp_path,
                connections=1,
                timeout_s=2.0,
                requests_per_s=0,
            )
            with load:
                processes.await_condition("three have failed", lambda load=load: load.now().n_failed >= 3)  # type: ignore[misc]
            result = load.finished
            assert list(result.failures) == [what]
            assert result.n_ok + result.n_failed == sum(count.requests for count in backends.counts().values())
            assert result.n_ok in (result.n_failed, result.n_failed + 1)
            with pytest.raises(AssertionError, match="requests failed"):
                result.expect_no_failure()
        with Load([good], ip="127.0.0.2", port=refused, directory=tmp_path) as load:
            pass
        assert list(load.finished.failures) == ["connect"]
