"""What the peers' cold start, memory, changes and requests cost, beside ours: same API server, same origin, same run (`--peers`).

All take Ingresses without a class, and stand in one pod network; `scale` runs one at a time, `request` all at once, in turns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import cluster, figures, machine, objects, peers
from benchmarks.cluster import ORIGIN_PORT, Cluster
from benchmarks.figures import Row
from benchmarks.load import Hosts, Shot, shoot
from benchmarks.objects import Object
from benchmarks.probe import POLL_S, Probe, ProbeError
from benchmarks.run import Effort, Run, part
from benchmarks.traffic_server import Proxy
from deploy.prerequisites import say
from tests.harness.podnet import NODE_IP

OURS = "atsk8s"
N_ROUTES = 10_000
N_SERVICES = 4
N_HOT = 1_000  # hosts asked for where they rotate
N_CREATED = 30
_PORTS = {OURS: 8011, "Contour+Envoy": 8012, "Traefik": 8013}  # outside the range of ephemeral ports
_ANSWER_TIMEOUT_S = 120.0

Measured = dict[str, list[float]]  # figure and its samples
_UNITS = {
    "cold start": "s",
    "cold start: CPU": "s",
    "RSS with one route": "MiB",
    "RSS": "MiB",
    "memory of a route": "KiB",
    "memory of a route, after changes": "KiB",
    "CPU of one new Ingress": "ms",
}


def scale(settings: Run, group: str) -> Iterator[Row]:
    """Yield cold start, memory and CPU for each new route at 10,000 routes; one proxy at a time."""
    n = _n_routes(settings)
    with cluster.running(_made(settings.scratch / "peers")) as running:
        _prepare(running)
        found: dict[str, Measured] = {}
        for name in _PORTS:
            yield from part(group, f"{name}: one route", _empty(running, name, found.setdefault(name, {})), limit_s=120)
        say(f"bench: {group}: loading {n:,} Ingresses for the peers")
        running.create(_route(i) for i in range(1, n + 1)).finish()
        for name in _PORTS:
            yield from part(group, f"{name}: {n:,} routes", _loaded(running, name, n, settings, found[name]), limit_s=300)
    for peer in peers.PEERS:
        for what, unit in _UNITS.items():
            if (ours := found[OURS].get(what)) and (theirs := found[peer.name].get(what)):
                m = min(len(ours), len(theirs))
                name = f"{n:,} routes on {N_SERVICES} Services, beside {peer.name}: {what}"
                note = "polls included" if what.startswith("CPU of") else ""
                yield figures.compared(group, name, unit, ours[:m], theirs[:m], peer.name, less_is_better=True, note=note)


def request(settings: Run, group: str) -> Iterator[Row]:
    """Yield CPU per request, requests/s and latency with 1 Ingress and with 10,000, one host asked for or 1,000 of them."""
    n = _n_routes(settings)
    with cluster.running(_made(settings.scratch / "peers")) as running, contextlib.ExitStack() as stack:
        _prepare(running)
        proxies = {}
        for name in _PORTS:
            try:
                proxies[name] = stack.enter_context(_start(running, name))
                _await(running.probe(_PORTS[name]), objects.host(0))
            except Exception as error:  # a peer that does not start costs its own figures
                yield figures.failed(group, f"{name}, on the API server", error)
        yield from _shots(running, proxies, settings, group, "1 Ingress", Hosts())
        say(f"bench: {group}: loading {n:,} Ingresses for the peers")
        running.create(_route(i) for i in range(1, n + 1)).finish()
        for name, proxy in proxies.items():
            _await(running.probe(proxy.port), objects.host(n))
            say(f"bench: {group}: {name} answers for all {n:,}")
        yield from _shots(running, proxies, settings, group, f"{n:,} Ingresses, one host asked for", Hosts())
        rotating = Hosts(n=min(n, N_HOT), of=n)
        yield from _shots(running, proxies, settings, group, f"{n:,} Ingresses, {rotating.n:,} hosts asked for", rotating)


def _n_routes(settings: Run) -> int:
    return 1_000 if settings.effort is Effort.QUICK else N_ROUTES


def _made(path: Path) -> Path:
    path.mkdir(mode=0o755)
    return path


def _prepare(running: Cluster) -> None:
    for i in range(N_SERVICES):
        running.plane.api.create(objects.service(f"shared-{i}"))
        running.plane.api.create(objects.endpoint_slice(f"shared-{i}", [f"10.244.1.{1 + i}"], ORIGIN_PORT))
    running.plane.api.create(_route(0))


def _route(i: int) -> Object:
    return objects.ingress(f"route-{i}", [objects.host(i)], f"shared-{i % N_SERVICES}", ingress_class="")


def _start(running: Cluster, name: str) -> contextlib.AbstractContextManager[Proxy]:
    if name == OURS:
        return running.proxy(options=["--watch-ingress-without-class=true"], await_listening=False, port=_PORTS[name])
    return next(peer for peer in peers.PEERS if peer.name == name).start(running, _PORTS[name])


def _pids(proxy: Proxy) -> list[int]:
    return [pid for first in proxy.pids for pid in machine.process_tree(first)]


def _rss_kib(proxy: Proxy) -> float:
    return sum(machine.rss_kib(pid) for pid in _pids(proxy))


def _await(probe: Probe, host: str, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    seen: object = "nothing"
    while True:
        with contextlib.suppress(OSError):
            seen = answer = probe.ask(host)
            if answer.status == 200:
                return
        if time.monotonic() > deadline_s:
            raise ProbeError(f"{host}: still {seen} after {timeout_s:g} s")
        time.sleep(POLL_S)


def _empty(running: Cluster, name: str, found: Measured) -> Iterator[Row]:
    with _start(running, name) as proxy:
        _await(running.probe(proxy.port), objects.host(0))
        found["RSS with one route"] = [_rss_kib(proxy) / 1024]
    yield from ()


def _loaded(running: Cluster, name: str, n: int, settings: Run, found: Measured) -> Iterator[Row]:
    for _ in range(settings.n_runs):
        with _start(running, name) as proxy:
            probe = running.probe(proxy.port)
            for i in (n, 0, n // 2):
                _await(probe, objects.host(i))
            found.setdefault("cold start", []).append(time.monotonic() - proxy.started_s)
            found.setdefault("cold start: CPU", []).append(machine.cpu_s(_pids(proxy)))
    with _start(running, name) as proxy:
        probe = running.probe(proxy.port)
        _await(probe, objects.host(n))
        rss_kib, before_s = _rss_kib(proxy), machine.cpu_s(_pids(proxy))
        for i in range(N_CREATED):
            host = f"new{i}.{name.lower().replace('+', '-')}.example"
            running.plane.api.create(objects.ingress(host, [host], "shared-0", ingress_class=""))
            _await(probe, host)
        cpu_s = machine.cpu_s(_pids(proxy)) - before_s
        empty_kib = found["RSS with one route"][0] * 1024
        found["RSS"] = [rss_kib / 1024]
        found["memory of a route"] = [(rss_kib - empty_kib) / n]
        found["memory of a route, after changes"] = [(_rss_kib(proxy) - empty_kib) / n]
        found["CPU of one new Ingress"] = [cpu_s / N_CREATED * 1000]
    yield from ()


def _shots(running: Cluster, proxies: dict[str, Proxy], settings: Run, group: str, title: str, hosts: Hosts) -> Iterator[Row]:
    shots: dict[str, list[Shot]] = {name: [] for name in proxies}
    for number in range(settings.n_runs):
        at = number % len(proxies)
        for name, proxy in [*proxies.items()][at:] + [*proxies.items()][:at]:
            shots[name].append(
                shoot(
                    proxy,
                    path="/hello",
                    hosts=hosts,
                    connections=32,
                    seconds=settings.shot_s,
                    place=running.net,
                    ip=NODE_IP,
                )
            )
    figures_of: tuple[tuple[str, str, Callable[[Shot], float], bool], ...] = (
        ("CPU", "µs", lambda shot: shot.cpu_us, True),
        ("requests/s", "/s", lambda shot: shot.per_s, False),
        ("p50", "ms", lambda shot: shot.p50_ms, True),
        ("p99", "ms", lambda shot: shot.p99_ms, True),
    )
    for name in proxies:
        for what, unit, of, less in figures_of:
            if name != OURS and OURS in shots:
                ours, theirs = [of(shot) for shot in shots[OURS]], [of(shot) for shot in shots[name]]
                yield figures.compared(group, f"{title}, beside {name}: {what}", unit, ours, theirs, name, less_is_better=less)
