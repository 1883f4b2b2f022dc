"""Lists: which version they ask for, what makes them happen again, and what of them is published."""

from __future__ import annotations

import json

from atsk8s.api.meta import ObjectKey
from atsk8s.source.kube.transport import ConnectionLostError, SilenceError
from tests.unit.source.scripted import Answer, Json, Piece, bench, bookmark, event, ingress, listed, refused, status, watched


def test_point_01_first_list_may_be_stale_and_a_relist_never_goes_back_in_time() -> None:
    """Version "0" first; after a 410 to a watch, what was seen; after a 410 to a list, what etcd has."""
    b = bench(
        listed(10, ingress("a", 5)),
        watched(event("MODIFIED", ingress("a", 12)), event("ERROR", status(410, "Expired"))),
        refused(410, "Expired"),
        listed(30, ingress("a", 12)),
        watched(),
    )
    assert b.queries("watch", "resourceVersion", "limit") == [
        (None, "0", "500"),
        ("true", "10", None),
        (None, "12", "500"),
        (None, None, "500"),
        ("true", "30", None),
    ]


def test_point_02_watch_starts_at_the_lists_version_and_advances_with_every_event() -> None:
    b = bench(
        listed(20, ingress("a", 3), ingress("b", 19)),
        watched(event("DELETED", ingress("a", 21))),
        watched(event("MODIFIED", ingress("b", 22)), bookmark(25)),
        watched(),
    )
    assert b.queries("resourceVersion") == [("0",), ("20",), ("21",), ("25",)]
    assert b.names == {"b": "22"}


def test_point_04_410_as_status_of_a_list() -> None:
    b = bench(refused(410, "Expired"), listed(10, ingress("a", 1)), watched())
    assert b.queries("resourceVersion") == [("0",), (None,), ("10",)]


def test_point_04_410_as_status_of_a_page_discards_the_pages_before() -> None:
    b = bench(
        listed(10, ingress("a", 1), ingress("b", 2)),
        watched(bookmark(12), event("ERROR", status(410, "Gone"))),
        listed(20, ingress("a", 1), more="token-1"),
        refused(410, "Expired"),
        listed(30, ingress("b", 2), ingress("c", 25)),
        watched(),
    )
    assert b.queries("continue", "resourceVersion")[2:5] == [(None, "12"), ("token-1", None), (None, None)]
    assert b.names == {"b": "2", "c": "25"}
    assert len(b.heard) == 2  # the half list was never published


def test_point_04_store_is_untouched_until_the_last_page() -> None:
    seen: list[int] = []
    first = listed(20, ingress("a", 1), more="token-1")
    b = bench(
        first,
        Answer([lambda: seen.append(len(b_store)), *listed(20, ingress("b", 2)).pieces]),
        watched(),
        run=False,
    )
    b_store = b.store
    b.reflector.run()
    assert seen == [0]
    assert b.names == {"a": "1", "b": "2"}
    assert len(b.heard) == 1


def test_point_04_410_as_status_of_a_watch() -> None:
    b = bench(listed(10), watched(bookmark(11)), refused(410, "Expired"), listed(20, ingress("a", 15)), watched())
    assert b.queries("resourceVersion", "resourceVersionMatch") == [
        ("0", None),
        ("10", None),
        ("11", None),
        ("11", "NotOlderThan"),  # a limit and a version alone would mean exactly that version, which is gone
        ("20", None),
    ]


def test_point_04_410_to_a_watch_from_where_the_list_was_is_asked_of_etcd() -> None:
    """A list as old as that would only lead to the same 410."""
    b = bench(listed(10), refused(410, "Expired"), listed(20, ingress("a", 15)), watched())
    assert b.queries("resourceVersion") == [("0",), ("10",), (None,), ("20",)]


def test_point_04_410_as_error_event_whatever_its_reason() -> None:
    for reason in ("Expired", "Gone", ""):
        b = bench(listed(10), watched(event("ERROR", status(410, reason))), listed(20), watched())
        assert [r.is_watch for r in b.transport.requests] == [False, True, False, True]
        assert b.reflector.progress.n_relists == 1


def test_point_05_relist_deletes_what_went_away_and_is_silent_about_what_did_not_change() -> None:
    b = bench(
        listed(10, ingress("gone", 1), ingress("same", 2), ingress("changed", 3)),
        refused(410),
        listed(20, ingress("same", 2), ingress("changed", 15), ingress("new", 16)),
        watched(),
    )
    assert sorted(b.deltas[3:], key=lambda d: d[0]) == [("changed", "3", "15"), ("gone", "1", None), ("new", None, "16")]
    assert len(b.heard) == 2  # one call for the whole exchange
    assert b.names == {"same": "2", "changed": "15", "new": "16"}


def test_point_05_exchange_is_atomic_for_a_reader() -> None:
    """A listener, called in the middle of the exchange if there were one, sees all of the new set."""
    sizes: list[int] = []
    b = bench(listed(10, ingress("a", 1)), refused(410), listed(20, ingress("b", 11), ingress("c", 12)), watched(), run=False)
    b.store.subscribe(lambda *_: sizes.append(len(b.store.snapshot())))
    b.reflector.run()
    assert sizes == [1, 2]


def test_point_06_same_name_with_another_uid_is_a_replacement() -> None:
    """Even where the version is the same, as after a restore."""
    b = bench(listed(10, ingress("a", 5, uid="one")), refused(410), listed(20, ingress("a", 5, uid="two")), watched())
    assert b.deltas[1:] == [("a", "5", "5")]
    assert [c.new.metadata.uid for changes in b.heard for c in changes if c.new] == ["one", "two"]


def test_point_09_streamed_list_is_published_at_its_end() -> None:
    seen: list[int] = []
    b = bench(
        watched(
            event("ADDED", ingress("b", 9)),
            event("ADDED", ingress("a", 3)),
            lambda: seen.append(len(b.store)),
            bookmark(20, ends_list=True),
            event("MODIFIED", ingress("a", 21)),
        ),
        watched(),
        streams=True,
        run=False,
    )
    b.reflector.run()
    assert seen == [0]
    assert b.names == {"b": "9", "a": "21"}
    assert [len(changes) for changes in b.heard] == [2, 1]
    first = b.transport.requests[0].query
    assert first["sendInitialEvents"] == first["allowWatchBookmarks"] == first["watch"] == "true"
    assert first["resourceVersionMatch"] == "NotOlderThan"
    assert "resourceVersion" not in first
    assert b.queries("resourceVersion", "sendInitialEvents")[1] == ("21", None)


def test_point_09_stream_that_dies_before_its_end_publishes_nothing() -> None:
    for end in (ConnectionLostError("cut"), None):
        pieces: list[Piece] = [event("ADDED", ingress("a", 3)), *([end] if end else [])]
        b = bench(watched(*pieces), watched(bookmark(20, ends_list=True)), watched(), streams=True)
        assert [len(changes) for changes in b.heard] == [0]
        assert b.names == {}
        assert b.queries("sendInitialEvents") == [("true",), ("true",), (None,)]


def test_point_09_refusal_leads_to_pages_at_once_and_is_remembered() -> None:
    for code in (422, 400):
        b = bench(refused(code, "Invalid"), listed(10), refused(410), listed(20), watched(), streams=True)
        assert b.queries("sendInitialEvents", "limit")[:2] == [("true", None), (None, "500")]
        assert b.queries("sendInitialEvents")[3] == (None,)
        assert b.transport.requests[1].at == b.transport.requests[0].at


def test_point_09_a_refusal_is_forgotten_after_ten_minutes() -> None:
    b = bench(refused(422), listed(10), refused(410), watched(bookmark(20, ends_list=True)), watched(), streams=True, run=False)
    for _ in range(2):
        b.reflector.step()
    b.time.now += 601
    b.time.stopped = False
    b.reflector.run()
    assert b.queries("sendInitialEvents")[3] == ("true",)
    assert b.reflector.progress.n_relists == 1


def test_point_09_broken_server_that_never_ends_the_list() -> None:
    """ADDED without ever a bookmark: silence leads to pages."""
    b = bench(watched(event("ADDED", ingress("a", 3)), SilenceError("quiet")), listed(10, ingress("a", 3)), watched(), streams=True)
    assert b.queries("limit") == [(None,), ("500",), (None,)]
    assert b.names == {"a": "3"}
    assert b.transport.requests[0].read_timeout_s <= 30


def test_point_09_silence_is_held_against_one_list_and_not_against_the_server() -> None:
    """A server that stood still for a while: the list after the next is streamed again."""
    b = bench(
        watched(SilenceError("paused")),
        listed(10),
        watched(bookmark(11), event("ERROR", status(410))),
        watched(bookmark(20, ends_list=True)),
        watched(),
        streams=True,
    )
    assert b.queries("sendInitialEvents", "limit") == [("true", None), (None, "500"), (None, None), ("true", None), (None, None)]


def test_point_09_broken_server_that_drips_for_ever() -> None:
    b = bench(listed(1), watched(), streams=True, run=False)
    drip = [
        item for i in range(400) for item in (event("ADDED", ingress("a", i + 1)), lambda: setattr(b.time, "now", b.time.now + 1))
    ]
    b.transport._answers.appendleft(watched(*drip))
    b.reflector.run()
    assert b.queries("limit") == [(None,), ("500",), (None,)]


def test_point_09_streams_lost_in_a_row_lead_to_pages() -> None:
    lost = watched(event("ADDED", ingress("a", 3)), ConnectionLostError("cut"))
    b = bench(lost, lost, lost, listed(10), watched(), streams=True)
    assert b.queries("limit") == [(None,), (None,), (None,), ("500",), (None,)]


def test_point_09_relist_asks_for_no_less_than_what_was_seen() -> None:
    b = bench(
        watched(bookmark(20, ends_list=True), bookmark(21), event("ERROR", status(410, "Expired"))),
        watched(bookmark(30, ends_list=True)),
        watched(),
        streams=True,
    )
    assert b.queries("resourceVersion", "sendInitialEvents") == [(None, "true"), ("21", "true"), ("30", None)]


def test_point_10_too_large_version_is_asked_of_etcd() -> None:
    too_large = refused(504, "Timeout", cause="ResourceVersionTooLarge", retry_after_s=1.0)
    b = bench(listed(10), watched(bookmark(11)), refused(410), too_large, listed(20), watched())
    assert b.queries("resourceVersion") == [("0",), ("10",), ("11",), ("11",), (None,), ("20",)]
    b = bench(listed(10), watched(event("ERROR", status(504, "Timeout", cause="ResourceVersionTooLarge"))), listed(9), watched())
    assert b.queries("resourceVersion") == [("0",), ("10",), (None,), ("9",)]


def test_point_10_bookmark_that_goes_back_means_a_restored_etcd() -> None:
    b = bench(listed(50, ingress("a", 40)), watched(bookmark(7)), listed(7, ingress("b", 6)), watched())
    assert b.queries("resourceVersion") == [("0",), ("50",), (None,), ("7",)]
    assert b.names == {"b": "6"}


def test_point_10_event_that_goes_back_means_a_restored_etcd() -> None:
    b = bench(listed(50, ingress("a", 40)), watched(event("ADDED", ingress("b", 6))), listed(7, ingress("b", 6)), watched())
    assert b.queries("resourceVersion") == [("0",), ("50",), (None,), ("7",)]
    assert b.names == {"b": "6"}


def test_point_10_version_is_asked_for_before_a_lost_watch_is_resumed() -> None:
    """A server whose etcd was restored accepts a watch from the future, and is silent until it has caught up."""
    for loss in (ConnectionLostError("cut"), SilenceError("nothing came")):
        b = bench(listed(50, ingress("a", 40)), watched(loss), listed(7, ingress("b", 6)), listed(7, ingress("b", 6)), watched())
        assert b.queries("watch", "resourceVersion", "limit") == [
            (None, "0", "500"),
            ("true", "50", None),
            (None, None, "1"),
            (None, None, "500"),
            ("true", "7", None),
        ]
        assert b.names == {"b": "6"}


def test_point_10_version_is_asked_for_after_refused_connections_and_after_a_watch_without_a_word() -> None:
    b = bench(listed(50), ConnectionLostError("refused"), refused(503), refused(503), listed(49), listed(49), watched())
    assert b.queries("resourceVersion", "limit")[-4:] == [(None, "1"), (None, "1"), (None, "500"), ("49", None)]
    b = bench(listed(50), listed(50), watched(), run=False)
    b.transport._answers.insert(1, watched(lambda: setattr(b.time, "now", b.time.now + 240)))
    b.reflector.run()
    assert b.queries("watch", "limit") == [(None, "500"), ("true", None), (None, "1"), ("true", None)]


def test_point_10_restored_versions_are_not_taken_for_what_they_once_were() -> None:
    """Version 45 was given twice: before the restore, and after it to something else."""
    b = bench(
        listed(50, ingress("a", 45, uid="u", rules=[{"host": "before.example"}]), ingress("same", 3)),
        watched(bookmark(46)),
        listed(46, ingress("a", 45, uid="u", rules=[{"host": "after.example"}]), ingress("same", 3)),
        watched(),
    )
    assert b.deltas == [("a", None, "45"), ("same", None, "3"), ("a", "45", "45")]


def test_point_17_undecodable_object_costs_itself() -> None:
    bad = {"metadata": {"name": "bad", "namespace": "ns", "resourceVersion": "4"}, "spec": {"rules": "not a list"}}
    huge = {"metadata": {"name": "huge", "namespace": "ns", "resourceVersion": "5"}, "spec": {"rules": 10**400}}
    b = bench(listed(10, ingress("a", 1), bad, ingress("b", 2), huge, {"spec": {}}), watched())
    assert b.names == {"a": "1", "b": "2"}
    assert {str(key): why.resource_version for key, why in b.store.rejected.items()} == {"ns/bad": "4", "ns/huge": "5"}
    assert "spec.rules" in b.store.rejected[ObjectKey("ns", "bad")].message
    assert b.reflector.n_undecodable == 3
    assert b.reflector.progress.synced


def test_point_17_huge_numbers_and_unknown_words_are_no_fault_of_the_object() -> None:
    odd = ingress(
        "a", 1, rules=[{"http": {"paths": [{"pathType": "Spiral", "backend": {"service": {"port": {"number": 10**30}}}}]}}]
    )
    odd["metadata"]["generation"] = 10**30
    b = bench(listed(10, odd | {"unknown": {"field": [None]}}), watched())
    assert b.names == {"a": "1"}


def test_point_17_nulls_are_legal() -> None:
    b = bench(Answer([b'{"metadata":{"resourceVersion":"10","continue":null},"items":null}']), watched())
    assert b.reflector.progress.synced
    assert b.names == {}


def test_point_17_an_unusable_version_leaves_the_usable_one_in_place() -> None:
    bad: Json = {"metadata": {"name": "a", "namespace": "ns", "resourceVersion": "12"}, "spec": {"rules": 1}}
    b = bench(
        listed(10, ingress("a", 1)),
        watched(event("MODIFIED", bad)),
        refused(410),
        listed(20, bad),
        watched(event("DELETED", bad | {"metadata": bad["metadata"] | {"resourceVersion": "21"}})),
    )
    assert b.queries("resourceVersion")[2] == ("12",)
    assert b.deltas == [("a", None, "1"), ("a", "1", None)]
    assert not b.store.rejected


def test_answer_that_is_no_list_is_retried() -> None:
    b = bench(Answer([b"<html>login</html>"]), Answer([b'{"metadata":{},"items":[]}']), listed(10), watched())
    assert b.queries("resourceVersion") == [("0",), ("0",), ("0",), ("10",)]
    assert all(wait >= 0.8 for wait in b.time.waits)


def test_list_answer_beyond_its_bound_is_cut() -> None:
    endless = Answer([b"x" * 1024 * 1024] * 600)
    b = bench(endless, listed(10), watched())
    assert b.reflector.progress.synced
    assert endless.closed


def test_ignored_namespaces_do_not_exist() -> None:
    item = ingress("a", 1)
    b = bench(
        listed(10, item), watched(event("MODIFIED", ingress("a", 11))), watched(), is_ignored=lambda key: key.namespace == "ns"
    )
    assert b.names == {}
    assert b.deltas == []
    assert b.queries("resourceVersion")[2] == ("11",)


def test_selector_goes_with_every_request() -> None:
    from atsk8s.source.kinds import SECRET

    assert SECRET.selector == {"fieldSelector": "type=kubernetes.io/tls"}
    b = bench(listed(10, more="t"), listed(10), watched(), kind=SECRET)  # type: ignore[arg-type]
    assert b.queries("fieldSelector") == [("type=kubernetes.io/tls",)] * 3
    assert {r.path for r in b.transport.requests} == {"/api/v1/secrets"}


def test_json_of_the_script_is_what_a_server_sends() -> None:
    assert json.loads(event("ADDED", ingress("a", 1)))["type"] == "ADDED"
