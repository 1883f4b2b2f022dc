"""What /livez fails for, and the wall clock."""

from __future__ import annotations

import logging

import pytest

from atsk8s.liveness import CLOCK_BACK_MAX_S, THREAD_FAILING_MAX_S, WATCH_STILL_MAX_S, WallClock, liveness_faults
from atsk8s.source.interface import KindStatus


def kind(still_s: float) -> KindStatus:
    return KindStatus(
        name="Ingress",
        mandatory=True,
        synced=False,
        settled=False,
        reason="connection refused",
        n_objects=0,
        n_rejected=0,
        n_relists=0,
        n_events=0,
        n_requests=0,
        staleness_s=1e6,
        still_s=still_s,
    )


def test_what_a_restart_of_the_process_does_not_mend_is_no_fault() -> None:
    """The API server is away for days, a thread was started again a moment ago, the clock was slewed."""
    assert liveness_faults([kind(WATCH_STILL_MAX_S)], {"watch-ingresses": THREAD_FAILING_MAX_S}, CLOCK_BACK_MAX_S) == []


def test_each_fault_is_named() -> None:
    faults = liveness_faults([kind(601)], {"watch-ingresses": 121}, 3600)
    assert [fault.split(":")[0] for fault in faults] == [
        "the watch of Ingress has not moved for 601 s",
        "thread watch-ingresses has ended over and over for 121 s; the log says why",
        "the wall clock is 3600 s behind where it was",
    ]


def test_wall_clock_set_back_is_said_once_and_over_when_it_has_caught_up(caplog: pytest.LogCaptureFixture) -> None:
    now = [1_000_000.0]
    clock = WallClock(lambda: now[0])
    now[0] += 10
    clock.look()
    now[0] -= 3600
    for _ in range(3):
        clock.look()
        now[0] += 1
    assert clock.back_s() == 3597
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "start Traffic Server again" in vars(caplog.records[0])["remedy"]
    now[0] += 3600
    clock.look()
    assert clock.back_s() == 0
    now[0] -= 120
    clock.look()
    assert len(caplog.records) == 2


def test_small_steps_and_steps_forward_are_nothing(caplog: pytest.LogCaptureFixture) -> None:
    now = [1_000_000.0]
    clock = WallClock(lambda: now[0])
    for step_s in (3600, -30, 30, 86400):
        now[0] += step_s
        clock.look()
    assert not caplog.records
