"""What answers make of an endpoint, and when it is asked."""

from __future__ import annotations

import pytest

from atsk8s.model.ir import DRAINING, Endpoint, HealthCheck, Service, ServiceKey
from atsk8s.probes.exchange import HEALTHY, Answer, Result
from atsk8s.probes.targets import Place, Target, Targets, Verdict

KEY = ServiceKey(namespace="ns", name="svc", port=80)
A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
CHECK = HealthCheck(path="/healthz", interval_ms=10_000, timeout_ms=2_000)
BAD, UNKNOWN = Answer(Result.UNHEALTHY, "status 503"), Answer(Result.UNKNOWN, "too many open files")
HOLD_MS = 3 * 10_000 + 2_000


def service(*endpoints: Endpoint, check: HealthCheck | None = CHECK) -> Service:
    return Service(key=KEY, endpoints=endpoints, health_check=check)


def endpoint(addr: bytes = A) -> Endpoint:
    return Endpoint(addr=addr, port=8080)


def targets() -> Targets:
    return Targets(lambda low, high: (low + high) / 2)


def take(target: Target, *answers: Answer) -> list[int | None]:
    """The hold times said."""
    verdicts = [target.take(answer) for answer in answers]
    return [verdict.hold_ms if verdict is not None else None for verdict in verdicts]


def test_three_failures_leave_it_out_and_two_successes_bring_it_back() -> None:
    target = Target(Place(KEY, A, 8080), CHECK)
    assert take(target, HEALTHY, BAD, BAD, HEALTHY, BAD, BAD) == [None] * 6
    assert take(target, BAD, BAD) == [HOLD_MS, HOLD_MS]  # said again each time, or it would end by itself
    assert target.says() == "left out: status 503"
    assert take(target, HEALTHY) == [HOLD_MS]
    assert take(target, HEALTHY, HEALTHY) == [0, None]
    assert target.says() == "healthy"


def test_what_we_could_not_ask_says_nothing_of_it() -> None:
    target = Target(Place(KEY, A, 8080), CHECK)
    assert take(target, *[UNKNOWN] * 10) == [None] * 10
    assert take(target, BAD, UNKNOWN, BAD, UNKNOWN, BAD) == [None, None, None, None, HOLD_MS]
    assert take(target, UNKNOWN) == [HOLD_MS]


def test_hold_is_within_the_bridges_bound() -> None:
    slow = HealthCheck(path="/", interval_ms=3_600_000, timeout_ms=60_000)
    assert Target(Place(KEY, A, 1), slow).hold_ms == 3_600_000


def test_each_is_asked_once_an_interval() -> None:
    them, now = targets(), 100.0
    assert list(them.put(KEY, service(endpoint(A), endpoint(B)), now)) == []
    assert len(them) == 2
    assert them.next_due_s(now) == 5.0  # somewhere in the first interval
    assert them.take_due(now) is None
    now += 5
    first, second = them.take_due(now), them.take_due(now)
    assert first is not None
    assert second is not None
    assert {first.place.addr, second.place.addr} == {A, B}
    assert them.take_due(now) is None
    them.put_back(first, now)
    assert them.next_due_s(now) == 10.0


def test_one_that_has_left_is_asked_no_more_and_what_was_said_of_it_is_taken_back() -> None:
    them = targets()
    list(them.put(KEY, service(endpoint(A), endpoint(B)), 0.0))
    out = them.get(KEY)[Place(KEY, A, 8080)]
    take(out, BAD, BAD, BAD)
    assert list(them.put(KEY, service(endpoint(B)), 1.0)) == [Verdict(Place(KEY, A, 8080), 0)]
    due = them.take_due(1000.0)
    assert due is not None
    assert due.place.addr == B
    assert them.take_due(1000.0) is None
    them.put_back(out, 1000.0)
    assert them.next_due_s(0.0) == float("inf")


@pytest.mark.parametrize("later", [None, service(endpoint(), check=None), service()])
def test_a_service_that_wants_no_checks_any_more(later: Service | None) -> None:
    them = targets()
    list(them.put(KEY, service(endpoint()), 0.0))
    assert list(them.put(KEY, later, 1.0)) == []
    assert len(them) == 0
    assert them.take_due(1000.0) is None


def test_a_changed_check_keeps_what_is_known() -> None:
    them = targets()
    list(them.put(KEY, service(endpoint()), 0.0))
    take(them.get(KEY)[Place(KEY, A, 8080)], BAD, BAD)
    list(them.put(KEY, service(endpoint(), check=HealthCheck(path="/other", port=9)), 1.0))
    target = them.get(KEY)[Place(KEY, A, 8080)]
    assert (target.check.path, target.port, target.n_bad) == ("/other", 9, 2)


def test_draining_endpoints_are_not_asked() -> None:
    them = targets()
    list(them.put(KEY, service(Endpoint(addr=A, port=1, flags=DRAINING), endpoint(B)), 0.0))
    assert [place.addr for place in them.get(KEY)] == [B]
