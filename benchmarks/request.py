"""Group `request`: what a request costs through the product, beside bare Traffic Server and other proxies.

Every proxy stays up for the whole group and is idle but for its turns.  A round gives each a turn of a few seconds, in an order
that rotates; ratios are taken within a round.  The main figure is the CPU time of the proxy's processes per request: the
requests/s of a machine with two cores say as much about wrk and the origin, which share them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from benchmarks import figures, native, objects, packages, peer_load, rivals, traffic_server
from benchmarks.figures import Row, Target
from benchmarks.load import Hosts, LoadError, Shot, shoot
from benchmarks.run import Run, part
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
_LIMIT_S = 900.0  # of one part
_PORT_SAID = re.compile(r"^port (\d+)\n", re.MULTILINE)
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
    """Measure, uncached and cached, with 32 and 512 connections; then beside the peers, on an API server."""
    for cached in (False, True):
        yield from part(GROUP, "cached" if cached else "uncached", _through(settings, cached=cached), limit_s=_LIMIT_S)
    if settings.peers:
        yield from part(GROUP, "beside the peers", peer_load.request(settings, GROUP), limit_s=_LIMIT_S)


def _through(settings: Run, *, cached: bool) -> Iterator[Row]:
    sizes = [1, 10_000] if settings.quick else [1, 1_000, 10_000, 100_000]
    word = "cached" if cached else "uncached"
    with origin(settings.scratch) as origin_port, contextlib.ExitStack() as stack:
        variants = [*_ours(sizes, origin_port, cached=cached), *_bare(origin_port, cached=cached, quick=settings.quick)]
        if not settings.quick:
            variants += _rivals(origin_port, cached=cached)
        started, missing = _start(stack, settings.scratch / word, variants)
        yield from missing
        for connections in (32,) if settings.quick else (32, 512):
            say(f"bench: request: {word}, {connections} connections")
            shots, broken = _rounds(started, settings, path=CACHED if cached else UNCACHED, connections=connections)
            title = f"{word}, {connections} connections"
            yield from _rows(shots, title, sizes)
            yield from (replace(row, name=f"{title}: {row.name}") for row in broken)


@contextlib.contextmanager
def origin(scratch: Path) -> Generator[int]:
    """Run the origin on loopback and yield its port, which it takes for itself: nobody can be there first."""
    command = [str(native.program("origin")), "0"]
    log_path = scratch / "origin.log"
    log_path.unlink(missing_ok=True)  # what an earlier one said is not this one's port
    child = processes.start(LOOPBACK, command, name="origin", log_path=log_path)
    with processes.running(child):
        said = child.await_ready("the origin says its port", lambda: _PORT_SAID.search(child.log()))
        yield int(said[1])


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


def _start(stack: contextlib.ExitStack, root: Path, variants: list[Variant]) -> tuple[list[tuple[Variant, Proxy]], list[Row]]:
    """Start everything; a rival that is not to be had here is a row that says why, ours and bare Traffic Server are not."""
    root.mkdir(mode=0o755)
    started, missing = [], []
    for number, variant in enumerate(variants):
        say(f"bench: starting {variant.name}")
        try:
            proxy = stack.enter_context(variant.start(root / str(number)))
            for path in (UNCACHED, CACHED):
                shoot(proxy, path=path, hosts=variant.hosts[-1], connections=8, seconds=1)
        except (packages.PackageError, processes.ProcessError, LoadError) as error:
            say(f"bench: {variant.name} is left out: {error}")
            missing.append(figures.failed(GROUP, f"{root.name}: {variant.name}", error))
            continue
        started.append((variant, proxy))
    return started, missing


Shots: TypeAlias = dict[tuple[str, int], list[Shot]]  # by variant and number of hosts asked for


def _rounds(started: list[tuple[Variant, Proxy]], settings: Run, *, path: str, connections: int) -> tuple[Shots, list[Row]]:
    """Return each variant's shots; one that answers badly loses all of its own, and its row says what it did."""
    turns = [(variant, proxy, hosts) for variant, proxy in started for hosts in variant.hosts]
    shots: Shots = {(variant.name, hosts.n): [] for variant, _, hosts in turns}
    broken: dict[tuple[str, int], Row] = {}
    for number in range(settings.n_runs):
        at = number % len(turns)
        for variant, proxy, hosts in [*turns[at:], *turns[:at]]:
            key = variant.name, hosts.n
            if key in broken:
                continue
            try:
                shots[key].append(shoot(proxy, path=path, hosts=hosts, connections=connections, seconds=settings.shot_s))
            except LoadError as error:
                broken[key] = figures.failed(GROUP, variant.name, error)
    return {key: taken for key, taken in shots.items() if key not in broken}, list(broken.values())


def _rows(shots: Shots, title: str, sizes: list[int]) -> Iterator[Row]:
    """Yield ours beside each reference; what has no shots has no rows."""
    for n_hosts in sizes:
        name, n_asked = ours_name(n_hosts), hosts_asked(n_hosts).n
        for reference, target in ((BARE, _ROUTING), (BARE_HEADERS, _HEADERS)):
            note = "ours sets four headers that the reference does not" if reference == BARE else ""
            yield from _both(shots, title, (name, n_asked), (reference, n_asked), target=target, note=note)
        if all((which, n_asked) in shots for which in (name, BARE, BARE_HEADERS)):
            yield _routing_alone(title, name, *(shots[which, n_asked] for which in (name, BARE, BARE_HEADERS)))
    yield from _both(shots, title, (BARE, 1), (BARE_DEBIAN, 1), note="both bare: shipped records beside Debian's")
    last = (ours_name(sizes[-1]), hosts_asked(sizes[-1]).n)
    for key, taken in shots.items():
        if key[1] > 1 or key[0] in (ours_name(1), BARE_DEBIAN):
            yield from _latency(title, key[0], taken)
        if key[0] not in (BARE, BARE_HEADERS, BARE_DEBIAN) and not key[0].startswith("atsk8s"):
            yield from _both(shots, title, last, key)


def _both(
    shots: Shots, title: str, ours: tuple[str, int], reference: tuple[str, int], *, target: Target | None = None, note: str = ""
) -> Iterator[Row]:
    """Yield CPU per request and requests/s of one beside the other."""
    if ours not in shots or reference not in shots:
        return
    mine, theirs = shots[ours], shots[reference]
    cpu = [shot.cpu_us for shot in mine], [shot.cpu_us for shot in theirs]
    per_s = [shot.per_s for shot in mine], [shot.per_s for shot in theirs]
    name = f"{title}: {ours[0]}"
    for what, unit, pair, less in (("CPU", "µs", cpu, True), ("requests/s", "/s", per_s, False)):
        yield figures.compared(GROUP, f"{name}: {what}", unit, *pair, reference[0], less_is_better=less, target=target, note=note)


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
