"""Events: what is written when, how several replicas meet in one, and what failures, floods and refusals cost."""

from __future__ import annotations

import json
import logging
import re

import msgspec
import pytest

from atsk8s.api.meta import KubeObject, ObjectKey
from atsk8s.errors import KubeError, Reason
from atsk8s.model.ir import Condition, ObjectRef
from atsk8s.source.kinds import INGRESS, INGRESS_CLASS
from atsk8s.source.kube import events
from atsk8s.source.kube.credentials import Credentials
from atsk8s.source.kube.event_texts import event_name
from atsk8s.source.kube.events import EVENTS_AT_ONCE, OBJECT_EVENTS_AT_ONCE, EventWriter
from atsk8s.source.kube.writing import ANSWER_BYTES_MAX, Reply, WriteTransport
from atsk8s.source.store import Rejection
from atsk8s.threads import Keeper
from tests.harness.fakeapi import Exchange, FakeApi, hang_up, refuse
from tests.unit.source.paper_events import Clock, PaperServer, Source, World


def status(code: int, cause: str = "", message: str = "") -> Reply:
    body = {"kind": "Status", "code": code, "message": message, "details": {"causes": [{"reason": cause}]}}
    return Reply(status=code, body=json.dumps(body).encode())


def test_an_event_names_the_object_the_reason_and_the_message() -> None:
    world = World()
    world.reject(world.source.ingress("shop"), "host shop.example belongs to Ingress other/shop")
    world.run(1)

    ((path, made),) = world.server.events.items()
    assert path.startswith("/api/v1/namespaces/ns/events/shop.")
    assert made["involvedObject"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "namespace": "ns",
        "name": "shop",
        "uid": "uid-shop",
    }
    assert (made["type"], made["reason"], made["count"]) == ("Warning", "Conflict", 1)
    assert made["message"] == "host shop.example belongs to Ingress other/shop"
    assert made["firstTimestamp"] == made["lastTimestamp"] == "2027-01-15T08:16:40Z"
    assert world.writer.report.n_written == 1


def test_an_object_without_namespace_has_its_events_in_default() -> None:
    world = World()
    made: KubeObject = msgspec.convert({"metadata": {"name": "cls", "uid": "u"}, "spec": {}}, INGRESS_CLASS.item)
    world.source.stores[INGRESS_CLASS].put(made.key, made)
    world.reject(ObjectRef(kind="IngressClass", namespace="", name="cls"))
    world.run(1)

    ((path, event),) = world.server.events.items()
    assert path.startswith("/api/v1/namespaces/default/events/cls.")
    assert event["involvedObject"]["namespace"] == ""


def test_nothing_is_written_of_what_is_well_or_no_object() -> None:
    world = World()
    world.writer.tell(world.source.ingress("shop"), ())
    world.reject(ObjectRef(kind="File", namespace="", name="bad.yaml"))
    world.reject(ObjectRef(kind="Ingress", namespace="../../nodes", name="shop"))
    world.reject(ObjectRef(kind="Ingress", namespace="ns", name="a?b=c"))
    world.run(10)

    assert world.server.requests == []


def test_what_is_wrong_with_an_object_that_is_not_there_is_told_without_a_uid() -> None:
    world = World()
    world.reject(ObjectRef(kind="Service", namespace="ns", name="missing"), "create it", Reason.NOT_FOUND)
    world.run(1)
    (event,) = world.server.events.values()
    assert (event["involvedObject"]["kind"], event["involvedObject"]["uid"]) == ("Service", "")


def test_a_problem_that_stands_is_told_again_before_its_event_is_forgotten() -> None:
    world = World()
    ref = world.source.ingress("shop")
    for _ in range(3):
        world.reject(ref)
        world.run(10)
    assert world.server.n_created == 1

    world.run(3600)
    (event,) = world.server.events.values()
    assert event["count"] == 4  # after 20, 40 and 60 minutes
    assert event["lastTimestamp"] > event["firstTimestamp"]

    world.server.events.clear()  # it came of age
    world.run(1800)
    assert [event["count"] for event in world.server.events.values()] == [1]

    world.writer.tell(ref, ())
    n = len(world.server.requests)
    world.run(7200)
    assert len(world.server.requests) == n


def test_replicas_meet_in_one_event() -> None:
    """Each tells of the same at the same time: one Event, counted once; later whoever is first counts it up."""
    clock, server = Clock(), PaperServer()
    replicas = [World(server, clock) for _ in range(3)]
    for world in replicas:
        world.reject(world.source.ingress("shop"))
    for world in replicas:
        while world.writer.step() == 0:
            pass
    (event,) = server.events.values()
    assert event["count"] == 1
    assert [world.writer.report.n_written for world in replicas] == [1, 0, 0]

    for start in range(0, 2 * 1200, 10):
        for world in replicas:
            while world.writer.step() == 0:
                pass
        assert event["count"] <= 1 + start // 1200
        clock.now_s += 10
    assert event["count"] == 2


def test_two_who_count_up_at_once_count_once() -> None:
    world = World()
    world.reject(world.source.ingress("shop"))
    world.run(1)
    (event,) = world.server.events.values()
    stale = json.loads(json.dumps(event))
    event["metadata"]["resourceVersion"] = "77"  # somebody was faster

    world.clock.now_s += 1300
    world.server.faults = [Reply(status=200, body=json.dumps(stale).encode())]
    world.run(1)
    assert event["count"] == 1
    assert world.writer.report.n_failed == 0


def test_a_namesake_has_events_of_its_own() -> None:
    problem = ("Conflict", "is taken")
    assert event_name("shop", "uid-1", "Ingress", problem) != event_name("shop", "uid-2", "Ingress", problem)
    long = event_name("a" * 235 + "-." + "b" * 16, "uid", "Ingress", problem)
    assert len(long) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", long)


def test_a_flood_from_one_object_is_cut() -> None:
    world = World()
    ref = world.source.ingress("shop")
    for n in range(100):
        world.reject(ref, f"is taken, {n}")
        world.run(0.1)
    assert world.server.n_created == OBJECT_EVENTS_AT_ONCE
    world.run(60)
    assert world.server.n_created == OBJECT_EVENTS_AT_ONCE + 1
    assert any(event["message"] == "is taken, 99" for event in world.server.events.values())


def test_a_flood_from_many_objects_is_cut_and_other_teams_get_their_turn() -> None:
    world = World()
    for n in range(500):
        world.reject(world.source.ingress(f"i{n}", "noisy"))
    world.run(0.5)
    assert world.server.n_created == EVENTS_AT_ONCE
    world.reject(world.source.ingress("mine", "quiet"))
    world.run(2)
    assert any("/quiet/" in path for path in world.server.events)
    world.run(60)
    assert world.server.n_created <= EVENTS_AT_ONCE + 63
    world.run(1200)
    assert sum("/noisy/" in path for path in world.server.events) == events.NAMESPACE_OBJECTS_MAX
    assert world.writer.report.n_dropped == 500 - events.NAMESPACE_OBJECTS_MAX


def test_memory_is_bounded_and_what_is_over_makes_room() -> None:
    world = World()
    for n in range(3 * events.OBJECTS_MAX):
        world.reject(world.source.ingress(f"i{n}", f"n{n}"))
    assert len(world.writer._inbox) == events.OBJECTS_MAX
    world.run(1)
    for n in range(events.OBJECTS_MAX):
        world.writer.tell(ObjectRef(kind="Ingress", namespace=f"n{n}", name=f"i{n}"), ())
    world.run(1)
    world.reject(world.source.ingress("late", "late"))
    world.run(2)
    assert any("/late/" in path for path in world.server.events)
    assert len(world.writer._standing) <= events.OBJECTS_MAX
    assert len(world.writer._last_in) <= events.OBJECTS_MAX


def test_a_message_is_bounded_and_printable() -> None:
    world = World()
    ref = world.source.ingress("shop")
    world.reject(ref, "ä" * 5000 + "\x1b[31m")
    world.reject(ref, "line\nline\x00" + "é" * 600)
    world.run(1)
    for event in world.server.events.values():
        assert len(event["message"].encode()) <= 1024
        assert event["message"].isprintable()
        assert event["message"].endswith("...")


def test_a_refusal_costs_a_line_and_a_pause_in_that_namespace(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    refused = status(403, message='events is forbidden: User "x" cannot create')
    world.server.always = lambda _, path: refused if "/ns/" in path else None
    with caplog.at_level(logging.INFO, "atsk8s"):
        for n in range(5):
            world.reject(world.source.ingress(f"i{n}"))
        world.run(300)
    assert 3 <= len(world.server.requests) <= 6
    assert world.writer.report.n_refused == len(world.server.requests)
    (line,) = (record for record in caplog.records if record.message == "events are refused")
    assert line.namespace == "ns"
    assert "RBAC" in line.why

    world.reject(world.source.ingress("mine", "other"))
    world.run(1)
    assert any("/other/" in path for path in world.server.events)

    world.server.always = lambda _method, _path: None  # granted
    world.run(120)
    assert sum("/ns/" in path for path in world.server.events) == 5


def test_a_namespace_that_ends_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.server.faults = [status(403, "NamespaceTerminating"), status(404)]
    with caplog.at_level(logging.INFO, "atsk8s"):
        world.reject(world.source.ingress("a", "ending"))
        world.reject(world.source.ingress("b", "ended"))
        world.run(100)
    assert len(world.server.requests) == 2
    assert not caplog.records


@pytest.mark.parametrize(
    "fault",
    [KubeError("connection refused"), status(500), status(503), status(429), status(401), Reply(status=502, body=b"<html>")],
    ids=["lost", "500", "503", "429", "401", "html"],
)
def test_a_failure_is_tried_again_with_backoff(fault: Reply | KubeError, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.server.faults = [fault] * 5
    with caplog.at_level(logging.INFO, "atsk8s"):
        world.reject(world.source.ingress("shop"))
        world.run(2)
        assert len(world.server.requests) == 2  # after 0.8 s
        world.run(60)
    assert len(world.server.events) == 1
    assert world.writer.report.n_failed == 5
    assert [record.message for record in caplog.records] == ["events cannot be written"]
    assert all(record.levelno == logging.INFO for record in caplog.records)
    assert (world.server.n_unauthorized > 0) == (isinstance(fault, Reply) and fault.status == 401)


def test_an_event_that_the_server_does_not_take_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.server.faults = [status(422, message="involvedObject.namespace: Invalid value")]
    with caplog.at_level(logging.INFO, "atsk8s"):
        world.reject(world.source.ingress("shop"))
        world.run(3600)
    assert len(world.server.requests) == 1
    assert world.writer.report.n_failed == 1
    (record,) = caplog.records
    assert "422" in record.why


def test_an_answer_that_is_no_event_is_a_failure() -> None:
    world = World()
    ref = world.source.ingress("shop")
    world.reject(ref)
    world.run(1)
    world.clock.now_s += 1300
    world.server.faults = [Reply(status=200, body=b"[" * 100_000), Reply(status=200, body=b'{"count": "many"}')]
    world.run(10)
    assert world.writer.report.n_failed == 2
    world.server.faults = [Reply(status=200, body=b'{"metadata": null, "count": null, "lastTimestamp": "yesterday"}')]
    world.clock.now_s += 1300
    world.run(10)
    assert world.writer.report.n_failed == 2


def test_an_object_that_cannot_be_decoded_has_an_event_once_it_stood() -> None:
    world = World()
    store = world.source.stores[INGRESS]
    store.reject(ObjectKey("ns", "bad"), Rejection(reason=Reason.MALFORMED, message="spec.rules: not a list"))
    store.reject(ObjectKey("ns", "brief"), Rejection(reason=Reason.MALFORMED, message="spec: missing"))
    world.run(1)
    assert world.server.requests == []
    store.delete(ObjectKey("ns", "brief"))
    world.run(10)

    (event,) = world.server.events.values()
    assert event["involvedObject"]["uid"] == "asked"
    assert (event["reason"], event["message"]) == ("Malformed", "spec.rules: not a list")

    store.delete(ObjectKey("ns", "bad"))
    world.run(10)
    n = len(world.server.requests)
    world.run(7200)
    assert len(world.server.requests) == n


def test_the_verdict_on_an_older_version_stands_beside_an_undecodable_newer_one() -> None:
    world = World()
    world.reject(world.source.ingress("shop"), "is taken")
    world.source.stores[INGRESS].reject(ObjectKey("ns", "shop"), Rejection(reason=Reason.MALFORMED, message="no list"))
    world.run(20)
    assert sorted(event["reason"] for event in world.server.events.values()) == ["Conflict", "Malformed"]


# Over sockets ---------------------------------------------------------------------------------------------------------------------

EVENTS_PATH = "/api/v1/namespaces/ns/events"


def transport(api: FakeApi) -> WriteTransport:
    return WriteTransport(lambda: Credentials(server=api.url, authorization="Bearer s3cret-t0ken", origin="test"))


def test_the_thread_writes_and_ends() -> None:
    """A whole writer: hung up on, refused with a wish to wait, then heard; its thread ends at once."""

    def created(exchange: Exchange) -> None:
        exchange.answer_json(201, {"kind": "Event"})

    with FakeApi() as api:
        source = Source()
        writer = EventWriter(source, lambda: transport(api), jitter=lambda low, _: low / 100)  # type: ignore[arg-type]
        api.script(EVENTS_PATH, hang_up, refuse(503, retry_after_s=0), created)
        writer.start(Keeper())
        ref = source.ingress("shop")
        writer.tell(ref, (Condition(object=ref, reason=Reason.CONFLICT, message="is taken"),))
        api.wait_for(lambda: writer.report.n_written == 1)
        writer.stop()
        assert not (writer._thread and writer._thread.is_alive())
        last = api.asked(EVENTS_PATH)[-1]
    assert last.method == "POST"
    assert last.headers["authorization"] == "Bearer s3cret-t0ken"
    assert json.loads(last.body)["reason"] == "Conflict"


def test_a_stop_does_not_wait_for_a_server_that_says_nothing() -> None:
    with FakeApi() as api:
        source = Source()
        writer = EventWriter(source, lambda: transport(api))  # type: ignore[arg-type]
        api.always(EVENTS_PATH, lambda exchange: exchange.hold())
        writer.start(Keeper())
        ref = source.ingress("shop")
        writer.tell(ref, (Condition(object=ref, reason=Reason.CONFLICT, message="is taken"),))
        api.wait_for(lambda: api.asked(EVENTS_PATH))
        writer.stop()
        assert writer._thread is not None
        writer._thread.join(5)
        assert not (writer._thread and writer._thread.is_alive())


@pytest.mark.parametrize("n_bytes", [10, ANSWER_BYTES_MAX + 10])
def test_an_answer_is_bounded_and_the_connection_usable(n_bytes: int) -> None:
    with FakeApi() as api:
        api.script("/x", lambda exchange: exchange.answer(200, b"a" * n_bytes), refuse(404))
        writer = transport(api)
        assert writer.send("POST", "/x", b"{}").body == b"a" * min(n_bytes, ANSWER_BYTES_MAX)
        assert writer.send("GET", "/x").status == 404
        assert api.n_connections == (1 if n_bytes < ANSWER_BYTES_MAX else 2)
        writer.close()
        with pytest.raises(KubeError, match="stopped"):
            writer.send("GET", "/x")


def test_an_error_shows_no_secret() -> None:
    with FakeApi() as api:
        api.always("/x", hang_up)
        with pytest.raises(KubeError) as caught:
            transport(api).send("POST", "/x", b"{}")
        assert "s3cret" not in str(caught.value)
