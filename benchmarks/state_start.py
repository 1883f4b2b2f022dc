"""How soon a start serves from the last good state, with the API server away.

    python -m benchmarks.state_start SCRATCH ROUTES STARTS

Prints one line: seconds from process start to the first routed answer, of each start.  A process of its own, as change_cost is.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from benchmarks import objects, traffic_server
from benchmarks.change_cost import INGRESSES, N_SERVICES, ROUTED, SERVICES, SLICES
from benchmarks.probe import Probe, ProbeError
from deploy import server
from tests.harness.fakeapi import FakeApi
from tests.harness.processes import LOOPBACK

UNKNOWN_HOST = "nobody.example"
NO_SUCH_HOST = 404  # a table's answer: without one it is 503 for every host
_TIMEOUT_S = 300.0


def main() -> int:
    """See the module."""
    scratch, n, n_starts = Path(sys.argv[1]), *map(int, sys.argv[2:])
    state_dir = scratch / "state"
    state_dir.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = server.ats_user()
        os.chown(state_dir, user.pw_uid, user.pw_gid)
    environment = {"ATSK8S_TOKEN": "bench"}
    with FakeApi() as api:
        for i in range(N_SERVICES):
            api.put(SERVICES, objects.service(f"s{i}"))
            api.put(SLICES, objects.endpoint_slice(f"s{i}", [f"192.0.2.{1 + i % 200}"], 80))
        api.put(SERVICES, objects.service("empty"))
        api.put(SLICES, objects.endpoint_slice("empty", [], 80))
        for i in range(n):  # the last one has no endpoint: its 503 says that it is routed, and no connection is tried
            api.put(INGRESSES, objects.ingress(f"route-{i}", [objects.host(i)], "empty" if i == n - 1 else f"s{i % N_SERVICES}"))
        for path in (SERVICES, SLICES, INGRESSES):
            api.compact(path)
        remap, _ = traffic_server.plugin_lines([f"--server={api.url}", "--admin=off", f"--state-dir={state_dir}"])
        with traffic_server.running("atsk8s", scratch / "first", remap=remap, environment=environment) as proxy:
            _await_table(Probe(LOOPBACK, "127.0.0.1", proxy.port), n)
            _await_file(state_dir / "table.state")
    took_s = []
    for number in range(n_starts):
        with traffic_server.running("atsk8s", scratch / f"again-{number}", remap=remap, environment=environment) as proxy:
            _await_table(Probe(LOOPBACK, "127.0.0.1", proxy.port), n)
            took_s.append(time.monotonic() - proxy.started_s)
    print(*took_s)
    return 0


def _await_table(probe: Probe, n: int) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while probe.ask(UNKNOWN_HOST).status != NO_SUCH_HOST or probe.ask(objects.host(n - 1)).status != ROUTED:
        if time.monotonic() > deadline_s:
            raise ProbeError(f"no table with {n:,} routes within {_TIMEOUT_S:g} s")
        time.sleep(0.002)


def _await_file(path: Path) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline_s:
            raise ProbeError(f"{path.name} was not written within {_TIMEOUT_S:g} s")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
