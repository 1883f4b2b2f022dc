"""What a network and a server can do to a connection, over real sockets on loopback."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from atsk8s.source.kinds import INGRESS
from atsk8s.source.kube import reflector
from tests.harness.fakeapi import Answer, Exchange, FakeApi, hang_up, hold, refuse, reset
from tests.unit.source.live import PATH, a, live

BRIEF = replace(INGRESS, watch_s=(0, 0))  # a watch of no time at all: only the grace is left before silence is noticed


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "WATCH_GRACE_S", 0.2)
    monkeypatch.setattr(reflector, "STREAMED_LIST_SILENCE_S", 0.2)
    monkeypatch.setattr(reflector, "LIST_READ_TIMEOUT_S", 0.5)


def test_list_then_watch_and_the_other_way_to_list() -> None:
    for streams in (True, False):
        with FakeApi(streams_lists=streams) as api:
            api.put(PATH, a("before"))
            with live(api) as it:
                api.wait_for(lambda: it.names == {"before"})
                api.put(PATH, a("after"))
                api.delete(PATH, "before", "ns")
                api.wait_for(lambda: it.names == {"after"})
                assert it.reflector.progress.n_relists == 0


def test_pages() -> None:
    with FakeApi() as api:
        for i in range(1201):
            api.put(PATH, a(f"n{i}"))
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.reflector.progress.synced)
            assert len(it.store) == 1201
            assert [r.query.get("limit") for r in api.asked(PATH)][:3] == ["500"] * 3


@pytest.mark.parametrize("streams", [False, True])
def test_point_10_etcd_restored_from_a_backup(streams: bool) -> None:
    with FakeApi(streams_lists=streams) as api:
        api.put(PATH, a("old"))
        with live(api, streams=streams) as it:
            api.wait_for(lambda: it.names == {"old"})
            backup = api.backup()
            api.put(PATH, a("future"))
            api.delete(PATH, "old", "ns")
            api.wait_for(lambda: it.names == {"future"})
            api.restore(backup)
            api.wait_for(lambda: it.names == {"old"})
            api.put(PATH, a("new"))  # with the version that "future" had
            api.wait_for(lambda: it.names == {"old", "new"})
            assert it.reflector.progress.n_relists == 1


@pytest.mark.usefixtures("short_silence")
def test_point_14_half_open_connection() -> None:
    """The server answered, then nothing: no FIN, no RST, every byte of ours acknowledged."""

    def half_open(exchange: Exchange) -> None:
        exchange.start()
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, half_open)
        with live(api, kind=BRIEF, streams=False) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 2)
            api.put(PATH, a("missed"))
            api.wait_for(lambda: it.names == {"missed"})
            assert it.reflector.progress.n_relists == 0


@pytest.mark.usefixtures("short_silence")
def test_point_14_server_that_accepts_and_never_answers() -> None:
    with FakeApi() as api:
        api.put(PATH, a("x"))
        api.script(PATH, hold, hold)
        with live(api) as it:
            api.wait_for(lambda: it.names == {"x"})


def test_point_14_reset_and_end_at_every_place() -> None:
    line = json.dumps(
        {"type": "ADDED", "object": {"metadata": {"name": "half", "namespace": "ns", "resourceVersion": "500"}}}
    ).encode()

    def end_inside_a_chunk(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"%x\r\n%s" % (len(line), line[:20]))
        exchange.hang_up()

    def end_between_chunks(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(line[:20])
        exchange.hang_up()

    def end_without_the_last_newline(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(line[:-5])
        exchange.finish()

    def reset_inside_a_chunk(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"%x\r\n%s" % (len(line), line[:20]))
        exchange.reset()

    def nonsense_for_a_chunk_size(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"zz\r\nhello\r\n")
        exchange.hang_up()

    faults = [hang_up, reset, end_inside_a_chunk, end_between_chunks, end_without_the_last_newline, reset_inside_a_chunk]
    with FakeApi() as api:
        api.script(PATH, *faults, nonsense_for_a_chunk_size, api.list, *faults, nonsense_for_a_chunk_size)
        with live(api) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 13)
            api.put(PATH, a("x"))
            api.wait_for(lambda: it.names == {"x"})
            assert it.reflector.progress.n_relists == 0


@pytest.mark.usefixtures("short_silence")
def test_point_14_drip_of_one_byte_at_a_time() -> None:
    def drip(exchange: Exchange) -> None:
        exchange.start()
        while True:
            exchange.chunk(b" ")

    with FakeApi() as api:
        api.script(PATH, api.list, drip)
        with live(api, kind=BRIEF, streams=False) as it:
            api.wait_for(lambda: len(api.asked(PATH)) >= 3)
            api.put(PATH, a("x"))
            api.wait_for(lambda: it.names == {"x"})


@pytest.mark.usefixtures("short_silence")
def test_point_14_proxy_that_holds_the_answer_back_until_the_first_event() -> None:
    def buffering(exchange: Exchange) -> None:
        n_before = len(api.collections[PATH].objects)
        api.wait_for(lambda: len(api.collections[PATH].objects) > n_before)
        api.watch(exchange)

    with FakeApi() as api:
        api.put(PATH, a("x"))
        api.script(PATH, hold, api.list, buffering)
        with live(api) as it:
            api.wait_for(lambda: it.names == {"x"})  # the stream was given up for pages
            api.wait_for(lambda: len(api.asked(PATH)) >= 3)
            api.put(PATH, a("y"))
            api.wait_for(lambda: it.names == {"x", "y"})


def test_point_14_two_events_in_a_chunk_and_one_event_in_many() -> None:
    def pieces(exchange: Exchange) -> None:
        events = b""
        for i, name in enumerate(("p", "q")):
            meta = {
                "name": name,
                "namespace": "ns",
                "resourceVersion": str(200 + i),
                "annotations": {"kubernetes.io/ingress.class": "x\ny"},
            }
            events += json.dumps({"type": "ADDED", "object": {"metadata": meta}}).encode() + b"\n\n"
        exchange.start()
        exchange.chunk(events)
        big = {"name": "big", "namespace": "ns", "resourceVersion": "210", "labels": {"x": "y" * 1_200_000}}
        line = json.dumps({"type": "ADDED", "object": {"metadata": big}}).encode() + b"\n"
        for at in range(0, len(line), 1000):
            exchange.chunk(line[at : at + 1000])
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, pieces)
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.names == {"p", "q", "big"})


def test_point_14_answers_without_chunks() -> None:
    """As HTTP/1.0 proxies send: the body ends with the connection.  Events must not wait for that end."""

    def unchunked(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        meta = {"name": "x", "namespace": "ns", "resourceVersion": "300"}
        exchange.send(json.dumps({"type": "ADDED", "object": {"metadata": meta}}).encode() + b"\n")
        exchange.hold()

    with FakeApi() as api:
        api.script(PATH, api.list, unchunked)
        with live(api, streams=False) as it:
            api.wait_for(lambda: it.names == {"x"})


def test_silence_that_is_allowed_grows_when_a_streamed_list_has_ended() -> None:
    with FakeApi() as api, live(api) as it:
        api.wait_for(lambda: it.reflector.progress.synced)
        (sock,) = it.transport._sockets
        api.wait_for(lambda: sock.gettimeout() == 240 + 15)


@pytest.mark.parametrize("where", ["list", "answer", "watch", "backoff"])
def test_point_21_stop_wherever_it_is(where: str) -> None:
    def half_a_list(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunk(b'{"items": [')
        exchange.hold()

    answers: dict[str, list[Answer]] = {"list": [refuse(422), half_a_list], "answer": [hold], "backoff": [refuse(500)] * 1000}
    script = answers.get(where, [])
    with FakeApi() as api:
        api.script(PATH, *script)
        with live(api) as it:
            if where == "watch":
                api.wait_for(lambda: it.reflector.progress.synced)
            else:
                api.wait_for(lambda: len(api.asked(PATH)) >= len(script[:3]))
            assert it.stop() < 1.0
            it.stop()


def test_point_23_server_that_is_killed_and_comes_back_with_another_history() -> None:
    api = FakeApi()
    try:
        for i in range(50):
            api.put(PATH, a(f"n{i}"))
        with live(api) as it:
            api.wait_for(lambda: len(it.names) == 50)
            port = api.port
            api.close()
            api.wait_for(lambda: "refused" in it.reflector.progress.reason)
            assert len(it.names) == 50  # an outage changes nothing
            api = FakeApi(port=port, streams_lists=False)
            api.version = 1000
            for i in range(25, 75):
                api.put(PATH, a(f"n{i}"))
            api.compact(PATH)
            api.wait_for(lambda: it.names == {f"n{i}" for i in range(25, 75)})
            assert it.reflector.progress.n_relists == 1
    finally:
        api.close()


def test_point_23_connections_cut_under_churn() -> None:
    with FakeApi() as api, live(api) as it:
        for i in range(60):
            api.put(PATH, a(f"n{i % 20}"))
            if i % 10 == 9:
                api.cut()
            if i % 7 == 6:
                api.delete(PATH, f"n{i % 20}", "ns")
            if i == 40:
                api.compact(PATH)
        truth = {(obj["metadata"]["name"], obj["metadata"]["resourceVersion"]) for obj in api.collections[PATH].objects.values()}
        api.wait_for(
            lambda: {(key.name, obj.metadata.resource_version) for key, obj in it.store.snapshot().items()} == truth, timeout_s=15
        )
