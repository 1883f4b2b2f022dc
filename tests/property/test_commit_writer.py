"""The whole way from objects to the C table: what C decides is what the slow model explains, after any sequence of changes."""

from __future__ import annotations

import pytest
from hypothesis import given

from atsk8s.api.meta import ObjectKey
from atsk8s.model.changes import Changes
from atsk8s.model.ir import Backend, HostKey, PathMatchKind, Place, Rule, Service, ServiceKey, VirtualHost
from atsk8s.model.names import host_text
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from tests.property.strategies import options
from tests.property.strategies import steps as histories
from tests.property.strategies.steps import Drain, Step
from tests.property.test_state import NOW_S, Objects, load, take

PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/zzz", "/%2F", "/a%2Fb")


@pytest.fixture(scope="module")
def writer(build: object) -> object:
    """The one writer of this process's one table, which is empty again between examples and at the end."""
    from atsk8s.bridge.publish import CommitWriter

    return CommitWriter()


def empty(writer: object) -> None:
    """Give the table up: what a model that knows of everything published says when it has nothing."""
    from atsk8s.bridge.publish import CommitWriter

    assert isinstance(writer, CommitWriter)
    published = writer._published
    writer.commit(
        Changes(
            vhosts=dict.fromkeys(published._vhosts),
            tls=dict.fromkeys(published._tls),
            services=dict.fromkeys(published._services),
            certificates=dict.fromkeys(published._certificates),
        )
    )
    assert set(writer.sizes().values()) == {0}


def authority_of(key: HostKey) -> str:
    match key.place:
        case Place.EXACT:
            return key.host
        case Place.WILDCARD:
            return f"some.{key.host}"
        case _:
            return "elsewhere.test"


@given(settings=options.settings, steps=histories.steps)
def test_c_decides_what_the_model_explains(writer: object, settings: Settings, steps: list[Step]) -> None:
    """For every host that is served and some that are not, and for paths on, below and beside the rules'."""
    from atsk8s.bridge.core import Core
    from atsk8s.bridge.publish import CommitWriter

    assert isinstance(writer, CommitWriter)
    empty(writer)
    model, objects, core = Model(settings), Objects(), Core()
    for step in [*steps, Drain(fails=False)]:
        if not isinstance(step, Drain):
            take(model, objects, step)
            continue
        changes = model.drain(now_s=NOW_S)
        if step.fails:
            model.reset()
            load(model, objects)
        else:
            writer.commit(changes)
    state = model.state()

    assert writer.refusals() == ()
    assert writer.sizes()["virtual_hosts"] == len(state.vhosts)
    assert writer.sizes()["certificates"] == len(state.certificates) + len(state.empty_certificates)
    for authority in sorted({"elsewhere.test", "deep.er.example", *map(authority_of, state.vhosts)}):
        for path in PATHS:
            decided, explained = core.decide(authority, path), model.explain(authority, path)
            rule = explained.get("rule")
            assert (decided["decision"] == "rule") == (rule is not None), (authority, path)
            if rule is not None:
                assert isinstance(rule, dict)
                assert decided["object"] == rule["object"], (authority, path, explained)


def test_what_the_core_refuses_costs_itself(writer: object) -> None:
    """A virtual host that cannot be placed is reported and left out; its commit's others are published."""
    from atsk8s.bridge.core import Core
    from atsk8s.bridge.publish import CommitWriter

    assert isinstance(writer, CommitWriter)
    empty(writer)
    good = HostKey(place=Place.EXACT, host="good.example")
    bad = HostKey(place=Place.EXACT, host="bad..example")

    def vhost(key: HostKey) -> VirtualHost:
        only = Rule(object=ObjectKey("ns", "ing"), kind=PathMatchKind.PREFIX, path="/", path_as_written="/", backends=())
        return VirtualHost(key=key, rules=(only,))

    version = writer.commit(Changes(vhosts={good: vhost(good), bad: vhost(bad)}))

    assert version is not None
    assert Core().decide("good.example", "/")["decision"] == "rule"
    (condition,) = writer.refusals()
    assert condition.object.name == host_text(bad)
    assert "not a host" in condition.message
    assert writer.commit(Changes(vhosts={bad: None})) is None
    assert writer.refusals() == ()


@pytest.mark.parametrize("where", ["before it is published", "before it is taken in"])
def test_a_commit_that_something_ended_is_gone_on_from(writer: object, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Python and the core agree again on what is published, and what comes next is published and dropped as ever."""
    from atsk8s.bridge import publish
    from atsk8s.bridge.core import Core
    from atsk8s.bridge.publish import CommitWriter

    assert isinstance(writer, CommitWriter)
    empty(writer)
    before = writer.version()
    host = HostKey(place=Place.EXACT, host="ended.example")
    key = ServiceKey(namespace="ns", name="svc", port=80)
    rule = Rule(
        object=ObjectKey("ns", "ing"), kind=PathMatchKind.PREFIX, path="/", path_as_written="/", backends=(Backend(service=key),)
    )
    changes = Changes(vhosts={host: VirtualHost(key=host, rules=(rule,))}, services={key: Service(key=key)})

    def end(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        if where == "before it is published":
            patch.setattr(publish, "_publish", end)
        else:
            patch.setattr(writer._published, "accept", end)
        with pytest.raises(SystemExit):
            writer.commit(changes)
    is_published = where == "before it is taken in"
    assert (writer.version() > before) == is_published
    assert (Core().decide("ended.example", "/")["decision"] == "rule") == is_published
    assert writer.sizes()["services"] == int(is_published)
    writer.commit(changes)
    assert Core().decide("ended.example", "/")["decision"] == "rule"
    assert writer.commit(Changes(vhosts={host: None}, services={key: None})) is not None
    assert writer.sizes()["services"] == 0
    assert Core().decide("ended.example", "/")["decision"] == "no_host"
