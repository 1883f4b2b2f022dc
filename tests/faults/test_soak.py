"""Everything at once, for minutes: pods fail and roll, the API server is killed and paused, routes and certificates change, clients
send nonsense; nothing fails, and memory stays where it is.  `build.py test faults --soak MINUTES` does it for longer."""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.faults.report import FaultFactory
from tests.faults.site import App, Site
from tests.faults.test_rolling_updates import Deployment
from tests.harness import processes
from tests.harness.manifests import path
from tests.harness.patience import slowness

GROUP = "Everything at once"
MINUTES = 2.0  # without --soak
SUBNET = 140  # of the first pods that are rolled: those of the hundred updates are still there
VICTIM_IPS = [f"10.244.23.{n}" for n in range(1, 7)]
RATES = {"http1": 80.0, "h2": 30.0, "websocket": 30.0}
# What may be added between the middle third of the run and its last one: noise of the allocator, not of time.
GROWTH_MAX_MB = 16.0
DESCRIPTORS_MAX = 60  # more than at the beginning
RECOVERY_S = 75.0


class Troubles:
    """Threads that each make one kind of trouble after another, until told to stop; a failure of one ends all."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self.counts: dict[str, int] = {}
        self.error: BaseException | None = None

    def begin(self, name: str, actions: Mapping[str, Callable[[], object]], *, rest_s: float) -> None:
        """Start one thread; `rest_s` lies between two of its actions."""
        choose = random.Random(f"{self._seed} {name}")

        def run() -> None:
            try:
                while not self._ending.wait(rest_s * choose.uniform(0.5, 1.5)):
                    what = choose.choice(sorted(actions))
                    actions[what]()
                    self.counts[what] = self.counts.get(what, 0) + 1
            except BaseException as error:
                self.error = error
                self._ending.set()

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)

    def wait(self, seconds: float) -> bool:
        """Wait; True when one has failed."""
        return self._ending.wait(seconds)

    def end(self) -> None:
        """Let each finish what it is at."""
        self._ending.set()
        for thread in self._threads:
            thread.join(120)
        if self.error is not None:
            raise self.error


class PodTroubles:
    """What happens to the pods of one app; each action leaves them well."""

    def __init__(self, site: Site, app: App, seed: int) -> None:
        self._site, self._app, self._random = site, app, random.Random(seed)

    def actions(self) -> Mapping[str, Callable[[], object]]:
        """All of them."""
        return {
            "pod refuses": self.refuse,
            "pod is killed": self.kill,
            "pod resets": lambda: self.behave("reset=before"),
            "pod resets in the header": lambda: self.behave("reset=head"),
            "pods close idle connections": lambda: self.behave("idle_ms=20"),
            "pod is a blackhole": self.blackhole,
        }

    def refuse(self) -> None:
        ip = self._random.choice(self._app.ips)
        self._site.fleet.refuse(ip)
        self._pass()
        self._site.fleet.listen(ip)

    def kill(self) -> None:
        ip = self._random.choice(self._app.ips)
        self._site.fleet.kill(ip)
        self._pass()
        self._site.fleet.listen(ip)

    def behave(self, behaviour: str) -> None:
        ip = self._random.choice(self._app.ips)
        self._site.fleet.behave([ip], behaviour)
        self._pass()
        self._site.fleet.behave([ip], "")

    def blackhole(self) -> None:
        ip = self._random.choice(self._app.ips)
        self._site.cluster.net.blackhole(ip)
        self._pass()
        self._site.cluster.net.heal(ip)

    def _pass(self) -> None:
        threading.Event().wait(self._random.uniform(0.3, 1.5))


class Churn:
    """Routes and certificates that come, change and go; and clients that send nonsense."""

    def __init__(self, site: Site, app: App, seed: int) -> None:
        self._site, self._app, self._random = site, app, random.Random(seed)
        self._names = [f"churn-{number}" for number in range(20)]

    def actions(self) -> Mapping[str, Callable[[], object]]:
        """All of them."""
        return {"routes change": self.routes, "a certificate changes": self.certificate, "clients send nonsense": self.nonsense}

    def routes(self) -> None:
        cluster = self._site.cluster
        for name in self._random.sample(self._names, 3):
            paths = [path(self._app.name, f"/{self._random.randrange(100)}") for _ in range(3)]
            with contextlib.suppress(OSError):  # the API server is away
                cluster.plane.api.apply(cluster.ingress(name, {cluster.host(name): paths}))

    def certificate(self) -> None:
        cluster = self._site.cluster
        with contextlib.suppress(OSError):
            cluster.plane.api.apply(cluster.secret(f"{self._app.name}-cert", cluster.authority.pair([self._app.host])))

    def nonsense(self) -> None:
        ats = self._site.ats
        for sent in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /%00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        ):
            with contextlib.suppress(OSError):
                ats.raw(sent, timeout_s=1.0)
        assert ats.get("/", host="nobody.test").status == 404


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


@pytest.fixture
def victim(shared_site: Site) -> App:
    """An app whose pods fail."""
    made = shared_site.create("victim", VICTIM_IPS)
    shared_site.await_app(made)
    return made


@pytest.fixture
def deployment(shared_site: Site) -> Deployment:
    """An app whose pods are replaced again and again."""
    made = Deployment(shared_site, "rolling-on", subnet=SUBNET)
    shared_site.await_app(shared_site.create(made.name, made.current))
    return made


@pytest.mark.timeout(0)  # as long as is asked for: each step is bounded by itself
def test_everything_at_once(
    site: Site, victim: App, deployment: Deployment, fault: FaultFactory, seed: int, soak_minutes: float
) -> None:
    """Constant load on two apps while everything happens to them."""
    minutes = soak_minutes or MINUTES
    measured = fault(
        f"everything at once, {minutes:g} min",
        right=f"200; memory grows by no more than {GROWTH_MAX_MB:g} MB from the middle third to the last",
        recovered_max_s=RECOVERY_S,
    )
    site.ats.allow("list or watch failed|rejected|accepted with conditions")
    rolling = site.apps[deployment.name]
    plane = site.cluster.plane
    samples: list[float] = []
    followed_s: list[float] = [0.0]
    troubles = Troubles(seed)
    with (
        site.loaded(victim, measured, protocols=("http1", "h2"), rates=RATES) as first,  # type: ignore[arg-type]
        site.loaded(rolling, measured, rates=RATES) as second,  # type: ignore[arg-type]
    ):
        first.served(20)
        n_descriptors = site.ats.n_fds()
        n_errors = site.ats.counter("atsk8s_controller_errors_total")
        ends_s = time.monotonic() + minutes * 60
        api_lock = threading.Lock()

        def killed() -> None:
            with api_lock:
                plane.kill_api_server()
                plane.start_api_server()
                site.cluster.renew_controllers()

        def paused() -> None:
            with api_lock:
                plane.pause_api_server()
                threading.Event().wait(3)
                plane.resume_api_server()
                plane.await_api_server()

        def rolled() -> None:
            with api_lock:
                # Whoever replaces every pod before an outage is over replaces them behind the back of all who watch.
                processes.await_condition("the outage is over", site.is_watched, timeout_s=RECOVERY_S)
                followed_s.append(deployment.await_controllers())
                deployment.update()

        troubles.begin("pods", PodTroubles(site, victim, seed).actions(), rest_s=0.5)
        troubles.begin(
            "cluster",
            {
                "API server killed": killed,
                "API server paused": paused,
                "rolling update": rolled,
                "rolling update ": rolled,
                "rolling update  ": rolled,
            },
            rest_s=1.0,
        )
        troubles.begin("churn", Churn(site, victim, seed).actions(), rest_s=0.5)
        try:
            while time.monotonic() < ends_s and not troubles.wait(1.0):
                samples.append(rss_mb(site.ats.child.pid))
        finally:
            troubles.end()
        plane.api.close()
        began_s = time.monotonic()
        site.await_fresh(victim, timeout_s=RECOVERY_S)
        measured.recovered_s = time.monotonic() - began_s
        # What a kind that lags behind still has to say about the last outage belongs to this test's log.
        processes.await_condition("every kind is watched again", site.is_watched, timeout_s=RECOVERY_S)
        first.served(20)
        second.served(20)
        n_more = site.ats.n_fds() - n_descriptors
        refused = {name: n for name, n in site.ats.metrics().items() if name.startswith("atsk8s_retries_refused_total")}
        assert site.ats.counter("atsk8s_controller_errors_total") == n_errors, "the controller has failed: see the log"
    third = len(samples) // 3
    growth_mb = statistics.median(samples[-third:]) - statistics.median(samples[third : 2 * third])
    done = ", ".join(f"{what.strip()} {n}" for what, n in sorted(troubles.counts.items()))
    print(f"seed {seed}: {done}; resident {samples[0]:.0f} MB at first, {samples[-1]:.0f} MB at last")
    print(f"before a rolling update EndpointSlices followed after {max(followed_s):.1f} s at most; {refused or 'no retry refused'}")
    measured.notes.append(f"memory {samples[-1]:.0f} MB, grew by {growth_mb:.1f} MB; {sum(troubles.counts.values())} faults")
    measured.check(at_least=int(minutes * 60 * 40 / slowness()))
    assert growth_mb <= GROWTH_MAX_MB, f"resident memory grew by {growth_mb:.1f} MB: {[round(one) for one in samples]}"
    assert n_more <= DESCRIPTORS_MAX, f"{n_more} descriptors more than at the beginning"
