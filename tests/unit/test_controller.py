"""The controller's rounds: what is committed when, what is held back, and what a failure costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from atsk8s.api.meta import KubeObject, ObjectKey
from atsk8s.controller import Controller, LoadedState
from atsk8s.errors import InvariantError, Reason
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Backend, Condition, HostKey, PathMatchKind, Place, Rule, ServiceKey, VirtualHost
from atsk8s.model.state import Model
from atsk8s.probes.rounds import EjectedReport
from atsk8s.probes.targets import Verdict
from atsk8s.route_hold import ROUTE_HOLD_S, RouteHold
from atsk8s.settings import Settings
from atsk8s.source.interface import KindStatus, Problem
from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, KINDS, SERVICE, AnyKind
from atsk8s.source.store import Listener, Rejection, Store

HOST = HostKey(place=Place.EXACT, host="a.example")
SVC = ServiceKey(namespace="ns", name="svc", port=80)


class FakeSource:
    """Stores that the test fills."""

    def __init__(self) -> None:
        self.stores: dict[AnyKind, Store[Any]] = {kind: Store(kind) for kind in KINDS}
        self.unsynced: set[str] = set()
        self.is_stopped = False

    def store(self, kind: AnyKind) -> Store[Any]:
        return self.stores[kind]

    def subscribe(self, listener: Listener) -> None:
        for store in self.stores.values():
            store.subscribe(listener)

    def start(self) -> None:
        pass

    def stop(self, timeout_s: float = 5.0) -> bool:
        self.is_stopped = True
        return True

    def problems(self) -> tuple[Problem, ...]:
        return (Problem(origin="bad.yaml", reason=Reason.MALFORMED, message="no YAML"),)

    def wait_synced(self, timeout_s: float) -> bool:
        return not self.unsynced

    def kinds(self) -> tuple[KindStatus, ...]:
        return tuple(
            KindStatus(
                name=kind.name,
                mandatory=kind.mandatory,
                synced=kind.name not in self.unsynced,
                settled=kind.name not in self.unsynced,
                reason="asked for" if kind.name in self.unsynced else "",
                n_objects=len(store),
                n_rejected=0,
                n_relists=1,
                n_events=0,
                n_requests=1,
                staleness_s=0.0,
            )
            for kind, store in self.stores.items()
        )


class FakeTable:
    """Remembers commits, and fails as often as it is told."""

    def __init__(self) -> None:
        self.commits: list[Changes] = []
        self.verdicts: list[Verdict] = []
        self.failures = 0

    def commit(self, changes: Changes) -> int | None:
        if self.failures:
            self.failures -= 1
            raise InvariantError("as the test wants it")
        if not changes and self.commits:
            return None
        self.commits.append(changes)
        return len(self.commits)

    def version(self) -> int:
        return len(self.commits)

    def probed(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)

    def ejected(self) -> EjectedReport:
        return EjectedReport()

    def service_keys(self) -> Mapping[int, ServiceKey]:
        return {1: SVC}

    def refusals(self) -> Sequence[Condition]:
        return ()

    def sizes(self) -> Mapping[str, int]:
        return {}


class Script:
    """A bell whose every wait runs the test's next step, and then says stop."""

    def __init__(self, clock: Clock) -> None:
        self.steps: list[Callable[[], None]] = []
        self.waited_s: list[float] = []
        self.rings = 0
        self._clock = clock

    def wait(self, timeout_s: float) -> bool:
        self.waited_s.append(timeout_s)
        if not self.steps:
            return True
        self.steps.pop(0)()
        return False

    def ring(self) -> None:
        self.rings += 1


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class World:
    def __init__(self, settings: Settings | None = None, *, loaded: LoadedState | None = None) -> None:
        self.settings = settings or Settings(watch_ingress_without_class=True)
        self.clock = Clock()
        self.source = FakeSource()
        self.table = FakeTable()
        self.bell = Script(self.clock)
        self.health: list[tuple[bool, str]] = []
        self.n_first_tables = 0
        self.is_draining = False
        self.controller = Controller(
            settings=self.settings,
            source=self.source,
            model=Model(self.settings),
            table=self.table,
            bell=self.bell,
            on_first_table=self._first_table,
            on_health=lambda ready, reason: self.health.append((ready, reason)),
            is_draining=lambda: self.is_draining,
            loaded=loaded,
            clock=self.clock,
            wall_clock=self.clock,
        )

    def _first_table(self) -> None:
        self.n_first_tables += 1

    def put(self, kind: AnyKind, obj: KubeObject) -> None:
        self.source.stores[kind].put(obj.key, obj)

    def run(self, *steps: Callable[[], None]) -> None:
        self.bell.steps = list(steps)
        self.controller.run()


def ingress(version: str = "1", service: str = "svc") -> KubeObject:
    return msgspec.convert(
        {
            "metadata": {"namespace": "ns", "name": "ing", "resourceVersion": version},
            "spec": {
                "rules": [
                    {
                        "host": "a.example",
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": service, "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ]
            },
        },
        INGRESS.item,
    )


def service() -> KubeObject:
    return msgspec.convert(
        {
            "metadata": {"namespace": "ns", "name": "svc", "resourceVersion": "1"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
        },
        SERVICE.item,
    )


def endpoint_slice(version: str = "1", ip: str = "10.0.0.1") -> KubeObject:
    return msgspec.convert(
        {
            "metadata": {
                "namespace": "ns",
                "name": "svc-1",
                "resourceVersion": version,
                "labels": {"kubernetes.io/service-name": "svc"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip]}],
            "ports": [{"name": "", "port": 8080}],
        },
        ENDPOINT_SLICE.item,
    )


def test_an_empty_cluster_is_a_first_table_too() -> None:
    world = World()
    world.run()

    assert len(world.table.commits) == 1
    assert world.health == [(True, "")]
    assert world.n_first_tables == 1
    assert world.source.is_stopped


def test_nothing_is_committed_before_the_mandatory_kinds_have_synced() -> None:
    world = World()
    world.source.unsynced = {"EndpointSlice"}

    def check_and_sync() -> None:
        assert world.table.commits == []
        world.source.unsynced = set()

    world.run(lambda: None, check_and_sync)

    assert world.health[0] == (False, "waiting for EndpointSlice: asked for")
    assert world.health[-1] == (True, "")
    assert len(world.table.commits) == 1


def test_a_stop_before_the_sync_ends_it() -> None:
    world = World()
    world.source.unsynced = {"Service"}
    world.run()

    assert world.table.commits == []
    assert world.source.is_stopped


def test_a_change_rings_the_bell_and_is_committed_alone() -> None:
    world = World()
    world.put(INGRESS, ingress())
    world.put(SERVICE, service())
    world.put(ENDPOINT_SLICE, endpoint_slice())
    world.run(lambda: world.put(ENDPOINT_SLICE, endpoint_slice("2", "10.0.0.2")))

    assert world.bell.rings >= 1
    assert world.table.commits[1].vhosts == {}
    assert list(world.table.commits[1].services) == [SVC]


def test_a_first_table_reads_each_object_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives before it is in the stores that it is made from; what arrives after is noted, one by one."""
    world = World()
    read: list[str] = []
    put = Model.put

    def noted(self: Model, kind: AnyKind, key: ObjectKey, obj: KubeObject | None) -> None:
        read.append(kind.name)
        put(self, kind, key, obj)

    monkeypatch.setattr(Model, "put", noted)
    world.source.unsynced = {"Ingress"}

    def sync() -> None:
        world.put(INGRESS, ingress())
        world.put(SERVICE, service())
        world.source.unsynced = set()

    def check_and_change() -> None:
        assert sorted(read) == ["Ingress", "Service"]
        world.put(ENDPOINT_SLICE, endpoint_slice())

    world.run(sync, check_and_change)

    assert read[2:] == ["EndpointSlice"]


def test_an_irrelevant_change_commits_nothing() -> None:
    world = World()
    world.run(lambda: world.put(SERVICE, service()))

    assert len(world.table.commits) == 1
    assert world.controller.report.n_unchanged == 1


def test_a_failed_commit_leaves_the_table_and_rebuilds_with_backoff() -> None:
    world = World()

    def fail_once() -> None:
        world.put(INGRESS, ingress())
        world.put(SERVICE, service())
        world.put(ENDPOINT_SLICE, endpoint_slice())
        world.table.failures = 2

    world.run(fail_once, lambda: None, lambda: None)

    assert world.controller.report.n_failed == 2
    assert world.controller.report.ready
    assert world.bell.waited_s[1:3] == [0.1, 0.5]
    assert HOST in world.table.commits[-1].vhosts


def test_a_new_route_waits_for_its_service_and_slices() -> None:
    world = World()

    def only_the_ingress() -> None:
        world.put(INGRESS, ingress())

    def the_rest() -> None:
        assert HOST not in world.table.commits[-1].vhosts
        world.put(SERVICE, service())
        world.put(ENDPOINT_SLICE, endpoint_slice())

    world.run(only_the_ingress, the_rest)

    assert HOST in world.table.commits[-1].vhosts


def test_a_dangling_route_is_published_when_its_time_is_up() -> None:
    world = World()

    def only_the_ingress() -> None:
        world.put(INGRESS, ingress())

    def later() -> None:
        world.clock.now_s += ROUTE_HOLD_S

    world.run(only_the_ingress, later)

    assert world.bell.waited_s[1] == pytest.approx(ROUTE_HOLD_S)
    assert HOST in world.table.commits[-1].vhosts


def vhost(name: str) -> VirtualHost:
    backend = Backend(service=ServiceKey(namespace="ns", name=name, port=80))
    rule = Rule(object=ObjectKey("ns", "ing"), kind=PathMatchKind.PREFIX, path="/", path_as_written="/", backends=(backend,))
    return VirtualHost(key=HOST, rules=(rule,))


def test_a_held_route_that_changes_keeps_its_time_and_one_that_goes_is_gone() -> None:
    clock = Clock()
    hold = RouteHold(clock)
    assert hold.apply(Changes(vhosts={HOST: vhost("one")}), lambda _: False).vhosts == {}
    clock.now_s += ROUTE_HOLD_S / 2
    assert hold.apply(Changes(vhosts={HOST: vhost("two")}), lambda _: False).vhosts == {}
    assert hold.due_in_s() == pytest.approx(ROUTE_HOLD_S / 2)
    clock.now_s += ROUTE_HOLD_S / 2
    assert hold.apply(Changes(), lambda _: False).vhosts == {HOST: vhost("two")}

    hold.apply(Changes(vhosts={HOST: vhost("one")}), lambda _: False)
    assert hold.apply(Changes(vhosts={HOST: None}), lambda _: False).vhosts == {HOST: None}
    assert hold.due_in_s() == float("inf")


def test_conditions_include_what_could_not_be_decoded() -> None:
    world = World()
    world.source.stores[INGRESS].reject(ObjectKey("ns", "bad"), Rejection(reason=Reason.MALFORMED, message="no"))
    world.run()

    found = [(condition.object.kind, condition.object.name, condition.reason) for condition in world.controller.conditions()]
    assert found == [("File", "bad.yaml", Reason.MALFORMED), ("Ingress", "bad", Reason.MALFORMED)]


def test_a_drain_ends_readiness_and_changes_are_published_all_the_same() -> None:
    world = World()

    def drain() -> None:
        world.is_draining = True

    world.run(drain, lambda: world.put(INGRESS, ingress()), lambda: setattr(world.clock, "now_s", 200.0))

    assert world.health == [(True, ""), (False, "draining: the server is about to stop")]
    assert HOST in world.table.commits[-1].vhosts
    assert world.n_first_tables == 1


def test_a_last_good_state_is_ready_until_live_data_takes_over() -> None:
    world = World(loaded=LoadedState(version=1, written_s=40))
    world.source.unsynced = {"Service"}
    seen: list[tuple[bool, str, float | None, int]] = []

    def look() -> None:
        report = world.controller.report
        seen.append((report.ready, report.reason, report.degraded_s, world.controller.live_version()))

    def sync() -> None:
        look()
        world.clock.now_s += 20
        look()
        world.source.unsynced = set()

    world.run(sync, look)

    assert seen == [
        (True, "waiting for Service: asked for", 60.0, 0),
        (True, "waiting for Service: asked for", 80.0, 0),
        (True, "", None, 1),
    ]
    assert all(ready for ready, _ in world.health)
    assert world.n_first_tables == 1


def test_a_failing_first_commit_leaves_the_last_good_state() -> None:
    world = World(loaded=LoadedState(version=1, written_s=40))
    world.table.failures = 1

    def still_degraded() -> None:
        assert world.controller.report.degraded_s is not None
        assert world.controller.live_version() == 0

    world.run(still_degraded, lambda: None)

    assert world.controller.report.degraded_s is None
    assert world.controller.live_version() == 1


def test_a_drain_ends_the_readiness_of_a_last_good_state() -> None:
    world = World(loaded=LoadedState(version=1, written_s=40))
    world.source.unsynced = {"Service"}

    def drain() -> None:
        world.is_draining = True

    world.run(lambda: None, drain, lambda: None, lambda: None)

    assert [ready for ready, _ in world.health] == [True, False]
