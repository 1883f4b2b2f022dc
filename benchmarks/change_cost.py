"""CPU of traffic_server for one change, on the tests' scripted API server.

    python -m benchmarks.change_cost SCRATCH ROUTES ROUNDS CHANGES

Prints two lines: milliseconds for one route change, and for one endpoint change, of each round.  A process of its own: the
scripted server holds a hundred thousand objects in Python, which would slow the measuring process down for the rest of its run.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from pathlib import Path

from benchmarks import machine, objects, ports, traffic_server
from benchmarks.objects import Object
from benchmarks.probe import Probe, ProbeError
from tests.harness.fakeapi import FakeApi
from tests.harness.processes import LOOPBACK

N_SERVICES = 100
INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
ROUTED = 503
PACE_S = 0.02  # between two changes: each is a commit of its own
_TIMEOUT_S = 300.0


def main() -> int:
    """See the module."""
    scratch, n, n_rounds, n_changes = Path(sys.argv[1]), *map(int, sys.argv[2:])
    step = max(1, n // n_changes)
    asked = (n_changes - 1) * step % n  # the last one that changes
    admin_port = ports.free(LOOPBACK)
    with FakeApi() as api:
        for i in range(N_SERVICES):
            api.put(SERVICES, objects.service(f"s{i}"))
            api.put(SLICES, _slice(i, 0))
        api.put(SERVICES, objects.service("empty"))
        api.put(SLICES, objects.endpoint_slice("empty", [], 80))
        for i in range(n):
            api.put(INGRESSES, _route(i, asked, "/"))
        for path in (SERVICES, SLICES, INGRESSES):
            api.compact(path)  # watches begin after this: nobody goes over a hundred thousand old events again
        remap, _ = traffic_server.plugin_lines([f"--server={api.url}", f"--admin=127.0.0.1:{admin_port}"])
        environment = {"ATSK8S_TOKEN": "bench"}
        with traffic_server.running("atsk8s", scratch / "ats", remap=remap, environment=environment) as proxy:
            probe = Probe(LOOPBACK, "127.0.0.1", proxy.port)
            _await(probe, objects.host(asked), ROUTED)
            routes, endpoints = [], []
            for number in range(n_rounds):
                path, status = (("/elsewhere", 404), ("/", ROUTED))[number % 2]
                changed = [_route(i * step % n, asked, path) for i in range(n_changes)]
                moved = [_slice(i % N_SERVICES, number + 1) for i in range(n_changes)]
                routes.append(_cost(proxy.pids[0], api, INGRESSES, changed))
                _await(probe, objects.host(asked), status)
                before = _published(admin_port)
                endpoints.append(_cost(proxy.pids[0], api, SLICES, moved))
                if _published(admin_port) - before < n_changes / 2:
                    raise ProbeError(f"{n_changes} endpoint changes made only {_published(admin_port) - before:.0f} commits")
    print(*routes)
    print(*endpoints)
    return 0


def _cost(pid: int, api: FakeApi, path: str, changes: list[Object]) -> float:
    """Return CPU for each change [ms]: over a series, less what the same time costs with nothing to do."""
    began_s, before = time.monotonic(), machine.cpu_s([pid])
    time.sleep(1.0)
    idle = (machine.cpu_s([pid]) - before) / (time.monotonic() - began_s)
    began_s, before = time.monotonic(), machine.cpu_s([pid])
    for obj in changes:
        api.put(path, obj)
        time.sleep(PACE_S)
    time.sleep(5 * PACE_S)
    spent_s = machine.cpu_s([pid]) - before - idle * (time.monotonic() - began_s)
    return max(0.0, spent_s) / len(changes) * 1000


def _published(admin_port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("atsk8s_table_version "):
                return float(line.split()[1])
    raise ProbeError("no atsk8s_table_version among the metrics")


def _await(probe: Probe, host: str, status: int) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while (answer := probe.ask(host)).status != status:
        if time.monotonic() > deadline_s:
            raise ProbeError(f"{host}: still {answer.status} instead of {status}")
        time.sleep(0.005)


def _route(i: int, asked: int, path: str) -> Object:
    """The one that is asked for has no endpoint: its 503 says that it is routed, and no connection is tried."""
    obj = objects.ingress(f"route-{i}", [objects.host(i)], "empty" if i == asked else f"s{i % N_SERVICES}")
    obj["spec"]["rules"][0]["http"]["paths"][0]["path"] = path
    return obj


def _slice(i: int, version: int) -> Object:
    """Five endpoints, one of which is another in each version; nobody connects to them."""
    ips = [f"192.0.2.{1 + (i + k) % 200}" for k in range(4)]
    return objects.endpoint_slice(f"s{i}", [*ips, f"198.51.100.{1 + (i + version) % 250}"], 80)


if __name__ == "__main__":
    sys.exit(main())
