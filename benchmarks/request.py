"""Group `request`: what a request costs through the product, beside bare Traffic Server and other proxies.

Every proxy stays up for the whole group and is idle but for its turns.  A round gives each a turn of a few seconds, in an order
that rotates; ratios are taken within a round.  The main figure is the CPU time of the proxy's processes per request: the
requests/s of a machine with two cores say as much about wrk and the origin, which share them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks import figures, native, objects, packages, rivals, traffic_server
from benchmarks.figures import Row, Target
from benchmarks.load import Hosts, Shot, shoot
from benchmarks.run import Run
from benchmarks.traffic_server import Proxy
from deploy import server
from deploy.prerequisites import say
from tests.harness import processes
from tests.harness.processes import LOOPBACK

GROUP = "request"
HOT_HOSTS = 1000  # of more than that many, so many are asked for, in turn
N_STATIC_RULES = 10_000
HOSTS_PER_INGRESS = 100
UNCACHED, CACHED = "/hello", "/cached/hello"
BARE, BARE_HEADERS, BARE_DEBIAN = "bare", "bare+header_rewrite", "bare, Debian's records"
BARE_RULES = f"bare, {N_STATIC_RULES:,} rules"
_ROUTING = Target.minimum(0.98)
_HEADERS = Target.minimum(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A proxy to measure: how it is started, and which hosts it is asked for; in turns of their own if there are two."""

    name: str
    start: Callable[[Path], contextlib.AbstractContextManager[Proxy]]
    hosts: tuple[Hosts, ...] = (Hosts(n=HOT_HOSTS, of=HOT_HOSTS),)


def ours_name(n_hosts: int) -> str:
    """Return the name of our variant with so many hosts."""
    return f"atsk8s, {n_hosts:,} host{'s' if n_hosts > 1 else ''}"


def hosts_asked(n_hosts: int) -> Hosts:
    """Return which hosts are asked for when `n_hosts` exist."""
    return Hosts(n=min(n_hosts, HOT_HOSTS), of=n_hosts)


def run(settings: Run) -> Iterator[Row]:
    """Measure, uncached and cached, with 32 and 512 connections."""
    sizes = [1, 10_000] if settings.quick else [1, 1_000, 10_000, 100_000]
    with origin(settings.scratch) as origin_port:
        for cached in (False, True):
            variants = [*_ours(sizes, origin_port, cached=cached), *_bare(origin_port, cached=cached, quick=settings.quick)]
            if not settings.quick:
                variants += _rivals(origin_port, cached=cached)
            with contextlib.ExitStack() as stack:
                started = _start(stack, settings.scratch / ("cached" if cached else "uncached"), variants)
                for connections in (32,) if settings.quick else (32, 512):
                    shots = _rounds(started, settings, path=CACHED if cached else UNCACHED, connections=connections)
                    title = f"{'cached' if cached else 'uncached'}, {connections} connections"
                    yield from _rows(shots, title, sizes)
                    yield from (figures.absent(GROUP, f"{title}: {name}", note) for name, note in _unavailable(variants, started))


@contextlib.contextmanager
def origin(scratch: Path) -> Generator[int]:
    """Run the origin on loopback and yield its port."""
    port = processes.free_ports(LOOPBACK, "127.0.0.1", 1)[0]
    command = [str(native.program("origin")), str(port)]
    child = processes.start(LOOPBACK, command, name="origin", log_path=scratch / "origin.log")
    with processes.running(child):
        child.await_ready("the origin listens", lambda: processes.is_listening(LOOPBACK, "127.0.0.1", port))
        yield port


def _ours(sizes: list[int], origin_port: int, *, cached: bool) -> list[Variant]:
    def start(n_hosts: int) -> Callable[[Path], contextlib.AbstractContextManager[Proxy]]:
        def started(root: Path) -> contextlib.AbstractContextManager[Proxy]:
            manifests = root / "manifests"
            objects.write_manifests(manifests, _objects(n_hosts, origin_port))
            options = [f"--manifests={manifests}", "--admin=off", f"--cache={'on' if cached else 'off'}"]
            remap, plugins = traffic_server.plugin_lines(options)
            return traffic_server.running(ours_name(n_hosts), root / "ats", remap=remap, plugins=plugins)

        return started

    return [Variant(name=ours_name(n), start=start(n), hosts=(hosts_asked(n),)) for n in sizes]


def _objects(n_hosts: int, origin_port: int) -> Iterator[objects.Object]:
    yield objects.service("origin")
    yield objects.endpoint_slice("origin", [rivals.ORIGIN], origin_port)
    for first in range(0, n_hosts, HOSTS_PER_INGRESS):
        hosts = [objects.host(i) for i in range(first, min(n_hosts, first + HOSTS_PER_INGRESS))]
        yield objects.ingress(f"i{first}", hosts, "origin")


def _bare(origin_port: int, *, cached: bool, quick: bool) -> list[Variant]:
    # kubernetes_remap turns the cache off for each request when it is not wanted; a bare server has the record for it.  Pods get
    # the client's Host from it, too, and the rule decides that here.
    records: Mapping[str, server.RecordValue] = {"proxy.config.http.cache.http": int(cached)}
    to = f"http://{rivals.ORIGIN}:{origin_port}/"
    rewriting = f"map / {to} @plugin=header_rewrite.so @pparam=ETC/headers.conf"
    rules = [f"map http://{objects.host(i)}/ {to}" for i in range(N_STATIC_RULES)]

    def start(name: str, remap: list[str]) -> Callable[[Path], contextlib.AbstractContextManager[Proxy]]:
        files = {"headers.conf": traffic_server.HEADER_REWRITE}
        return lambda root: traffic_server.running(name, root / "ats", remap=remap, records=records, files=files)

    def start_debian(root: Path) -> contextlib.AbstractContextManager[Proxy]:
        root.mkdir(mode=0o755, parents=True)
        samples = traffic_server.debian_samples(root / "samples")
        return traffic_server.running(BARE_DEBIAN, root / "ats", remap=[f"map / {to}"], records=records, samples=samples)

    both = (Hosts(), Hosts(n=HOT_HOSTS, of=HOT_HOSTS))  # a cache with one object is faster: each of ours gets its like
    variants = [
        Variant(name=BARE, start=start(BARE, [f"map / {to}"]), hosts=both),
        Variant(name=BARE_HEADERS, start=start(BARE_HEADERS, [rewriting]), hosts=both),
    ]
    if not quick:
        spread = (Hosts(n=HOT_HOSTS, of=N_STATIC_RULES),)
        variants += [
            Variant(name=BARE_RULES, start=start(BARE_RULES, rules), hosts=spread),
            Variant(name=BARE_DEBIAN, start=start_debian),
        ]
    return variants


def _rivals(origin_port: int, *, cached: bool) -> list[Variant]:
    records: Mapping[str, server.RecordValue] = {"proxy.config.http.cache.http": int(cached)}
    lua = Variant(
        name="lua+redis",
        start=lambda root: rivals.lua_redis(_made(root), origin_port, n_hosts=HOT_HOSTS, records=records),
    )
    nginx = Variant(name="nginx", start=lambda root: rivals.nginx(_made(root), origin_port, cache=cached))
    varnish = Variant(name="varnish", start=lambda root: rivals.varnish(_made(root), origin_port))
    if cached:
        return [nginx, varnish, lua]
    haproxy = Variant(name="haproxy", start=lambda root: rivals.haproxy(_made(root), origin_port))
    envoy = Variant(name="envoy", start=lambda root: rivals.envoy(_made(root), origin_port))
    return [nginx, haproxy, varnish, envoy, lua]


def _made(root: Path) -> Path:
    root.mkdir(mode=0o755, parents=True)
    return root


def _start(stack: contextlib.ExitStack, root: Path, variants: list[Variant]) -> list[tuple[Variant, Proxy]]:
    """Start everything; a rival that is not to be had here is left out, ours and bare Traffic Server are not."""
    root.mkdir(mode=0o755)
    started = []
    for number, variant in enumerate(variants):
        say(f"bench: starting {variant.name}")
        try:
            proxy = stack.enter_context(variant.start(root / str(number)))
        except (packages.PackageError, processes.ProcessError) as error:
            say(f"bench: {variant.name} is left out: {error}")
            continue
        for path in (UNCACHED, CACHED):
            shoot(proxy, path=path, hosts=variant.hosts[-1], connections=8, seconds=1)
        started.append((variant, proxy))
    return started


def _unavailable(variants: list[Variant], started: list[tuple[Variant, Proxy]]) -> list[tuple[str, str]]:
    running = {variant.name for variant, _ in started}
    return [(variant.name, "not available here; the lines above say why") for variant in variants if variant.name not in running]


Shots: TypeAlias = dict[tuple[str, int], list[Shot]]  # by variant and number of hosts asked for


def _rounds(started: list[tuple[Variant, Proxy]], settings: Run, *, path: str, connections: int) -> Shots:
    turns = [(variant, proxy, hosts) for variant, proxy in started for hosts in variant.hosts]
    shots: Shots = {(variant.name, hosts.n): [] for variant, _, hosts in turns}
    for number in range(settings.n_runs):
        at = number % len(turns)
        for variant, proxy, hosts in [*turns[at:], *turns[:at]]:
            shot = shoot(proxy, path=path, hosts=hosts, connections=connections, seconds=settings.shot_s)
            shots[variant.name, hosts.n].append(shot)
    return shots


def _rows(shots: Shots, title: str, sizes: list[int]) -> Iterator[Row]:
    for n_hosts in sizes:
        name, n_asked = ours_name(n_hosts), hosts_asked(n_hosts).n
        ours = shots[name, n_asked]
        for reference, target in ((BARE, _ROUTING), (BARE_HEADERS, _HEADERS)):
            theirs = shots[reference, n_asked]
            yield figures.compared(
                GROUP,
                f"{title}: {name}: CPU",
                "µs",
                [shot.cpu_us for shot in ours],
                [shot.cpu_us for shot in theirs],
                reference,
                less_is_better=True,
                target=target,
                note="ours sets four headers that the reference does not" if reference == BARE else "",
            )
            yield figures.compared(
                GROUP,
                f"{title}: {name}: requests/s",
                "/s",
                [shot.per_s for shot in ours],
                [shot.per_s for shot in theirs],
                reference,
                less_is_better=False,
                target=target,
            )
        yield _routing_alone(title, name, ours, shots[BARE, n_asked], shots[BARE_HEADERS, n_asked])
    last, n_last = ours_name(sizes[-1]), hosts_asked(sizes[-1]).n
    for (name, n_asked), theirs in shots.items():
        if n_asked > 1 or name == ours_name(1):
            yield from _latency(title, name, theirs)
        if name in (BARE, BARE_HEADERS) or name.startswith("atsk8s"):
            continue
        yield figures.compared(
            GROUP,
            f"{title}: {last}: CPU",
            "µs",
            [shot.cpu_us for shot in shots[last, n_last]],
            [shot.cpu_us for shot in theirs],
            name,
            less_is_better=True,
        )


def _routing_alone(title: str, name: str, ours: list[Shot], bare: list[Shot], rewriting: list[Shot]) -> Row:
    """Return what is left of our cost without the headers, taking for theirs what header_rewrite adds to bare Traffic Server."""
    headers = [with_headers.cpu_us - without.cpu_us for with_headers, without in zip(rewriting, bare, strict=True)]
    return figures.compared(
        GROUP,
        f"{title}: {name}: CPU, routing alone",
        "µs",
        [shot.cpu_us - max(0.0, cost) for shot, cost in zip(ours, headers, strict=True)],
        [shot.cpu_us for shot in bare],
        BARE,
        less_is_better=True,
        target=_ROUTING,
        note="derived: less what header_rewrite adds to bare for the same headers",
    )


def _latency(title: str, name: str, shots: list[Shot]) -> Iterator[Row]:
    yield figures.plain(GROUP, f"{title}: {name}: p50", "ms", [shot.p50_ms for shot in shots])
    yield figures.plain(GROUP, f"{title}: {name}: p99", "ms", [shot.p99_ms for shot in shots])
