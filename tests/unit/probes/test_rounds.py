"""What a round does about endpoints' health."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from atsk8s.model.ir import ServiceKey
from atsk8s.probes.prober import ProbeReport
from atsk8s.probes.rounds import LOOK_S, Ejected, EjectedReport, EndpointHealth
from atsk8s.probes.targets import Place, Verdict

KEY = ServiceKey(namespace="ns", name="svc", port=80)
VERDICT = Verdict(Place(KEY, bytes((10, 0, 0, 1)), 8080), 32_000)


class Core:
    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.n_looks = 0
        self.failing = False

    def probed(self, verdict: Verdict) -> None:
        if self.failing:
            raise RuntimeError("as the test wants it")
        self.verdicts.append(verdict)

    def ejected(self) -> EjectedReport:
        self.n_looks += 1
        return EjectedReport(n_services=1, first=(Ejected(service=KEY, n_eligible=2, n_ejected=1),))

    def service_keys(self) -> Mapping[int, ServiceKey]:
        return {7: KEY}


class Found:
    """A prober that has found out this."""

    def __init__(self) -> None:
        self.pending: list[Verdict] = []
        self.report = ProbeReport()

    def verdicts(self) -> list[Verdict]:
        found, self.pending = self.pending, []
        return found

    def says(self, key: ServiceKey) -> Mapping[str, str]:
        return {"10.0.0.1:8080": "left out: status 503"} if key == KEY else {}


class World:
    def __init__(self) -> None:
        self.core, self.prober, self.now_s = Core(), Found(), 100.0
        self.health = EndpointHealth(self.core, self.prober, lambda: self.now_s)  # type: ignore[arg-type]


def test_verdicts_go_to_the_core_once_and_it_is_asked_who_is_left_out() -> None:
    world = World()
    world.prober.pending = [VERDICT]
    world.health.round()
    world.health.round()
    assert world.core.verdicts == [VERDICT]
    assert world.core.n_looks == 1
    assert world.health.ejected.first[0].n_ejected == 1
    world.now_s += LOOK_S
    world.health.round()
    assert world.core.n_looks == 2


def test_a_fault_of_ours_is_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.core.failing = True
    for _ in range(3):
        world.prober.pending = [VERDICT]
        world.health.round()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    world.core.failing = False
    world.prober.pending = [VERDICT]
    world.health.round()
    assert world.core.verdicts == [VERDICT]


def test_endpoints_are_described_for_people() -> None:
    world = World()
    plain = [{"service_id": 7, "address": "10.0.0.1:8080", "failures": 3}, {"service_id": 8, "address": "10.0.0.2:8080"}]
    assert world.health.described(plain) == [
        {"address": "10.0.0.1:8080", "failures": 3, "service": "ns/svc:80", "probe": "left out: status 503"},
        {"address": "10.0.0.2:8080"},
    ]
