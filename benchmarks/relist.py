"""What it costs when every watch is too old (410 Gone) and all objects are listed again, and who notices.

    python -m benchmarks.relist SCRATCH ROUTES ROUNDS

Prints one line of JSON: samples of each figure.  On the tests' scripted API server, which forgets its history and cuts every watch
at one moment; a real one does so on its own time.  A process of its own, as change_cost is; its API server's part of the time
counts in "seen".  Every relist is the first of a Traffic Server of its own: the product makes those that follow soon wait.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import machine, objects, tls, traffic_server
from benchmarks.change_cost import INGRESSES, N_SERVICES, ROUTED, SERVICES, SLICES
from benchmarks.load import Hosts, shoot
from benchmarks.objects import Object
from benchmarks.probe import Probe, ProbeError
from benchmarks.tls import Kind
from benchmarks.traffic_server import Proxy
from tests.harness.fakeapi import FakeApi
from tests.harness.processes import LOOPBACK

SECRETS = "/api/v1/secrets"
N_CERTIFICATES = 100
LOAD_S = 4.0  # of requests or handshakes; the relist begins a quarter into it
N_CONNECTIONS, PAUSE_MS = 8, 5  # about 1,500 requests/s: the cores have room, and a wait is the proxy's
IDLE_S = 1.0
CALM_S = 6.0  # a watch that breaks within 5 s of its beginning is a failure, and waited after
_TIMEOUT_S = 120.0


class _Relisting:
    """One proxy on one scripted API server."""

    def __init__(self, api: FakeApi, proxy: Proxy, n_routes: int, probe: Probe | None) -> None:
        self._api, self.proxy, self._n_routes, self._probe = api, proxy, n_routes, probe

    def happen(self) -> float:
        """Make every watch too old and cut it, change an Ingress at once, and return when that is seen, from then [s]."""
        n_before = len(self._api.asked(INGRESSES))
        self._api.put("/elsewhere", {"metadata": {"name": "newer"}})  # the server's version goes past that of every watch
        for path in (SERVICES, SLICES, INGRESSES, SECRETS):
            self._api.compact(path)
        began_s = time.monotonic()
        self._api.cut()
        path = f"/changed-{uuid.uuid4().hex}"
        self._api.put(INGRESSES, _route(self._n_routes - 1, path))
        if self._probe is not None:
            self._await_path(path)
        else:
            self._api.wait_for(self._is_listed(n_before), _TIMEOUT_S)
        took_s = time.monotonic() - began_s
        if not self._is_listed(n_before)():
            raise ProbeError("the watch of Ingresses went on: it was not listed again")
        return took_s

    def cpu_s(self) -> float:
        """Return the CPU time of traffic_server so far [s]."""
        return machine.cpu_s(self.proxy.pids)

    def _is_listed(self, n_before: int) -> Callable[[], bool]:
        def listed() -> bool:
            since = self._api.asked(INGRESSES)[n_before:]
            # A list of one object asks which version there is; it lists nothing.
            lists = [one for one in since if not one.is_watch or one.query.get("sendInitialEvents") == "true"]
            return any(one.query.get("limit") != "1" for one in lists)

        return listed

    def _await_path(self, path: str) -> None:
        assert self._probe is not None
        host = objects.host(self._n_routes - 1)
        deadline_s = time.monotonic() + _TIMEOUT_S
        while (answer := self._probe.ask(host, path)).status != ROUTED:
            if time.monotonic() > deadline_s:
                raise ProbeError(f"{host}{path}: still {answer.status} after {_TIMEOUT_S:g} s")
            time.sleep(0.001)


def main() -> int:
    """See the module."""
    scratch, n, n_rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with FakeApi() as api, ThreadPoolExecutor(1) as pool:
        _fill(api, n)
        for number in range(n_rounds):
            with _calm(api, n, scratch / f"idle-{number}", tls=False) as relisting:
                _idle(relisting, note)
            for name, tls, load in (("request", False, _requests), ("handshake", True, _handshakes)):
                with _calm(api, n, scratch / f"{name}-{number}", tls=tls) as relisting:
                    note(f"{name}_quiet_ms", pool.submit(load, relisting.proxy).result())
                    shot = pool.submit(load, relisting.proxy)
                    time.sleep(LOAD_S / 4)
                    note(f"seen_{name}_s", relisting.happen())
                    note(f"{name}_ms", shot.result())
    print(json.dumps(found))
    return 0


@contextlib.contextmanager
def _calm(api: FakeApi, n: int, root: Path, *, tls: bool) -> Generator[_Relisting]:
    """Run a process of its own for each relist, since a second one within a minute would wait; yield once its watches are old."""
    remap, plugins = traffic_server.plugin_lines([f"--server={api.url}", "--admin=off"], tls=tls)
    environment = {"ATSK8S_TOKEN": "bench"}
    with traffic_server.running("atsk8s", root, remap=remap, plugins=plugins, environment=environment, tls=tls) as proxy:
        time.sleep(CALM_S)
        yield _Relisting(api, proxy, n, None if tls else Probe(LOOPBACK, "127.0.0.1", proxy.port))


def _idle(relisting: _Relisting, note: Callable[[str, float], None]) -> None:
    """Note what a relist costs, less what the same time costs idle, and when the change is seen, with nothing else to do."""
    began_s, before_s = time.monotonic(), relisting.cpu_s()
    time.sleep(IDLE_S)
    idle = (relisting.cpu_s() - before_s) / (time.monotonic() - began_s)
    began_s, before_s = time.monotonic(), relisting.cpu_s()
    note("seen_s", relisting.happen())
    time.sleep(IDLE_S)
    note("cpu_s", relisting.cpu_s() - before_s - idle * (time.monotonic() - began_s))


def _requests(proxy: Proxy) -> float:
    """Return the longest request [ms]; a failed one is an error."""
    hosts = Hosts(n=1, of=1)
    # No endpoint listens: 503 is the answer of the route, and a bad status for wrk.
    shot = shoot(proxy, path="/", hosts=hosts, connections=N_CONNECTIONS, seconds=LOAD_S, may_fail=True, pause_ms=PAUSE_MS)
    return shot.max_ms


def _handshakes(proxy: Proxy) -> float:
    return tls.turn(proxy, Kind(version="1.3", resumed=False), N_CERTIFICATES, LOAD_S).max_ms


def _fill(api: FakeApi, n: int) -> None:
    for i in range(N_SERVICES):
        api.put(SERVICES, objects.service(f"s{i}"))
        api.put(SLICES, objects.endpoint_slice(f"s{i}", [f"192.0.2.{1 + i}"], 80))
    api.put(SERVICES, objects.service("empty"))
    api.put(SLICES, objects.endpoint_slice("empty", [], 80))
    for i, made in enumerate(tls.make_certificates(N_CERTIFICATES, "ECDSA P-256")):
        secret = objects.tls_secret(f"tls-{i}", made.certificate, made.key)
        data = {name: base64.b64encode(text.encode()).decode() for name, text in secret.pop("stringData").items()}
        api.put(SECRETS, {**secret, "data": data})
    for i in range(n):
        api.put(INGRESSES, _route(i, "/" if i < n - 1 else "/before"))
    for path in (SERVICES, SLICES, SECRETS, INGRESSES):
        api.compact(path)


def _route(i: int, path: str) -> Object:
    """What is asked for, route 0 and the last, has no endpoint: 503 says that it is routed, and no connection is tried.

    Nor on the last one's way from one path to the next: what is asked for too early matches none of its paths.
    """
    service = "empty" if i == 0 or path != "/" else f"s{i % N_SERVICES}"
    secret = f"tls-{i}" if i < N_CERTIFICATES else ""
    obj = objects.ingress(f"route-{i}", [objects.host(i)], service, secret=secret)
    obj["spec"]["rules"][0]["http"]["paths"][0]["path"] = path
    return obj


if __name__ == "__main__":
    sys.exit(main())
