"""Group `propagation`: from the API server's reply to the first request that is answered by what was written.

Everything is real: kube-apiserver and etcd, the pods' addresses, Traffic Server with the product, a client that polls on a kept
connection every half millisecond.  The clock starts when the reply to the write is in.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import cluster, figures, machine, objects, peers
from benchmarks.cluster import ORIGIN_PORT, PROXY_PORT, Cluster
from benchmarks.figures import Row, Target
from benchmarks.load import Hosts, shoot
from benchmarks.objects import Object
from benchmarks.probe import Answer, Arrival, Probe, ProbeError
from benchmarks.run import Run, part
from benchmarks.traffic_server import Proxy
from deploy.prerequisites import say
from tests.harness.podnet import NODE_IP

GROUP = "propagation"
N_LOADED, N_KEPT, N_LOADED_QUICK = 10_000, 1_000, 1_000
N_SERVICES = 100  # that the loaded Ingresses share; their endpoints are what churns
N_ENDPOINTS = 5
N_PODS = 20  # that the Services' endpoints are taken from
CHURN_PER_S = 200
FLIPS_PER_S = 10
FLIP_S = 10
FRONT_STEP = 20  # of Ingresses created at once every so many are awaited; all are asked in the end
FLIP_HOST = objects.host(0)
INGRESS_TARGETS = {0.5: Target.maximum(5), 0.99: Target.maximum(20)}
ENDPOINT_TARGETS = {0.5: Target.maximum(2), 0.99: Target.maximum(8)}
_NONE = Target.maximum(0)
_SETTLE_S = 60.0
N_UNSEEN_MAX = 3  # changes that a proxy may never do before its series is given up
N_PEER_CHANGES, N_LEAST = 25, 5
_CHANGES_S = 60.0  # of one kind of change; who is slower than that shows fewer of them
_LIMIT_S, _PEER_LIMIT_S, _SERIES_LIMIT_S = 900.0, 720.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What came of a series of changes."""

    arrivals: Sequence[Arrival]
    cpu_ms: float  # of traffic_server for each, the polls included
    unseen: Sequence[str]  # what the proxy had not done when it was given up


def run(settings: Run) -> Iterator[Row]:
    """Measure ours, then, if asked to, each peer on an API server of its own; theirs stand beside ours."""
    ours: dict[str, Row] = {}
    for row in part(GROUP, "atsk8s", _ours(settings), limit_s=_LIMIT_S):
        ours[row.name] = row
        yield row
    for peer in peers.PEERS if settings.peers else ():
        say(f"bench: propagation: {peer.name}")
        for row in part(GROUP, peer.name, _theirs(peer, settings), limit_s=_PEER_LIMIT_S):
            yield replace(row, name=f"{row.name} ({peer.name})") if row.error else _beside(row, ours.get(row.name), peer.name)


def _ours(settings: Run) -> Iterator[Row]:
    with cluster.running(_made(settings.scratch / "ours")) as running, running.proxy() as proxy:
        series = _Series(running, proxy, ingress_class=objects.CLASS, n_changes=settings.n_changes)
        yield from _figures(series, settings, churned_at=(0, N_KEPT, N_LOADED, N_LOADED_QUICK))


def _theirs(peer: peers.Peer, settings: Run) -> Iterator[Row]:
    with cluster.running(_made(settings.scratch / peer.name)) as running, peer.start(running, PROXY_PORT) as proxy:
        n_changes = min(settings.n_changes, N_PEER_CHANGES)  # half a second each, and more
        yield from _figures(_Series(running, proxy, ingress_class="", n_changes=n_changes), settings, churned_at=(N_LOADED,))


def _made(path: Path) -> Path:
    path.mkdir(mode=0o755)
    return path


def _figures(series: _Series, settings: Run, *, churned_at: Collection[int]) -> Iterator[Row]:
    """Nothing loaded, then 10,000 Ingresses made at once, then 1,000 of them left; `quick`: 0 and 1,000."""
    full, kept = (N_LOADED_QUICK, None) if settings.quick else (N_LOADED, N_KEPT)
    series.prepare()

    def measured(n: int) -> Iterator[Row]:
        for churned in (False, True) if n in churned_at else (False,):
            title = series.title(n, churned=churned)
            yield from part(GROUP, title, series.measure(title, churned=churned), limit_s=_SERIES_LIMIT_S)

    yield from measured(0)
    yield from series.create_at_once(full)
    yield from measured(full)
    yield from part(GROUP, f"{full:,} loaded: flip", series.flip(f"{full:,} loaded"), limit_s=_SERIES_LIMIT_S)
    if kept is not None:
        series.shrink_to(kept)
        yield from measured(kept)


def _beside(theirs: Row, ours: Row | None, name: str) -> Row:
    """Return a row that has both figures; its value says how many times ours theirs is, where that has a meaning."""
    if ours is None:  # ours failed
        note = f"{name} alone{'; ' + theirs.note if theirs.note else ''}"
        return replace(theirs, ours=None, reference=theirs.ours, reference_name=name, value=None, target=None, note=note)
    times = theirs.ours / ours.ours if theirs.ours is not None and ours.ours else None
    return Row(
        group=GROUP,
        name=ours.name,
        unit=ours.unit,
        ours=ours.ours,
        reference=theirs.ours,
        reference_name=name,
        value=times,
        n_runs=theirs.n_runs,
        note=f"theirs {figures.spread(theirs)}{'; ' + theirs.note if theirs.note else ''}",
    )


class _Series:
    def __init__(self, running: Cluster, proxy: Proxy, *, ingress_class: str, n_changes: int) -> None:
        self._class = ingress_class
        self._pids = [pid for first in proxy.pids for pid in machine.process_tree(first)]
        self._cluster, self._proxy, self._n_changes = running, proxy, n_changes
        self._api = running.plane.api
        self._probe = running.probe()
        self._slices = [_slice(f"bulk-{i}", i) for i in range(N_SERVICES)]
        # An endpoint of each goes, then it comes back.
        self._churned = [_slice(f"bulk-{i}", i, n=n) for n in (N_ENDPOINTS - 1, N_ENDPOINTS) for i in range(N_SERVICES)]
        self._n_made = 0
        self._n_ips = 0

    def prepare(self) -> None:
        """Make the Services that the load shares, and the one whose endpoint flips."""
        for i, obj in enumerate(self._slices):
            self._api.create(objects.service(f"bulk-{i}"))
            self._api.create(obj)
        self._api.create(objects.service("flip"))
        self._api.create(_one_pod("flip", "10.244.2.1"))
        self._api.create(objects.ingress("flip", [FLIP_HOST], "flip", ingress_class=self._class))
        self._await(FLIP_HOST, lambda answer: answer.status == 200)

    @staticmethod
    def title(n: int, *, churned: bool) -> str:
        """Return what a series is called."""
        return f"{n:,} loaded, {f'under {CHURN_PER_S} endpoint changes/s' if churned else 'quiet'}"

    def measure(self, name: str, *, churned: bool) -> Iterator[Row]:
        """Yield the rows of new Ingresses and of endpoint changes."""
        say(f"bench: propagation: {name}")
        churn = self._cluster.churn(self._churned, CHURN_PER_S) if churned else contextlib.nullcontext()
        with churn as going:
            made = self._changes(self._new_ingress)
            moved = self._changes(self._new_pod)
            back = self._changes(self._known_pod)
        note = f"churn achieved {going.per_s:.0f}/s" if going is not None else ""
        yield from _rows(f"{name}: new Ingress", made, INGRESS_TARGETS, note)
        yield from _rows(f"{name}: endpoint change to a new pod", moved, ENDPOINT_TARGETS, note)
        yield from _rows(f"{name}: endpoint change to a pod met before", back, ENDPOINT_TARGETS, note)

    def create_at_once(self, n: int) -> Iterator[Row]:
        """Create `n` Ingresses as fast as the API server takes them; yield when the last answered, and what that cost."""
        say(f"bench: propagation: creating {n:,} Ingresses at once")
        made = [_bulk(i, self._class) for i in range(1, n + 1)]
        cpu_before = machine.cpu_s(self._pids)
        creation = self._cluster.create(made)
        hosts = [objects.host(i) for i in range(1, n + 1)]
        n_wrong = 0
        for host in [*hosts[::FRONT_STEP], hosts[-1]]:  # in the order of their creation: the front moves with the proxy's
            while (answer := self._probe.ask(host)).status != 200:
                n_wrong += answer.status != 404
                if time.monotonic() - creation.began_s > 600:
                    raise ProbeError(f"{host}: still {answer} after 600 s")
                time.sleep(0.002)
        all_answered_s = time.monotonic()
        last_reply_s = creation.finish()
        cpu_s = machine.cpu_s(self._pids) - cpu_before
        for first in range(0, n, 100):
            n_wrong += sum(answer.status != 200 for answer in self._probe.ask_all(hosts[first : first + 100]))
        name = f"{n:,} Ingresses at once"
        took = f"the API server took {last_reply_s - creation.began_s:.1f} s for them"
        after_s = max(0.0, all_answered_s - last_reply_s)
        yield figures.plain(GROUP, f"{name}: all answer after the last reply", "s", [after_s], target=Target.maximum(1), note=took)
        yield figures.plain(GROUP, f"{name}: CPU", "s", [cpu_s], target=Target.maximum(3), note="a few hundred polls included")
        yield figures.plain(GROUP, f"{name}: wrong answers", "", [n_wrong], target=_NONE)

    def shrink_to(self, n: int) -> None:
        """Delete all loaded Ingresses but the first `n`."""
        say(f"bench: propagation: deleting all but {n:,}")
        path = self._api.path("networking.k8s.io/v1", "Ingress", namespace=objects.NAMESPACE)
        self._api.call("DELETE", path, query={"labelSelector": "bench=late"})
        self._await(objects.host(n + 1), lambda answer: answer.status == 404)

    def flip(self, title: str) -> Iterator[Row]:
        """Yield how many requests fail while a busy Service's one endpoint moves ten times a second."""
        with self._cluster.churn([_one_pod("flip", "10.244.2.1"), _one_pod("flip", "10.244.2.2")], FLIPS_PER_S):
            shot = shoot(
                self._proxy,
                path="/",
                hosts=Hosts(),
                connections=16,
                seconds=FLIP_S,
                place=self._cluster.net,
                ip=NODE_IP,
                may_fail=True,
            )
        note = f"of {shot.requests:,} requests in {FLIP_S} s; p99 {shot.p99_ms:.1f} ms"
        name = f"{title}: failed requests, endpoints changing {FLIPS_PER_S} times/s"
        yield figures.plain(GROUP, name, "", [shot.n_bad], target=_NONE, note=note)

    def _changes(self, change: Callable[[Probe], Arrival]) -> Changes:
        n = self._n_changes
        before = machine.cpu_s(self._pids)
        arrivals: list[Arrival] = []
        unseen: list[str] = []
        until_s = time.monotonic() + _CHANGES_S
        while len(arrivals) < n and (len(arrivals) < N_LEAST or time.monotonic() < until_s):
            try:
                arrivals.append(change(self._probe))
            except ProbeError as error:
                unseen.append(str(error))
                if len(unseen) > N_UNSEEN_MAX:
                    raise
        cpu_s = machine.cpu_s(self._pids) - before
        return Changes(arrivals=arrivals, cpu_ms=cpu_s / (len(arrivals) + len(unseen)) * 1000, unseen=unseen)

    def _new_ingress(self, probe: Probe) -> Arrival:
        """A Service, its slice and an Ingress, all new: the clock runs from the Ingress's reply."""
        self._n_made += 1
        name = f"new-{self._n_made}"
        host = f"{name}.bench.example"
        self._api.create(objects.service(name))
        self._api.create(_one_pod(name, self._fresh_ip()))
        self._api.create(objects.ingress(name, [host], name, ingress_class=self._class))
        since_s = time.monotonic()
        return probe.await_change(host, lambda a: a.status == 200, lambda a: a.status == 404, since_s=since_s)

    def _new_pod(self, probe: Probe) -> Arrival:
        """The Service's one endpoint becomes a pod whose address nobody has seen yet."""
        return self._move(probe, "10.244.2.1", self._fresh_ip())

    def _known_pod(self, probe: Probe) -> Arrival:
        """The Service's one endpoint becomes a pod that was asked before."""
        return self._move(probe, "10.244.2.1", "10.244.2.2")

    def _move(self, probe: Probe, old: str, new: str) -> Arrival:
        self._api.replace(_one_pod("flip", old))
        self._await(FLIP_HOST, lambda answer: answer.word.startswith(f"{old}:"))
        self._api.replace(_one_pod("flip", new))
        since_s = time.monotonic()
        return probe.await_change(
            FLIP_HOST, lambda a: a.word.startswith(f"{new}:"), lambda a: a.word.startswith(f"{old}:"), since_s=since_s
        )

    def _fresh_ip(self) -> str:
        self._n_ips += 1
        return f"10.244.{128 + self._n_ips // 250}.{1 + self._n_ips % 250}"

    def _await(self, host: str, wanted: Callable[[Answer], bool]) -> None:
        deadline_s = time.monotonic() + _SETTLE_S
        seen: object = "nothing"
        while True:
            with contextlib.suppress(OSError):  # a peer may not listen before its first route
                seen = answer = self._probe.ask(host)
                if wanted(answer):
                    return
            if time.monotonic() > deadline_s:
                raise ProbeError(f"{host}: still {seen} after {_SETTLE_S:g} s")
            time.sleep(0.002)


def _rows(name: str, changes: Changes, targets: dict[float, Target], note: str) -> Iterator[Row]:
    yield from figures.distribution(
        GROUP, name, "ms", [arrival.after_s * 1000 for arrival in changes.arrivals], targets=targets, note=note
    )
    before = [answer for arrival in changes.arrivals for answer in arrival.wrong_before]
    after = [answer for arrival in changes.arrivals for answer in arrival.wrong_after]
    statuses = ", ".join(f"{n} x {status}" for status, n in Counter(answer.status for answer in before + after).items())
    said = f"{len(before)} before the first right one, {len(after)} after it{': ' + statuses if statuses else ''}"
    yield figures.plain(GROUP, f"{name}: wrong answers", "", [len(before) + len(after)], target=_NONE, note=said)
    yield figures.plain(GROUP, f"{name}: CPU for each", "ms", [changes.cpu_ms], note="polls included")
    if changes.unseen:
        yield figures.plain(GROUP, f"{name}: never seen", "", [len(changes.unseen)], target=_NONE, note=changes.unseen[0])


def _bulk(i: int, ingress_class: str) -> Object:
    obj = objects.ingress(f"bulk-{i}", [objects.host(i)], f"bulk-{i % N_SERVICES}", ingress_class=ingress_class)
    obj["metadata"]["labels"] = {"bench": "early" if i <= N_KEPT else "late"}
    return obj


def _slice(name: str, i: int, *, n: int = N_ENDPOINTS) -> Object:
    ips = [f"10.244.10.{1 + (i * N_ENDPOINTS + k) % N_PODS}" for k in range(n)]
    return objects.endpoint_slice(name, ips, ORIGIN_PORT)


def _one_pod(name: str, ip: str) -> Object:
    return objects.endpoint_slice(name, [ip], ORIGIN_PORT)
