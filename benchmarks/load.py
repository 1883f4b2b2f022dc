"""Load from wrk on one proxy, and what it cost the proxy: requests/s, latency, CPU per request."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from benchmarks import machine, native, packages
from benchmarks.traffic_server import Proxy
from tests.harness import processes


class LoadError(RuntimeError):
    """A measurement failed: wrk ended badly, or answers were not 200; the message says which proxy and what it saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The requests' hosts: `n` names in turn, spread over `of` that exist."""

    n: int = 1
    of: int = 1

    @property
    def stride(self) -> int:
        """Return the distance between two that are asked for."""
        return max(1, self.of // self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One run of load."""

    requests: int
    per_s: float
    cpu_us: float  # of the proxy's processes, per request
    p50_ms: float
    p99_ms: float
    max_ms: float
    n_bad: int = 0  # answers that are no success, and broken connections


def shoot(
    proxy: Proxy,
    *,
    path: str,
    hosts: Hosts,
    connections: int,
    seconds: float,
    place: processes.Place = processes.LOOPBACK,
    ip: str = "127.0.0.1",
    may_fail: bool = False,
    pause_ms: int = 0,
) -> Shot:
    """Send requests for `seconds`, on `connections` kept alive, and return what came of it.

    Args:
        proxy: listens at `ip` in `place`.
        path: of every request.
        hosts: of the requests, in turn.
        connections: how many, from one thread.
        seconds: wrk takes whole ones; less than 1 is 1.
        place: where to run wrk.
        may_fail: bad answers are counted, and are no error.
        pause_ms: of each connection between an answer and its next request; 0 is as fast as it can.

    Raises:
        LoadError: one answer was not 2xx or 3xx, a connection failed, or nothing was answered.
        packages.PackageError: no wrk.
    """
    wrk = packages.program("wrk", "wrk")
    command = [str(wrk.path), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += [
        "-s",
        str(native.HERE / "wrk.lua"),
        f"http://{ip}:{proxy.port}/",
        "--",
        path,
        str(hosts.n),
        str(hosts.stride),
        str(pause_ms),
    ]
    pids = [pid for first in proxy.pids for pid in machine.process_tree(first)]
    before = machine.cpu_s(pids)
    done = subprocess.run(place.argv(command), capture_output=True, text=True, env=wrk.environment, check=False)
    cpu_s = machine.cpu_s(pids) - before
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not lines:
        raise LoadError(f"{proxy.name}: wrk ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    said = json.loads(lines[0])
    n_bad = said["bad_status"] + said["socket_errors"]
    if said["requests"] == 0 or (n_bad and not may_fail):
        raise LoadError(f"{proxy.name}: bad answers in {said}")
    return Shot(
        requests=said["requests"],
        per_s=said["requests"] / (said["duration_us"] / 1e6),
        cpu_us=cpu_s / said["requests"] * 1e6,
        p50_ms=said["p50_us"] / 1000,
        p99_ms=said["p99_us"] / 1000,
        max_ms=said["max_us"] / 1000,
        n_bad=n_bad,
    )
