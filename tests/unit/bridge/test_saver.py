"""When the last good state is written, and what a failure costs."""

from __future__ import annotations

import logging

import pytest

from atsk8s.bridge.saver import FAILURE_LINE_S, INTERVAL_S, Outcome, Saver


class World:
    """A table's version, a clock, and a disk that may be full."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.version = 0
        self.failure = ""
        self.cost_s = 0.0
        self.saved: list[int] = []
        self.n_tries = 0
        self.saver = Saver(self._save, lambda: self.version, directory="/state", clock=lambda: self.now_s)

    def _save(self) -> Outcome:
        self.n_tries += 1
        self.now_s += self.cost_s
        if self.failure:
            return Outcome(failure=self.failure)
        self.saved.append(self.version)
        return Outcome(version=self.version, size_bytes=100 * self.version)

    def look_after(self, seconds: float) -> None:
        self.now_s += seconds
        self.saver.look()


def test_nothing_is_written_before_a_table_of_ours() -> None:
    world = World()
    world.look_after(1)

    assert world.n_tries == 0


def test_what_is_new_is_written_once_and_not_more_often_than_the_interval() -> None:
    world = World()
    world.version = 2
    world.look_after(1)
    world.look_after(INTERVAL_S)
    assert world.saved == [2]

    world.version = 3
    world.look_after(0)
    assert world.saved == [2, 3], "the interval has passed since the last write, not since the last look"

    world.version = 4
    world.look_after(INTERVAL_S / 2)
    world.version = 5
    world.look_after(INTERVAL_S / 2)
    assert world.saved == [2, 3, 5]
    assert world.saver.report.n_saved == 3
    assert world.saver.report.size_bytes == 500


def test_failures_are_counted_told_seldom_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.version, world.failure = 2, "/state/.table.state.new cannot be written: No space left on device"
    with caplog.at_level(logging.DEBUG, logger="atsk8s"):
        for _ in range(5):
            world.look_after(INTERVAL_S)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        world.look_after(FAILURE_LINE_S)
        assert len(caplog.records) == 2
        assert "No space left" in vars(caplog.records[0])["why"]
        world.failure = ""
        world.look_after(INTERVAL_S)

    assert world.saver.report.n_failed == 6
    assert world.saved == [2]


def test_a_stop_writes_what_is_new_if_that_is_quick() -> None:
    world = World()
    world.version = 2
    world.look_after(1)
    world.version = 3
    world.saver.start()
    world.saver.stop()

    assert world.saved == [2, 3]


def test_a_stop_does_not_wait_for_a_slow_disk() -> None:
    world = World()
    world.version, world.cost_s = 2, 5.0
    world.look_after(1)
    world.version = 3
    world.saver.start()
    world.saver.stop()

    assert world.saved == [2]
    assert world.saver.report.last_s == 5.0
