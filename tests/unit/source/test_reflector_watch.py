"""Watches: what an event does to the store, what the end of a stream leads to, and how often requests are sent."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, KINDS, AnyKind, Kind
from atsk8s.source.kube.pacing import Backoff, RequestBudget
from atsk8s.source.kube.transport import ConnectionLostError, SilenceError
from atsk8s.source.store import Change
from tests.unit.source.scripted import Answer, Bench, Time, bench, bookmark, event, ingress, listed, refused, status, watched


def test_point_03_bookmark_moves_the_version_alone() -> None:
    b = bench(listed(10, ingress("a", 1)), watched(bookmark(15)), watched())
    assert b.queries("resourceVersion")[2] == ("15",)
    assert len(b.heard) == 1
    assert b.reflector.progress.n_events == 0


def test_point_03_bookmark_with_unknown_or_missing_fields() -> None:
    odd = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"15","new":{"x":[1]}},"more":1},"extra":2}\n'
    empty = b'{"type":"BOOKMARK","object":{}}\n{"type":"BOOKMARK","object":null}\n'
    b = bench(listed(10), watched(empty, odd), watched())
    assert b.queries("resourceVersion")[2] == ("15",)


def test_point_03_quiet_kind_survives_foreign_churn_and_compaction_without_a_relist() -> None:
    """Nothing of this kind for long; bookmarks carry it over the compaction of everything before 1000."""
    b = bench(listed(10, ingress("a", 1)), watched(bookmark(500)), watched(bookmark(1500)), watched())
    assert b.queries("resourceVersion")[1:] == [("10",), ("500",), ("1500",)]
    assert b.reflector.progress.n_relists == 0


def test_point_07_replays_are_idempotent() -> None:
    b = bench(
        listed(10, ingress("a", 5)),
        watched(event("MODIFIED", ingress("a", 12))),
        watched(event("ADDED", ingress("a", 5)), event("MODIFIED", ingress("a", 12)), event("DELETED", ingress("x", 3))),
        watched(),
    )
    assert b.deltas == [("a", None, "5"), ("a", "5", "12")]
    assert b.queries("resourceVersion")[3] == ("12",)
    assert b.reflector.progress.n_relists == 0


def test_point_07_added_for_a_known_key_modified_for_an_unknown_and_deleted_for_none() -> None:
    b = bench(
        listed(10, ingress("a", 5)),
        watched(event("ADDED", ingress("a", 11)), event("MODIFIED", ingress("b", 12)), event("DELETED", ingress("c", 13))),
        watched(),
    )
    assert b.deltas == [("a", None, "5"), ("a", "5", "11"), ("b", None, "12")]
    assert b.queries("resourceVersion")[2] == ("13",)


def test_point_07_unknown_event_types_are_skipped() -> None:
    b = bench(listed(10), watched(event("RENAMED", ingress("a", 11)), event("ADDED", ingress("b", 12))), watched())
    assert b.names == {"b": "12"}


def test_point_08_events_are_applied_in_stream_order() -> None:
    pieces = [event("ADDED", ingress("a", 11)), event("DELETED", ingress("a", 12)), event("ADDED", ingress("a", 13, uid="2"))]
    b = bench(listed(10), watched(b"".join(pieces)), watched())
    assert b.deltas == [("a", None, "11"), ("a", "11", None), ("a", None, "13")]


def test_point_08_synthetic_added_events_do_not_move_the_version() -> None:
    """A streamed list's ADDED events come in any order: a stream that dies leaves no version behind to resume from."""
    b = bench(
        watched(event("ADDED", ingress("b", 90)), event("ADDED", ingress("a", 3)), ConnectionLostError("cut")),
        watched(event("ADDED", ingress("b", 90)), bookmark(95, ends_list=True)),
        watched(),
        streams=True,
    )
    assert b.queries("resourceVersion") == [(None,), (None,), ("95",)]


def test_point_11_clean_close_is_followed_by_a_watch_at_once() -> None:
    b = bench(listed(10), watched(event("ADDED", ingress("a", 11))), watched())
    assert [r.is_watch for r in b.transport.requests] == [False, True, True]
    assert b.transport.requests[2].at == b.transport.requests[1].at


def test_point_11_empty_short_watch_backs_off() -> None:
    b = bench(listed(10), watched(), watched(), watched())
    assert b.time.waits[:2] == [0.8, 1.6]
    assert b.reflector.progress.n_relists == 0


def is_list(answer: Answer | Exception) -> bool:
    return isinstance(answer, Answer) and answer.pieces == listed(10).pieces


def once_an_hour(answer: Answer | Exception, *first: Answer | Exception, streams: bool = False) -> Bench:
    return bench(*first, otherwise=answer, seconds=3600, streams=streams)


@pytest.mark.parametrize(
    ("answer", "first"),
    [
        (ConnectionLostError("refused"), ()),
        (ConnectionLostError("refused"), (listed(10),)),
        (refused(401), (listed(10),)),
        (refused(403), ()),
        (refused(404), ()),
        (refused(410), ()),
        (refused(410), (listed(10),)),
        (refused(429, retry_after_s=1), (listed(10),)),
        (refused(500), ()),
        (refused(503, retry_after_s=10), (listed(10),)),
        (refused(504, cause="ResourceVersionTooLarge"), (listed(10),)),
        (watched(), (listed(10),)),
        (watched(event("ERROR", status(410))), (listed(10),)),
        (watched(event("ERROR", status(500, "InternalError"))), (listed(10),)),
        (watched(b"garbage\n"), (listed(10),)),
        (watched(b'{"type":"ADDED","obj'), (listed(10),)),
        (watched(ConnectionLostError("cut")), (listed(10),)),
        (Answer([b"<html>"]), ()),
        (listed(""), ()),
        (listed(10), ()),  # also to a watch: one line that is no event
        (watched(bookmark(5)), (listed(10),)),
        (ValueError("bug"), ()),
        (Answer(status=302), ()),
    ],
    ids=[
        "connection refused from the start",
        "connection refused",
        "401",
        "403 from the start",
        "404 from the start",
        "410 from the start",
        "410",
        "429",
        "500 from the start",
        "503",
        "version too large",
        "empty watch",
        "410 event",
        "internal error event",
        "garbage",
        "half an event",
        "reset",
        "no list",
        "list without version",
        "list for a watch",
        "version goes back",
        "bug",
        "redirect",
    ],
)
def test_point_11_request_rate_is_bounded_in_every_failure_mode(answer: Answer | Exception, first: tuple[Answer, ...]) -> None:
    """An hour of each: at most one request in 30 s in the long run (one connection in 5 s where nobody answers; two where what a
    watch gets is a good answer to a list), and never more than eight requests in the first ten seconds."""
    b = once_an_hour(answer, *first)
    start = b.transport.requests[0].at
    assert len([r for r in b.transport.requests if r.at < start + 10]) <= 8
    n_rounds = 10 + 3600 / (5 if isinstance(answer, ConnectionLostError) else 30)
    assert len(b.transport.requests) <= (2 * n_rounds if is_list(answer) else n_rounds)
    assert b.time.now - start >= 3600  # it never gave up


@pytest.mark.parametrize("streams", [False, True])
def test_point_11_storm_of_410_alternating_with_lists(streams: bool) -> None:
    """Each list succeeds and each watch says 410: nothing fails twice in a row, and still lists must not come in a loop."""
    answers = [item for _ in range(500) for item in (listed(10), watched(event("ERROR", status(410))))]
    if streams:
        answers = [watched(bookmark(10, ends_list=True), event("ERROR", status(410))) for _ in range(1000)]
    b = bench(*answers, seconds=600, streams=streams)
    lists = [r for r in b.transport.requests if not r.is_watch or "sendInitialEvents" in r.query]
    assert len([r for r in lists if r.at < 1005]) <= 4
    assert len(lists) <= 60


def test_point_11_server_that_ends_every_watch_after_one_event() -> None:
    """Each by itself is a success; the budget bounds them all the same."""
    answers = [watched(event("MODIFIED", ingress("a", 11 + i))) for i in range(5000)]
    b = bench(listed(10), *answers, seconds=60)
    assert len(b.transport.requests) <= 10 + 60 + 1


def test_point_12_refusals_of_a_watch_keep_the_version() -> None:
    for failure in (ConnectionLostError("refused"), refused(429), refused(500), refused(401), refused(403), refused(503)):
        is_outage = isinstance(failure, ConnectionLostError) or failure.status >= 500
        asked = [listed(12)] if is_outage else []
        b = bench(listed(10, ingress("a", 1)), failure, *asked, watched(), watched())
        assert b.queries("watch", "resourceVersion", "limit")[2:-1] == [(None, None, "1")] * is_outage + [("true", "10", None)]
        assert b.reflector.progress.n_relists == 0
        assert b.names == {"a": "1"}


def test_point_12_refusals_of_a_server_that_comes_back_are_asked_again_soon() -> None:
    """403 while RBAC is set up, 503 while aggregators start, then a history that is gone: no such step waits for long."""
    down = [ConnectionLostError("refused")] * 6
    b = bench(
        listed(10), *down, refused(403), refused(503), refused(403), listed(12), refused(410), listed(20), watched(), watched()
    )
    up_at = b.transport.requests[7].at
    assert b.transport.requests[-1].at - up_at <= 4 * 5
    assert b.queries("resourceVersion")[-1] == ("20",)


def test_point_12_internal_error_is_retried_for_a_minute_and_then_listed() -> None:
    internal = watched(event("ERROR", status(500, "InternalError")))
    b = bench(listed(10), *[internal] * 12, seconds=300)
    kinds = [(r.is_watch, r.at) for r in b.transport.requests]
    relist = next(at for is_watch, at in kinds[1:] if not is_watch)
    assert 60 < relist - kinds[1][1] < 130


def test_point_12_long_watch_that_breaks_is_resumed_at_once() -> None:
    b = bench(listed(1), listed(7), watched(), run=False)
    long_lived = watched(lambda: setattr(b.time, "now", b.time.now + 100), ConnectionLostError("idle timeout of a load balancer"))
    b.transport._answers.insert(1, long_lived)
    b.reflector.run()
    assert b.queries("resourceVersion", "limit") == [("0", "500"), ("1", None), (None, "1"), ("1", None)]
    assert b.transport.requests[3].at == b.transport.requests[1].at + 100


def test_point_13_retry_after_is_honoured_and_capped() -> None:
    b = bench(listed(10), refused(429, retry_after_s=3), refused(503, retry_after_s=86400), watched(), watched())
    assert b.time.waits[:2] == [3, 5]


def test_point_13_retry_after_in_the_body_counts_too() -> None:
    body = status(429, "TooManyRequests") | {"details": {"retryAfterSeconds": 4}}
    b = bench(listed(10), Answer([json.dumps(body).encode()], status=429), watched(), watched())
    assert b.time.waits[0] == 4


def test_point_13_every_delay_has_jitter() -> None:
    time, ranges = Time(), []

    def high(low: float, top: float) -> float:
        ranges.append((low, top))
        return top

    backoff = Backoff(time.clock, high)
    assert [round(backoff.next_s(), 1) for _ in range(7)] == [1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0]
    assert ranges == [(1.0, 2.0)] * 7
    time.now += 60 + 121
    assert backoff.next_s() == 1.6


def test_point_13_watches_of_a_fleet_end_at_different_times() -> None:
    seen: dict[str, set[float]] = {}
    for kind in KINDS:
        low, high = kind.watch_s
        seen[kind.name] = {low, high}
        assert high - low >= 0.2 * low
    assert seen["EndpointSlice"] == {50, 70}
    assert seen["Ingress"] == {240, 300}
    b = bench(listed(10), watched())
    assert b.queries("timeoutSeconds")[1] == ("240",)
    assert b.transport.requests[1].read_timeout_s == 240 + 15


def test_budget_refills() -> None:
    time = Time()
    budget = RequestBudget(time.clock)
    assert [budget.take_s() for _ in range(11)] == [0.0] * 10 + [1.0]
    time.now += 100
    assert [budget.take_s() for _ in range(11)] == [0.0] * 10 + [1.0]


def test_point_14_silence_and_drip_end_a_watch_in_time() -> None:
    b = bench(listed(10), watched(SilenceError("nothing")), listed(10), watched(), watched())
    assert b.queries("resourceVersion")[3] == ("10",)
    b = bench(listed(10), watched(), run=False)
    drip = [item for _ in range(1000) for item in (b" ", lambda: setattr(b.time, "now", b.time.now + 1))]
    b.transport._answers.insert(1, watched(*drip))
    b.reflector.run()
    assert b.transport.requests[2].at - b.transport.requests[1].at <= 240 + 15 + 2


def test_point_14_lines_and_pieces_need_not_agree() -> None:
    lines = event("ADDED", ingress("a", 11)) + b"\n\r\n" + event("ADDED", ingress("b", 12, note="x\ny")) + bookmark(13)
    for size in (1, 7, len(lines)):
        pieces = [lines[i : i + size] for i in range(0, len(lines), size)]
        b = bench(listed(10), watched(*pieces), watched())
        assert b.names == {"a": "11", "b": "12"}
        assert b.queries("resourceVersion")[2] == ("13",)


def test_point_14_one_event_of_a_megabyte() -> None:
    big = event("ADDED", ingress("a", 11, rules=[{"host": "h" * 1_500_000}]))
    b = bench(listed(10), watched(*[big[i : i + 65536] for i in range(0, len(big), 65536)]), watched())
    assert b.names == {"a": "11"}


def test_point_14_endless_line_is_cut_and_listed() -> None:
    b = bench(listed(10), watched(*[b"x" * 1024 * 1024] * 20), listed(20), watched())
    assert b.reflector.progress.n_relists == 1


def test_point_14_truncated_line_is_not_applied() -> None:
    whole = event("ADDED", ingress("a", 11))
    b = bench(listed(10), watched(whole[:-10]), listed(11), watched(whole), watched())
    assert b.names == {"a": "11"}
    assert b.queries("resourceVersion")[1:4] == [("10",), (None,), ("10",)]


def test_point_15_a_refused_kind_is_settled_but_not_synced() -> None:
    for code in (403, 404):
        b = bench(refused(code, "Forbidden"), refused(code))
        progress = b.reflector.progress
        assert (progress.synced, progress.settled) == (False, True)
        assert str(code) in progress.reason


def test_point_15_401_reloads_the_credentials() -> None:
    b = bench(listed(10), refused(401), watched(), watched())
    assert b.transport.n_unauthorized == 1


CUSTOM = Kind(name="Custom", api_version="x.example/v1", plural="customs", item=INGRESS.item, removable=True)


def test_point_15_custom_resource_that_is_installed_and_removed_at_runtime() -> None:
    b = bench(
        refused(404),
        listed(10, ingress("a", 1)),
        refused(404),
        refused(404),
        listed(20, ingress("b", 15)),
        watched(),
        kind=CUSTOM,
    )
    assert b.deltas == [("a", None, "1"), ("a", "1", None), ("b", None, "15")]
    assert b.queries("watch")[3:5] == [(None,), (None,)]
    assert b.queries("resourceVersion")[4] == ("0",)


def test_point_15_404_for_a_built_in_kind_deletes_nothing() -> None:
    b = bench(listed(10, ingress("a", 1)), refused(404), watched(), watched())
    assert b.names == {"a": "1"}


def test_point_17_bad_object_in_a_watch_moves_the_version() -> None:
    bad = {"metadata": {"name": "bad", "namespace": "ns", "resourceVersion": "12"}, "spec": {"rules": 7}}
    b = bench(listed(10), watched(event("ADDED", bad), event("ADDED", ingress("a", 13))), watched())
    assert b.names == {"a": "13"}
    assert [str(key) for key in b.store.rejected] == ["ns/bad"]
    fixed = ingress("bad", 14)
    b = bench(listed(10), watched(event("ADDED", bad)), watched(event("MODIFIED", fixed)), watched())
    assert b.queries("resourceVersion")[2] == ("12",)
    assert b.names == {"bad": "14"}
    assert not b.store.rejected


def test_point_18_listener_that_raises() -> None:
    def broken(_: AnyKind, changes: Sequence[Change[Any]]) -> None:
        raise RuntimeError(f"{len(changes)} changes")

    b = bench(listed(10, ingress("a", 1)), watched(event("ADDED", ingress("b", 11))), watched(), listener=broken)
    assert b.store.n_listener_errors == 2
    assert b.names == {"a": "1", "b": "11"}
    assert b.queries("resourceVersion")[2] == ("11",)
    assert len(b.heard) == 2  # the other listener misses nothing


def test_point_18_slow_listener_converges_although_the_server_closes_the_watch() -> None:
    b = bench(listed(1), watched(), run=False)
    b.store.subscribe(lambda *_: setattr(b.time, "now", b.time.now + 10))
    cut = watched(event("ADDED", ingress("a", 11)), ConnectionLostError("too slow, closed by the server"))
    for answer in (watched(event("ADDED", ingress("b", 12)), event("DELETED", ingress("a", 13))), cut):
        b.transport._answers.insert(1, answer)
    b.transport._answers.insert(2, listed(13))
    b.reflector.run()
    assert b.names == {"b": "12"}


def test_point_20_own_status_writes_come_back_as_changes_without_a_difference() -> None:
    """The store cannot know what matters; what it hands on lets a listener compare what it compiles from."""
    b = bench(
        listed(10, ingress("a", 5)), watched(event("MODIFIED", ingress("a", 11) | {"status": {"loadBalancer": {}}})), watched()
    )
    (change,) = b.heard[-1]
    assert change.old is not None
    assert change.new is not None
    assert change.old.spec == change.new.spec
    assert change.old.metadata.annotations == change.new.metadata.annotations


def test_point_22_churn_does_not_grow_memory() -> None:
    """50,000 events on 100 objects: the same memory at the end as after the first 10,000."""
    template = json.dumps({"type": "MODIFIED", "object": ingress("NAME", 0)}).encode()
    sizes: list[int] = []

    def churn(first: int) -> list[bytes]:
        return [
            template.replace(b"NAME", b"n%d" % (i % 100)).replace(b'"resourceVersion": "0"', b'"resourceVersion": "%d"' % i) + b"\n"
            for i in range(first, first + 1000)
        ]

    b = bench(listed(1), run=False)
    b.store._listeners = ()
    for round_ in range(50):
        b.transport._answers.append(watched(*churn(100 + round_ * 1000)))
    tracemalloc.start()
    try:
        for round_ in range(51):
            b.reflector.step()
            b.time.now += 10
            if round_ in (10, 50):
                sizes.append(sum(s.size for s in tracemalloc.take_snapshot().filter_traces(ours()).statistics("filename")))
    finally:
        tracemalloc.stop()
    assert b.reflector.progress.n_events == 50_000
    assert len(b.store) == 100
    assert sizes[1] < sizes[0] * 1.2 + 20_000


def ours() -> list[tracemalloc.Filter]:
    return [tracemalloc.Filter(True, "*/atsk8s/*")]


def test_point_22_relist_keeps_the_objects_that_did_not_change() -> None:
    """So that both lists are never held whole beyond the exchange."""
    b = bench(listed(10, ingress("a", 1)), refused(410), listed(20, ingress("a", 1)), watched(), run=False)
    b.reflector.step()
    before = next(iter(b.store.snapshot().values()))
    b.reflector.run()
    assert next(iter(b.store.snapshot().values())) is before


def test_point_23_server_that_lags_behind_another() -> None:
    """Behind a balancer: the second server has not seen our version yet, then catches up, and nothing goes back in time."""
    lagging = watched(event("ERROR", status(504, "Timeout", cause="ResourceVersionTooLarge")))
    b = bench(listed(100, ingress("a", 90)), lagging, listed(120, ingress("a", 110)), watched())
    assert b.queries("resourceVersion") == [("0",), ("100",), (None,), ("120",)]
    assert b.deltas == [("a", None, "90"), ("a", "90", "110")]


def test_short_rotation_for_what_must_not_be_stale() -> None:
    b = bench(listed(10), watched(), kind=ENDPOINT_SLICE)  # type: ignore[arg-type]
    assert b.queries("timeoutSeconds")[1] == ("50",)
    assert b.transport.requests[1].path == "/apis/discovery.k8s.io/v1/endpointslices"
