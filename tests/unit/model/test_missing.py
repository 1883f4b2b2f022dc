"""What is referred to and not there: told to the Ingress that names it, and only to it."""

from __future__ import annotations

from atsk8s.errors import Reason
from atsk8s.model import missing
from atsk8s.model.ir import ObjectRef
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from tests.unit.model.objects import delete, endpoint_slice, ingress, put, service

WEB = ObjectRef(kind="Ingress", namespace="shop", name="web")
MORE = ObjectRef(kind="Ingress", namespace="shop", name="more")


def missing_of(model: Model, ref: ObjectRef) -> list[str]:
    return [condition.message for condition in model.verdict(ref) if condition.reason == Reason.NOT_FOUND]


def test_one_condition_for_each_name_against_the_ingress_alone() -> None:
    model = Model(Settings())
    rules = (("a.example", "/", "nobody"), ("a.example", "/x", "nobody"), ("b.example", "/", "a"))
    put(
        model, ingress("web", *rules, tls={"a.example": "pair", "b.example": "pair"}), service("a"), endpoint_slice("a", "10.0.0.1")
    )
    changes = model.drain(now_s=0)

    assert changes.verdicts == (WEB,)
    assert missing_of(model, WEB) == [
        "it refers to Secret shop/pair, but there is no kubernetes.io/tls Secret of this name: create it",
        "it refers to Service shop/nobody, but there is no such Service: create it",
    ]
    assert {condition.object for condition in model.conditions()} == {WEB}


def test_every_ingress_that_names_it_is_told_when_it_comes_and_goes() -> None:
    model = Model(Settings())
    put(model, ingress("web", ("a.example", "/", "a")), ingress("more", ("b.example", "/", "a")), service("a"))
    assert model.drain(now_s=0).verdicts == ()
    delete(model, service("a"))
    assert model.drain(now_s=0).verdicts == (MORE, WEB)
    assert len(missing_of(model, WEB)) == len(missing_of(model, MORE)) == 1
    delete(model, ingress("more"))
    assert model.drain(now_s=0).verdicts == (MORE,)
    put(model, service("a"))
    assert model.drain(now_s=0).verdicts == (WEB,)
    assert not list(model.conditions())


def test_an_ingress_that_comes_late_or_turns_elsewhere() -> None:
    """The Service is known to be missing already, and no other object changes."""
    model = Model(Settings())
    put(model, ingress("web", ("a.example", "/", "a")), service("b"))
    model.drain(now_s=0)
    put(model, ingress("more", ("b.example", "/", "a")))
    assert model.drain(now_s=0).verdicts == (MORE,)
    put(model, ingress("web", ("a.example", "/", "b")))
    assert model.drain(now_s=0).verdicts == (WEB,)
    assert (len(missing_of(model, WEB)), len(missing_of(model, MORE))) == (0, 1)


def test_many_are_counted() -> None:
    model = Model(Settings())
    n = missing.NAMED_MAX + 5
    put(model, ingress("web", *(("a.example", f"/{i}", f"s{i}") for i in range(n))))
    model.drain(now_s=0)

    messages = missing_of(model, WEB)
    assert len(messages) == missing.NAMED_MAX + 1
    assert "it refers to 5 more Services that are not there" in messages


def test_what_only_an_option_names() -> None:
    """There is no Ingress to tell: the condition stands against the absent object, until some Ingress names it as well."""
    model = Model(Settings(default_backend=("shop", "a", 80), default_certificate=("shop", "pair")))
    refs = tuple(ObjectRef(kind=kind, namespace="shop", name=name) for kind, name in (("Secret", "pair"), ("Service", "a")))
    assert model.drain(now_s=0).verdicts == refs
    assert [missing_of(model, ref)[0].partition(",")[0] for ref in refs] == ["an option refers to it"] * 2
    put(model, ingress("web", ("a.example", "/", "a"), tls={"a.example": "pair"}))
    assert model.drain(now_s=0).verdicts == (WEB, *refs)
    assert {condition.object for condition in model.conditions()} == {WEB}
    delete(model, ingress("web"))
    model.drain(now_s=0)
    assert {condition.object for condition in model.conditions()} == set(refs)
