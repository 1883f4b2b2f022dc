"""What a fault happens to: apps with pods in a cluster, the server in front of them, and the traffic that it must not disturb."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster import Cluster
from tests.faults.report import Fault
from tests.harness import processes
from tests.harness.ats import Ats
from tests.harness.backends import Fetched, fetch
from tests.harness.fleet import Fleet
from tests.harness.load import Load, Protocol, Request
from tests.harness.manifests import path
from tests.harness.podnet import NODE_IP

NETWORKING = "networking.k8s.io/v1"
RATES: Mapping[Protocol, float] = {"http1": 120.0, "h2": 50.0, "websocket": 40.0}  # requests a second, of all connections
ALL: tuple[Protocol, ...] = ("http1", "h2", "websocket")
# Metrics that tell why requests failed.
_COUNTED = ("atsk8s_requests_", "atsk8s_retries_", "atsk8s_endpoint_", "atsk8s_commits_", "atsk8s_watch_events_")
_numbers = itertools.count(1)


class Traffic:
    """Loads of several protocols that run together."""

    def __init__(self, loads: Mapping[str, Load], *, ats: Ats) -> None:
        self.loads, self._ats, self._before = loads, ats, _counters(ats)

    def now(self) -> tuple[int, int]:
        """How many requests have had the right answer, and how many another."""
        results = [load.now() for load in self.loads.values()]
        return sum(result.n_ok for result in results), sum(result.n_failed for result in results)

    def flow(self, n_requests: int, *, timeout_s: float = 60.0) -> None:
        """Wait for this many further requests of every protocol, whatever becomes of them."""
        goals = {name: sum(_counts(load)) + n_requests for name, load in self.loads.items()}
        processes.await_condition(
            f"{n_requests} more requests of each kind",
            lambda: all(sum(_counts(load)) >= goals[name] for name, load in self.loads.items()),
            timeout_s=timeout_s,
        )

    def served(self, n_requests: int, *, timeout_s: float = 60.0) -> None:
        """Wait for this many further right answers of every protocol."""
        goals = {name: _counts(load)[0] + n_requests for name, load in self.loads.items()}
        processes.await_condition(
            f"{n_requests} more right answers of each kind",
            lambda: all(_counts(load)[0] >= goals[name] for name, load in self.loads.items()),
            timeout_s=timeout_s,
        )

    def account(self, fault: Fault) -> None:
        """Add everything to `fault`, once the loads have ended."""
        for name, load in self.loads.items():
            result = load.finished
            fault.count(result.n_ok, {f"{name}: {what}": n for what, n in result.failures.items()})
            told = "".join(f"\n    {dict(one)}" for one in result.told[:5])
            print(
                f"{name}: {result.n_ok} ok, {result.n_failed} failed, "
                f"{result.n_connections} connections ({result.n_closed_idle} closed idle), "
                f"p99 {result.p99_ms} ms, longest {result.max_ms} ms{told}"
            )
        if any(load.finished.n_failed for load in self.loads.values()):
            grown = {name: n - self._before.get(name, 0) for name, n in _counters(self._ats).items()}
            print(f"the server's own counts meanwhile: { {name: n for name, n in grown.items() if n} }")


def _counters(ats: Ats) -> dict[str, float]:
    """What a server counts about requests and endpoints; nothing of one that is away."""
    try:
        found = ats.metrics()
    except OSError:
        return {}
    return {name: value for name, value in found.items() if name.startswith(_COUNTED)}


def _counts(load: Load) -> tuple[int, int]:
    now = load.now()
    return now.n_ok, now.n_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One app: a Service, its pods, an Ingress for its host."""

    name: str
    host: str
    ips: Sequence[str]


@dataclass(slots=True, kw_only=True)
class Site:
    """A cluster, a server in front of it, and pods that can fail."""

    cluster: Cluster
    fleet: Fleet
    ats_override: Ats | None = None
    apps: dict[str, App] = field(default_factory=dict)

    @property
    def ats(self) -> Ats:
        """The server that clients talk to."""
        return self.ats_override or self.cluster.ats

    @property
    def directory(self) -> Path:
        """Where logs go."""
        return self.cluster.directory

    # --- apps -----------------------------------------------------------------------------------------

    def create(self, name: str, ips: Sequence[str], *, annotations: Mapping[str, str] | None = None, behaviour: str = "") -> App:
        """Make pods, Service, certificate and Ingress; wait for nothing."""
        cluster, host = self.cluster, self.cluster.host(name)
        self.fleet.start(name, ips, behaviour=behaviour)
        cluster.pods(name, ips)
        cluster.create(
            cluster.service(name),
            cluster.secret(f"{name}-cert", cluster.authority.pair([host])),
            cluster.ingress(name, {host: [path(name)]}, tls={f"{name}-cert": [host]}, annotations=annotations),
        )
        made = App(name=name, host=host, ips=tuple(ips))
        self.apps[name] = made
        return made

    def await_app(self, app: App) -> None:
        """Wait until every pod of the app is in the table, and it is served over http and https."""
        wanted = {f"{ip}:8080" for ip in app.ips}
        processes.await_condition(f"{app.name} has its pods", lambda: wanted <= set(self.cluster.endpoints()), timeout_s=30)
        processes.await_condition(f"{app.host} is served", lambda: self.get(app.host).status == 200)
        self.cluster.await_answer(app.host, https=True)

    def get(self, host: str, target: str = "/", **more: object) -> Fetched:
        """Send one request over plain HTTP, on a connection of its own."""
        return self.ats.get(target, host=host, **more)  # type: ignore[arg-type]

    # --- traffic --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def loaded(
        self,
        app: App,
        fault: Fault,
        *,
        protocols: Sequence[Protocol] = ALL,
        requests: Sequence[Request] = (),
        requests_per_connection: Mapping[Protocol, int] | None = None,
        rates: Mapping[Protocol, float] = RATES,
        ip: str = NODE_IP,
        ports: tuple[int, int] | None = None,
        timeout_s: float = 10.0,
    ) -> Iterator[Traffic]:
        """Constant load on an app while the block runs; everything it sends is counted in `fault` at the end, also of a block that
        fails."""
        http_port, https_port = ports or (self.ats.http_port, self.ats.https_port)
        number = next(_numbers)
        with contextlib.ExitStack() as stack:
            loads: dict[str, Load] = {}
            for protocol in protocols:
                asked = list(requests) or [Request(host=app.host, app=app.name), Request(host=app.host, path="/a/b", app=app.name)]
                load = Load(
                    asked,
                    ip=ip,
                    port=https_port if protocol == "h2" else http_port,
                    place=self.cluster.net,
                    directory=self.directory,
                    protocol=protocol,
                    ca_file=self.cluster.authority.path if protocol == "h2" else None,
                    requests_per_s=rates[protocol],
                    requests_per_connection=(requests_per_connection or {}).get(protocol, 0),
                    timeout_s=timeout_s,
                    name=f"{protocol}-{number}",
                )
                loads[protocol] = stack.enter_context(load)
            traffic = Traffic(loads, ats=self.ats)
            try:
                yield traffic
            except BaseException:
                for name, load in loads.items():
                    with contextlib.suppress(Exception):
                        now = load.now()
                        fault.count(now.n_ok, {f"{name}: {what}": n for what, n in now.failures.items()})
                raise
        traffic.account(fault)

    def burst(
        self, n: int, app: App, classify: Callable[[Fetched | Exception], str], fault: Fault, *, target: str = "/", **more: object
    ) -> None:
        """Send requests one after the other; `classify` says what is wrong with an answer or its absence, "" if it is right."""
        failures: dict[str, int] = {}
        n_ok = 0
        for i in range(n):
            try:
                said = classify(self.get(app.host, target.replace("{i}", str(i)), **more))
            except Exception as error:
                said = classify(error)
            if said:
                failures[said] = failures.get(said, 0) + 1
            else:
                n_ok += 1
        fault.count(n_ok, failures)

    # --- freshness ------------------------------------------------------------------------------------

    def is_watched(self, kind: str = "EndpointSlice") -> bool:
        """Whether the server has a watch of this kind that lives."""
        return f"{kind}: synced" in self.ats.admin("/readyz").body.decode().splitlines()

    def await_fresh(self, app: App, *, timeout_s: float) -> float:
        """Make an Ingress, wait until its host is served, remove it; return the seconds that took."""
        name = f"late-{next(_numbers)}"
        host = self.cluster.host(name)
        began_s = time.monotonic()
        self.cluster.create(self.cluster.ingress(name, {host: [path(app.name)]}))
        processes.await_condition(f"{host} is served", lambda: self.get(host).status == 200, timeout_s=timeout_s)
        took_s = time.monotonic() - began_s
        self.cluster.delete(NETWORKING, "Ingress", name)
        return took_s


def took_s(what: str, probe: Callable[[], object], *, timeout_s: float) -> float:
    """Wait for `probe`, and return how many seconds that took."""
    began_s = time.monotonic()
    processes.await_condition(what, probe, timeout_s=timeout_s)
    return time.monotonic() - began_s


def admin_answers(ats: Ats, target: str) -> Fetched | None:
    """What the admin endpoint says, None if nothing within two seconds."""
    try:
        return fetch(ats.place, "127.0.0.1", ats.admin_port, target, timeout_s=2.0)
    except OSError:
        return None
