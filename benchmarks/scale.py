"""Group `scale`: cold start, memory of a route, and what one change costs when the cluster is ten times as large."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cluster, figures, machine, native, objects, peer_load, tls
from benchmarks.cluster import ORIGIN_PORT, Cluster
from benchmarks.figures import Row, Target
from benchmarks.objects import Object
from benchmarks.probe import POLL_S, Probe, ProbeError
from benchmarks.run import Effort, Run, part
from deploy.prerequisites import say

GROUP = "scale"
N_ROUTES = 10_000
N_SHARED = 4  # Services that the routes share
N_FULL_SERVICES, N_FULL_ENDPOINTS, N_FULL_CERTIFICATES = 20_000, 5, 5_000
N_CHANGES = 100
_ANSWER_TIMEOUT_S = 120.0
_LIMIT_S = 420.0  # of one part


def run(settings: Run) -> Iterator[Row]:
    """Measure against a real API server up to the full load, then the cost of a change up to 100,000 routes; last the peers."""
    n = 1_000 if settings.quick else N_ROUTES
    yield from part(GROUP, f"{n:,} routes on shared Services", _shared(settings, n), limit_s=_LIMIT_S)
    if not settings.quick:
        yield from part(GROUP, "the full load", _own(settings), limit_s=_LIMIT_S)
    yield from part(GROUP, "cost of a change", _change_costs(settings), limit_s=_LIMIT_S)
    yield from part(GROUP, "start from the last good state", _state_start(settings), limit_s=_LIMIT_S)
    yield from part(GROUP, "relist after 410", _relist(settings, n), limit_s=_LIMIT_S)
    if settings.peers:
        yield from part(GROUP, "beside the peers", peer_load.scale(settings, GROUP), limit_s=2 * _LIMIT_S)


def _made(path: Path) -> Path:
    path.mkdir(mode=0o755)
    return path


# --- against the API server -----------------------------------------------------------------------------------------------------


def _shared(settings: Run, n: int) -> Iterator[Row]:
    with cluster.running(_made(settings.scratch / "shared")) as running:
        yield from _shared_on(running, n, settings)


def _own(settings: Run) -> Iterator[Row]:
    with cluster.running(_made(settings.scratch / "own")) as running:
        yield from _own_on(running, settings)


def _shared_on(running: Cluster, n: int, settings: Run) -> Iterator[Row]:
    """Routes on a few Services: memory before and after, and the start."""
    api = running.plane.api
    for obj in _few_services():
        api.create(obj)
    api.create(_route(0))
    with running.proxy() as proxy:
        await_answer(running.probe(), objects.host(0))
        empty_kib = machine.rss_kib(proxy.pids[0])
    say(f"bench: scale: loading {n:,} Ingresses on {N_SHARED} Services")
    running.create(_route(i) for i in range(1, n + 1)).finish()
    yield from _starts(running, n, settings, f"{n:,} routes on {N_SHARED} Services", target=Target.maximum(0.8))
    with running.proxy() as proxy:
        probe = running.probe()
        await_answer(probe, objects.host(n))
        loaded_kib = machine.rss_kib(proxy.pids[0])
        change_ingresses(api.replace, probe, n)
        changed_kib = machine.rss_kib(proxy.pids[0])
    target = Target.maximum(3)
    for kib, what in ((loaded_kib, "after start"), (changed_kib, f"after {N_CHANGES} changes")):
        per_route = (kib - empty_kib) / n
        note = f"RSS {kib / 1024:.0f} MiB, {empty_kib / 1024:.0f} MiB with one route"
        yield figures.plain(
            GROUP, f"memory of a route, {n:,} on shared Services, {what}", "KiB", [per_route], target=target, note=note
        )


def _own_on(running: Cluster, settings: Run) -> Iterator[Row]:
    """Routes with a Service and a slice each, then the full load: 20,000 Services, 100,000 endpoints, 5,000 certificates."""
    api = running.plane.api
    api.create(_own_service(0))
    api.create(_own_slice(0))
    api.create(_own_route(0))
    with running.proxy() as proxy:
        await_answer(running.probe(), objects.host(0))
        empty_kib = machine.rss_kib(proxy.pids[0])
    say(f"bench: scale: loading {N_ROUTES:,} Ingresses with a Service and a slice each")
    for make in (_own_service, _own_slice, _own_route):
        running.create(make(i) for i in range(1, N_ROUTES + 1)).finish()
    api.close()  # the server may have closed what was idle meanwhile
    with running.proxy() as proxy:
        await_answer(running.probe(), objects.host(N_ROUTES))
        kib = machine.rss_kib(proxy.pids[0])
        note = f"RSS {kib / 1024:.0f} MiB, {empty_kib / 1024:.0f} MiB with one route"
        name = f"memory of a route, {N_ROUTES:,} with a Service and slice each, after"
        yield figures.plain(GROUP, f"{name} start", "KiB", [(kib - empty_kib) / N_ROUTES], target=Target.maximum(8), note=note)
        for i in range(1, N_CHANGES + 1):
            api.replace(_own_slice(i, later=1))
        name, changed_kib = f"{name} {N_CHANGES} endpoint changes", machine.rss_kib(proxy.pids[0])
        yield figures.plain(GROUP, name, "KiB", [(changed_kib - empty_kib) / N_ROUTES], target=Target.maximum(8))
    say(
        f"bench: scale: {N_FULL_SERVICES - N_ROUTES:,} more Services, {N_FULL_CERTIFICATES:,} of the routes with a certificate each"
    )
    ingresses = api.path("networking.k8s.io/v1", "Ingress", namespace=objects.NAMESPACE)
    api.call("DELETE", ingresses, query={"labelSelector": "bench=replaced"})
    for make in (_own_service, _own_slice):
        running.create(make(i) for i in range(N_ROUTES + 1, N_FULL_SERVICES)).finish()
    running.create(_secrets()).finish()
    running.create(_certified(i) for i in range(1, N_FULL_CERTIFICATES + 1)).finish()
    title = f"{N_ROUTES:,} Ingresses, {N_FULL_SERVICES:,} Services and slices, {N_FULL_CERTIFICATES:,} certificates"
    yield from _full_starts(running, settings, title)


def _full_starts(running: Cluster, settings: Run, title: str) -> Iterator[Row]:
    took_s, cpu_s, mib = [], [], []
    for _ in range(1 if settings.effort is Effort.TRIAL else 3):
        with running.proxy(await_listening=False, tls=True) as proxy:
            probe = running.probe()
            for i in (N_ROUTES, N_FULL_CERTIFICATES, 1):
                await_answer(probe, objects.host(i))
            took_s.append(time.monotonic() - proxy.started_s)
            cpu_s.append(machine.cpu_s(proxy.pids))
            mib.append(machine.rss_kib(proxy.pids[0]) / 1024)
    note = f"{N_FULL_SERVICES * N_FULL_ENDPOINTS:,} endpoints"
    yield figures.plain(GROUP, f"cold start, {title}", "s", took_s, target=Target.maximum(3), note=note)
    yield figures.plain(GROUP, f"cold start, {title}: CPU", "s", cpu_s)
    yield figures.plain(GROUP, f"memory, {title}", "MiB", mib)


def _starts(running: Cluster, n: int, settings: Run, title: str, *, target: Target) -> Iterator[Row]:
    took_s, cpu_s = [], []
    for _ in range(settings.n_runs):
        with running.proxy(await_listening=False) as proxy:
            probe = running.probe()
            for i in (n, 0, n // 2):  # the table is published whole: all of it is there when one is
                await_answer(probe, objects.host(i))
            took_s.append(time.monotonic() - proxy.started_s)
            cpu_s.append(machine.cpu_s(proxy.pids))
    yield figures.plain(GROUP, f"cold start, {title}", "s", took_s, target=target, note="process start to the last route's answer")
    yield figures.plain(GROUP, f"cold start, {title}: CPU", "s", cpu_s)


def await_answer(probe: Probe, host: str) -> None:
    """Ask for `host`, through refused connections and 404, until the answer is 200.  Raises ProbeError after minutes."""
    deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            if probe.ask(host).status == 200:
                return
        if time.monotonic() > deadline_s:
            raise ProbeError(f"{host}: no answer 200 within {_ANSWER_TIMEOUT_S:g} s")
        time.sleep(POLL_S)


def change_ingresses(replace: Callable[[Object], object], probe: Probe, n: int) -> None:
    """Change `N_CHANGES` routes, each to a path and back, and wait until the last change is seen."""
    step = max(1, n // N_CHANGES)
    for path in ("/elsewhere", "/"):
        for i in range(step, n + 1, step):
            obj = _route(i)
            obj["spec"]["rules"][0]["http"]["paths"][0]["path"] = path
            replace(obj)
    await_answer(probe, objects.host(n // step * step))


def _few_services() -> Iterator[Object]:
    for i in range(N_SHARED):
        yield objects.service(f"shared-{i}")
        yield objects.endpoint_slice(f"shared-{i}", [f"10.244.1.{1 + i}"], ORIGIN_PORT)


def _route(i: int) -> Object:
    return objects.ingress(f"route-{i}", [objects.host(i)], f"shared-{i % N_SHARED}")


def _own_service(i: int) -> Object:
    return objects.service(f"own-{i}", headless=True)


def _own_slice(i: int, later: int = 0) -> Object:
    numbers = [i * N_FULL_ENDPOINTS + k + later for k in range(N_FULL_ENDPOINTS)]
    ips = [f"10.244.{3 + number // 250 % 250}.{1 + number % 250}" for number in numbers]
    return objects.endpoint_slice(f"own-{i}", ips, ORIGIN_PORT)


def _own_route(i: int) -> Object:
    obj = objects.ingress(f"own-{i}", [objects.host(i)], f"own-{i}")
    obj["metadata"]["labels"] = {"bench": "replaced" if 1 <= i <= N_FULL_CERTIFICATES else "kept"}
    return obj


def _secrets() -> Iterator[Object]:
    for i, made in enumerate(tls.make_certificates(N_FULL_CERTIFICATES + 1, "ECDSA P-256")[1:], 1):
        yield objects.tls_secret(f"tls-{i}", made.certificate, made.key)


def _certified(i: int) -> Object:
    return objects.ingress(f"tls-{i}", [objects.host(i)], f"own-{i}", secret=f"tls-{i}")


# --- the cost of one change -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one change at one size, of each round."""

    route_ms: Sequence[float]
    endpoint_ms: Sequence[float]


def _change_costs(settings: Run) -> Iterator[Row]:
    """Yield CPU per change at growing sizes, on the tests' scripted API server: a real one takes minutes for 100,000 Ingresses."""
    sizes = (1_000, 10_000) if settings.quick else (1_000, 10_000, 100_000)
    costs: dict[int, Cost] = {}
    for n in sizes:
        say(f"bench: scale: cost of a change at {n:,} routes")
        costs[n] = _cost(n, _made(settings.scratch / f"cost-{n}"), settings.n_runs)
        yield figures.plain(GROUP, f"CPU of one route change, {n:,} routes", "ms", costs[n].route_ms)
        yield figures.plain(GROUP, f"CPU of one endpoint change, {n:,} routes", "ms", costs[n].endpoint_ms)
    for small, large in itertools.pairwise(sizes):
        for what in ("route", "endpoint"):
            mine, theirs = (getattr(costs[n], f"{what}_ms") for n in (large, small))
            ratios = [a / b for a in mine for b in theirs]
            yield Row(
                group=GROUP,
                name=f"CPU of one {what} change, {large:,} routes against {small:,}",
                unit="ms",
                ours=statistics.median(mine),
                reference=statistics.median(theirs),
                reference_name=f"at {small:,}",
                value=statistics.median(mine) / statistics.median(theirs),
                low=min(ratios),
                high=max(ratios),
                n_runs=len(mine),
                target=Target.maximum(1.3),
                note="here less is better",
            )


def _state_start(settings: Run) -> Iterator[Row]:
    """Process start to the first routed answer from the last good state, with the API server away."""
    n, n_starts = (10_000, 3) if settings.quick else (100_000, settings.n_runs)
    say(f"bench: scale: start from the last good state, {n:,} routes")
    scratch = _made(settings.scratch / "state")
    line = _child("benchmarks.state_start", [str(scratch), str(n), str(n_starts)], "the start from the last good state")[-1]
    took_s = [float(word) for word in line.split()]
    yield figures.plain(GROUP, f"start from the last good state, {n:,} routes", "s", took_s, target=Target.maximum(0.5))


def _relist(settings: Run, n: int) -> Iterator[Row]:
    """All watches answered 410 at once: what listing again costs, when a change made meanwhile is seen, and the longest wait."""
    say(f"bench: scale: listing again after 410, {n:,} routes")
    arguments = [str(_made(settings.scratch / "relist")), str(n), str(settings.n_runs)]
    found: dict[str, list[float]] = json.loads(_child("benchmarks.relist", arguments, "listing again")[-1])
    title, note = f"first relist after 410, {n:,} routes", "scripted API server, a fresh process each"
    first = f"{note}; its time included; 410 again within a minute would be waited after: 0.8 to 1.6 s, then twice that, up to 60 s"
    yield figures.plain(GROUP, f"{title}: a change made meanwhile is seen", "s", found["seen_s"], note=first)
    yield figures.plain(GROUP, f"{title}: the same with requests going on", "s", found["seen_request_s"], note=note)
    yield figures.plain(GROUP, f"{title}: CPU", "s", found["cpu_s"], note=note)
    for what in ("request", "handshake"):
        ours, quiet = found[f"{what}_ms"], found[f"{what}_quiet_ms"]
        name = f"{title}: longest {what}"
        yield figures.compared(GROUP, name, "ms", ours, quiet, "without a relist", less_is_better=True, note=note)


def _child(module: str, arguments: Sequence[str], what: str) -> list[str]:
    """Run a module of ours in a process of its own; the lines that it printed."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=native.HERE.parent)
    if done.returncode != 0:
        raise ProbeError(f"{what}: {done.stderr.strip()[-1500:]}")
    return done.stdout.splitlines()


def _cost(n: int, scratch: Path, n_rounds: int) -> Cost:
    """Return CPU [ms] of traffic_server for each change, less what it uses when nothing changes."""
    arguments = [str(scratch), str(n), str(n_rounds), str(N_CHANGES)]
    lines = _child("benchmarks.change_cost", arguments, f"the change at {n:,} routes")
    route_ms, endpoint_ms = ([float(word) for word in line.split()] for line in lines[-2:])
    return Cost(route_ms=route_ms, endpoint_ms=endpoint_ms)
