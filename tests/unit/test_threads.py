"""Kept threads: what ends them, and when they come back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from atsk8s.threads import BACKOFF_MAX_S, CALM_S, Keeper, Kept


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def ending(*errors: BaseException | None) -> tuple[Callable[[], None], list[int]]:
    """Work that ends like this, one after the other, and does its work then."""
    left, runs = list(errors), [0]

    def run() -> None:
        runs[0] += 1
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return run, runs


def ended(kept: Kept) -> None:
    kept.join(10)
    assert not kept.is_alive()


@pytest.mark.parametrize("error", [SystemExit(), MemoryError(), KeyboardInterrupt(), ValueError("a bug")])
def test_a_thread_that_ended_is_started_again_and_said_once(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper(Clock())
    run, runs = ending(error)
    kept = keeper.keep(run, name="watch-things", purpose="watch")
    ended(kept)
    keeper.tend()
    ended(kept)
    for _ in range(3):
        keeper.tend()
    assert runs == [2]
    assert keeper.restarts.counts() == {"watch": 1}
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1
    assert vars(lines[0])["which"] == "watch-things"
    assert vars(lines[0])["why"] == type(error).__name__


def test_work_that_is_done_is_left_alone() -> None:
    keeper = Keeper(Clock())
    run, runs = ending()
    kept = keeper.keep(run, name="t", purpose="t")
    ended(kept)
    keeper.tend()
    assert runs == [1]
    assert keeper.failing() == {}


def test_a_thread_that_runs_is_left_alone() -> None:
    keeper, go = Keeper(Clock()), threading.Event()

    def run() -> None:
        go.wait(10)

    kept = keeper.keep(run, name="t", purpose="t")
    keeper.tend()
    assert keeper.restarts.counts() == {}
    go.set()
    ended(kept)


def test_one_that_ends_over_and_over_is_tried_less_often_and_is_said_to_be_failing() -> None:
    clock = Clock()
    keeper = Keeper(clock)
    run, runs = ending(*[SystemExit()] * 1000)
    kept = keeper.keep(run, name="t", purpose="t")
    for _ in range(600):
        ended(kept)
        keeper.tend()
        clock.now_s += 1
    assert 600 / BACKOFF_MAX_S <= runs[0] <= 600 / BACKOFF_MAX_S + 10
    assert keeper.failing() == {"t": 600.0}


def test_calm_ends_a_failure() -> None:
    clock = Clock()
    keeper, go = Keeper(clock), threading.Event()
    left = [SystemExit(), SystemExit()]

    def run() -> None:
        if left:
            raise left.pop()
        go.wait(10)

    kept = keeper.keep(run, name="t", purpose="t")
    for _ in range(2):
        ended(kept)
        keeper.tend()
        clock.now_s += 1
    keeper.tend()
    assert kept.is_alive()
    assert keeper.failing() == {"t": 2.0}
    clock.now_s += CALM_S
    assert keeper.failing() == {}
    go.set()
    ended(kept)


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    keeper = Keeper(clock)
    run, runs = ending(SystemExit())
    kept = keeper.keep(run, name="t", purpose="t")
    ended(kept)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            keeper.tend()
            clock.now_s += 1
        assert runs == [1]
    clock.now_s += 5
    keeper.tend()
    ended(kept)
    assert runs == [2]


def test_nothing_is_started_once_everything_is_about_to_end() -> None:
    keeper = Keeper(Clock())
    run, runs = ending(SystemExit())
    ended(keeper.keep(run, name="t", purpose="t"))
    keeper.close()
    keeper.tend()
    assert runs == [1]
