"""What is wrong with an object is logged, and told as an Event, once it has stood for a while."""

from __future__ import annotations

import logging

import pytest

from atsk8s.controller import LOGGED_VERDICTS_MAX, VERDICT_REST_S, VerdictLog
from atsk8s.errors import Reason
from atsk8s.metrics import EventCounts
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.source.kube.events import EventsReport

REF = ObjectRef(kind="Ingress", namespace="ns", name="shop")
TAKEN = Condition(object=REF, reason=Reason.CONFLICT, message="is taken", fatal=True)
EXPIRED = Condition(object=REF, reason=Reason.CERTIFICATE_EXPIRED, message="ended yesterday")


class Sink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[ObjectRef, tuple[Condition, ...]]] = []

    def tell(self, ref: ObjectRef, faults: tuple[Condition, ...]) -> None:
        self.told.append((ref, faults))

    @property
    def report(self) -> EventCounts:
        return EventsReport()


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sink = Sink()
        self.conditions: dict[ObjectRef, tuple[Condition, ...]] = {}
        self.log = VerdictLog(lambda: self.now_s, self.sink)  # type: ignore[arg-type]  # Sequence and tuple

    def round(self, seconds: float = 0.0) -> None:
        self.now_s += seconds
        self.log.tell(lambda ref: self.conditions.get(ref, ()))

    def change(self, *conditions: Condition) -> None:
        self.conditions[REF] = conditions
        self.log.note([REF])


def test_what_stands_is_told_once_and_so_is_its_end() -> None:
    world = World()
    world.change(TAKEN)
    world.round(VERDICT_REST_S / 2)
    assert world.sink.told == []
    world.round(VERDICT_REST_S)
    assert world.sink.told == [(REF, (TAKEN,))]
    world.change(TAKEN)
    world.round(2 * VERDICT_REST_S)
    assert len(world.sink.told) == 1
    world.change(TAKEN, EXPIRED)
    world.round(2 * VERDICT_REST_S)
    world.change()
    world.round(2 * VERDICT_REST_S)
    assert world.sink.told[1:] == [(REF, (TAKEN, EXPIRED)), (REF, ())]


def test_what_passes_by_itself_is_nobodys_business() -> None:
    world = World()
    world.change(TAKEN)
    world.round(VERDICT_REST_S / 2)
    world.change()
    world.round(2 * VERDICT_REST_S)
    assert world.sink.told == []


def test_lines_are_bounded_and_events_are_their_writers_business(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    refs = [ObjectRef(kind="Ingress", namespace="ns", name=f"i{n}") for n in range(2 * LOGGED_VERDICTS_MAX)]
    world.conditions = {ref: (Condition(object=ref, reason=Reason.CONFLICT, message="is taken"),) for ref in refs}
    world.log.note(refs)
    with caplog.at_level(logging.WARNING, "atsk8s"):
        world.round(2 * VERDICT_REST_S)
    assert len(caplog.records) == LOGGED_VERDICTS_MAX + 1
    assert [ref for ref, _ in world.sink.told] == refs
