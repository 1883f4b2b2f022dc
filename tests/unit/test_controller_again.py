"""A controller whose thread ended in the midst of anything, and runs again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atsk8s.model.changes import Changes
from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, SERVICE
from tests.unit.test_controller import HOST, World, endpoint_slice, ingress, service


def end() -> None:
    raise SystemExit


def started() -> World:
    world = World()
    for kind, obj in ((INGRESS, ingress()), (SERVICE, service()), (ENDPOINT_SLICE, endpoint_slice())):
        world.put(kind, obj)
    return world


def test_it_goes_on_with_what_changed_meanwhile() -> None:
    world = started()
    with pytest.raises(SystemExit):
        world.run(end)
    assert not world.source.is_stopped
    world.put(INGRESS, ingress("2", service="other"))
    world.run(lambda: None, lambda: setattr(world.clock, "now_s", world.clock.now_s + 1), lambda: None)
    assert world.table.commits[-1].vhosts[HOST] is not None
    assert [key.name for key in world.table.commits[-1].vhosts[HOST].services()] == ["other"]
    assert world.n_first_tables == 1
    assert world.health == [(True, "")]
    assert world.source.is_stopped


def test_it_was_ended_while_it_committed() -> None:
    """Before, and after the core has published: either way the next run ends with the table that the stores ask for."""
    for is_published in (False, True):
        world = started()
        commit: Callable[[Changes], int | None] = world.table.commit

        def fail(changes: Changes) -> int | None:
            if is_published:  # noqa: B023
                commit(changes)  # noqa: B023
            raise SystemExit

        world.table.commit = fail  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            world.run()
        world.table.commit = commit  # type: ignore[method-assign]
        world.run(lambda: None)
        assert world.n_first_tables == 1
        assert world.health[-1] == (True, "")
        assert world.controller.live_version() == len(world.table.commits) > 0


def test_it_was_ended_before_it_said_that_a_first_table_is_there() -> None:
    world = started()
    world.controller._on_first_table = end
    with pytest.raises(SystemExit):
        world.run()
    world.controller._on_first_table = world._first_table
    world.run(lambda: None)
    assert world.n_first_tables == 1
    assert world.controller.live_version() > 0


def test_threads_that_ended_are_tended_by_its_rounds() -> None:
    world = started()
    left = [SystemExit()]

    def work() -> None:
        if left:
            raise left.pop()

    kept = world.controller._keeper.keep(work, name="watch-things", purpose="watch")
    kept.join(10)
    world.run(lambda: None)
    assert world.controller.thread_restarts() == {"watch": 1}


def test_a_clock_set_back_is_a_reason_to_start_the_process_again() -> None:
    world = started()
    wall = [1e9]
    world.controller._wall._wall_clock = lambda: wall[0]
    world.run(lambda: None)
    assert world.controller.liveness_faults() == []
    wall[0] -= 3600
    assert len(world.controller.liveness_faults()) == 1
