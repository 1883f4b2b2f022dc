"""What it costs when every watch is too old (410 Gone) and all objects are listed again, and who notices.

    python -m benchmarks.relist SCRATCH ROUTES ROUNDS

Prints one line of JSON: samples of each figure.  On the tests' scripted API server, which forgets its history and cuts every watch
at one moment; a real one does so on its own time.  A process of its own, as change_cost is; its API server's part of the time
counts in "seen".
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable
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
_TIMEOUT_S = 120.0


class _Relisting:
    """One proxy on one scripted API server."""

    def __init__(self, api: FakeApi, proxy: Proxy, n_routes: int, probe: Probe | None) -> None:
        self._api, self._proxy, self._n_routes, self._probe = api, proxy, n_routes, probe
        self._n_changes = 0

    def happen(self) -> float:
        """Make every watch too old and cut it, change an Ingress at once, and return when that is seen, from then [s]."""
        self._n_changes += 1
        n_before = len(self._api.asked(INGRESSES))
        self._api.put("/elsewhere", {"metadata": {"name": "newer"}})  # the server's version goes past that of every watch
        for path in (SERVICES, SLICES, INGRESSES, SECRETS):
            self._api.compact(path)
        began_s = time.monotonic()
        self._api.cut()
        path = f"/changed-{self._n_changes}"
        self._api.put(INGRESSES, _route(self._n_routes - 1, path))
        if self._probe is not None:  # the old path no longer matches what is routed there: / goes from 503 or 404 to 404 ...
            self._await_path(path)
        else:
            self._api.wait_for(self._is_listed(n_before), _TIMEOUT_S)
        took_s = time.monotonic() - began_s
        if not self._is_listed(n_before)():
            raise ProbeError("the watch of Ingresses went on: it was not listed again")
        return took_s

    def cpu_s(self) -> float:
        """Return the CPU time of traffic_server so far [s]."""
        return machine.cpu_s(self._proxy.pids)

    def _is_listed(self, n_before: int) -> Callable[[], bool]:
        def listed() -> bool:
            since = self._api.asked(INGRESSES)[n_before:]
            return any(not one.is_watch or one.query.get("sendInitialEvents") == "true" for one in since)

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
        options = [f"--server={api.url}", "--admin=off"]
        environment = {"ATSK8S_TOKEN": "bench"}
        remap, _ = traffic_server.plugin_lines(options)
        with traffic_server.running("atsk8s", scratch / "http", remap=remap, environment=environment) as proxy:
            probe = Probe(LOOPBACK, "127.0.0.1", proxy.port)
            relisting = _Relisting(api, proxy, n, probe)
            for _ in range(n_rounds):
                began_s, before_s = time.monotonic(), relisting.cpu_s()
                time.sleep(IDLE_S)
                idle = (relisting.cpu_s() - before_s) / (time.monotonic() - began_s)
                began_s, before_s = time.monotonic(), relisting.cpu_s()
                note("seen_s", relisting.happen())
                time.sleep(IDLE_S)
                note("cpu_s", relisting.cpu_s() - before_s - idle * (time.monotonic() - began_s))
            for _ in range(n_rounds):
                for name, relists in (("request_quiet_ms", False), ("request_ms", True)):
                    shot = pool.submit(_requests, proxy)
                    time.sleep(LOAD_S / 4)
                    if relists:
                        note("seen_busy_s", relisting.happen())
                    note(name, shot.result())
        remap, plugins = traffic_server.plugin_lines(options, tls=True)
        with traffic_server.running(
            "atsk8s", scratch / "https", remap=remap, plugins=plugins, environment=environment, tls=True
        ) as proxy:
            relisting = _Relisting(api, proxy, n, None)
            for _ in range(n_rounds):
                for name, relists in (("handshake_quiet_ms", False), ("handshake_ms", True)):
                    shot = pool.submit(_handshakes, proxy)
                    time.sleep(LOAD_S / 4)
                    if relists:
                        relisting.happen()
                    note(name, shot.result())
    print(json.dumps(found))
    return 0


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
        api.put(INGRESSES, _route(i, "/"))
    for path in (SERVICES, SLICES, SECRETS, INGRESSES):
        api.compact(path)


def _route(i: int, path: str) -> Object:
    """Routes 0 and the last have no endpoint: their 503 says that they are routed, and no connection is tried."""
    service = "empty" if i == 0 or path != "/" else f"s{i % N_SERVICES}"
    secret = f"tls-{i}" if i < N_CERTIFICATES else ""
    obj = objects.ingress(f"route-{i}", [objects.host(i)], service, secret=secret)
    obj["spec"]["rules"][0]["http"]["paths"][0]["path"] = path
    return obj


if __name__ == "__main__":
    sys.exit(main())
