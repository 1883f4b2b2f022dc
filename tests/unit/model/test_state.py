"""What a change touches, and no more; what cannot be seen from equality with a rebuild."""

from __future__ import annotations

import pytest

from atsk8s.api.core import Secret, SecretBytes
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.api.networking import Ingress, IngressClass, IngressClassSpec
from atsk8s.errors import InvariantError, Reason
from atsk8s.model import claimants, state
from atsk8s.model import ingress as ingresses
from atsk8s.model.ingress import Claims, Shared
from atsk8s.model.ir import Endpoint, ObjectRef, ServiceKey
from atsk8s.model.names import FALLBACK, NO_HOST, host_key
from atsk8s.model.snippets import SnippetRules
from atsk8s.model.state import Model
from atsk8s.settings import CONTROLLER_NAME, Settings, Tenancy
from tests.property.pairs import NOT_BEFORE, certificate_of, key_pem, keys, pem
from tests.unit.model.objects import KindOf, delete, endpoint_slice, ingress, put, service

A = ServiceKey(namespace="shop", name="a", port=80)
EXPIRES_S = int(NOT_BEFORE.timestamp()) + 86400


def model_of(settings: Settings | None = None) -> Model:
    return Model(settings or Settings())


def tls_secret(name: str) -> Secret:
    key = keys()[0]
    data = {"tls.crt": pem(certificate_of(key, "a.example", days=1)), "tls.key": key_pem(key)}
    return Secret(
        metadata=ObjectMeta(name=name, namespace="shop"),
        type="kubernetes.io/tls",
        data={n: SecretBytes(v) for n, v in data.items()},
    )


def test_nothing_comes_of_nothing() -> None:
    assert not model_of().drain(now_s=0)


def test_endpoint_churn_touches_one_service_and_no_host() -> None:
    model = model_of()
    put(model, ingress("web", ("a.example", "/", "a")), service("a"), endpoint_slice("a", "10.0.0.1"))
    model.drain(now_s=0)
    put(model, endpoint_slice("a", "10.0.0.1", "10.0.0.2"))
    changes = model.drain(now_s=0)

    assert not changes.vhosts
    assert set(changes.services) == {A}


def test_what_nothing_refers_to_costs_nothing() -> None:
    model = model_of()
    put(
        model,
        service("a"),
        endpoint_slice("a", "10.0.0.1"),
        tls_secret("s"),
        ingress("other", ("a.example", "/", "a"), class_name="x"),
    )

    assert not model.drain(now_s=0)


def test_same_again_is_no_change() -> None:
    model = model_of()
    objects = (ingress("web", ("a.example", "/", "a")), service("a"), endpoint_slice("a", "10.0.0.1"))
    put(model, *objects)
    assert model.drain(now_s=0)
    put(model, *objects)

    assert not model.drain(now_s=0)


def test_service_goes_with_its_last_reference() -> None:
    model = model_of()
    put(model, ingress("one", ("a.example", "/", "a")), ingress("two", ("b.example", "/", "a")), service("a"))
    model.drain(now_s=0)
    delete(model, ingress("one"))
    assert not model.drain(now_s=0).services
    delete(model, ingress("two"))
    changes = model.drain(now_s=0)

    assert changes.services == {A: None}
    assert changes.vhosts == {host_key("b.example", ""): None}


def test_slice_moves_to_another_service() -> None:
    model = model_of()
    put(model, ingress("web", ("a.example", "/a", "a"), ("a.example", "/b", "b")), service("a"), service("b"))
    put(model, endpoint_slice("a", "10.0.0.1", name="s"))
    model.drain(now_s=0)
    put(model, endpoint_slice("b", "10.0.0.1", name="s"))
    changes = model.drain(now_s=0)

    endpoints = {key.name: found.endpoints for key, found in changes.services.items() if found is not None}
    assert endpoints == {"a": (), "b": (Endpoint(addr=bytes([10, 0, 0, 1]), port=8080),)}


def test_class_change_translates_only_its_ingresses(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    put(model, *(ingress(name, (f"{name}.example", "/", "a"), class_name=name) for name in ("fast", "slow", "atsk8s")))
    put(model, ingress("none", ("none.example", "/", "a"), class_name=None))
    model.drain(now_s=0)
    looked_at: list[str] = []
    real = ingresses.translate

    def translate(key: ObjectKey, obj: Ingress, shared: Shared, *, is_isolated: bool, snippets: SnippetRules) -> Claims:
        looked_at.append(key.name)
        return real(key, obj, shared, is_isolated=is_isolated, snippets=snippets)

    monkeypatch.setattr(claimants, "translate", translate)
    put(model, IngressClass(metadata=ObjectMeta(name="fast"), spec=IngressClassSpec(controller=CONTROLLER_NAME)))

    assert looked_at == ["fast"]
    assert set(model.drain(now_s=0).vhosts) == {host_key("fast.example", "")}


def test_default_class_comes_and_goes() -> None:
    model = model_of()
    fast = IngressClass(
        metadata=ObjectMeta(name="fast", annotations={"ingressclass.kubernetes.io/is-default-class": "true"}),
        spec=IngressClassSpec(controller=CONTROLLER_NAME),
    )
    put(model, ingress("none", ("none.example", "/", "a"), class_name=None), fast)
    assert model.drain(now_s=0).vhosts[host_key("none.example", "")]
    delete(model, fast)

    assert model.drain(now_s=0).vhosts == {host_key("none.example", ""): None}


def test_certificate_expires_without_a_change() -> None:
    model = model_of()
    put(model, tls_secret("s"), ingress("web", ("a.example", "/", "a"), tls={"a.example": "s"}))
    model.drain(now_s=EXPIRES_S - 1)
    ref = ObjectRef(kind="Secret", namespace="shop", name="s")
    assert model.verdict(ref) == ()
    changes = model.drain(now_s=EXPIRES_S)

    assert not changes
    assert changes.verdicts == (ref,)
    [condition] = model.verdict(ref)
    assert (condition.reason, condition.fatal) == (Reason.CERTIFICATE_EXPIRED, False)
    assert list(model.certificate_expiry()) == [(ObjectKey("shop", "s"), EXPIRES_S)]


def test_secret_comes_breaks_and_goes() -> None:
    model = model_of()
    key = ObjectKey("shop", "s")
    put(model, ingress("web", ("a.example", "/", "a"), tls={"a.example": "s"}))
    assert model.drain(now_s=0).empty_certificates == {key}
    put(model, tls_secret("s"))
    changes = model.drain(now_s=0)
    assert changes.certificates[key] is not None
    assert not changes.tls
    put(model, Secret(metadata=ObjectMeta(name="s", namespace="shop"), type="kubernetes.io/tls"))
    assert model.drain(now_s=0).empty_certificates == {key}
    delete(model, ingress("web"))
    changes = model.drain(now_s=0)

    assert changes.certificates == {key: None}
    assert not model.verdicts()


@pytest.mark.parametrize("how", ["nothing", "service", "slice", "external"])
def test_is_seen(how: str) -> None:
    model = model_of()
    match how:
        case "service":
            put(model, service("a"))
        case "slice":
            put(model, service("a"), endpoint_slice("a"))
        case "external":
            external = service("a")
            put(model, type(external)(metadata=external.metadata, spec=type(external.spec)(type="ExternalName")))

    assert model.is_seen(A) == (how in ("slice", "external"))


def test_fallback_options_need_no_object() -> None:
    model = model_of(Settings(default_backend=("shop", "a", 80), default_certificate=("shop", "s")))
    changes = model.drain(now_s=0)

    assert set(changes.vhosts) == set(changes.tls) == {FALLBACK}
    assert set(changes.services) == {A}
    assert changes.empty_certificates == {ObjectKey("shop", "s")}


def test_drain_that_fails_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    put(model, ingress("web", ("a.example", "/", "a"), ("b.example", "/", "a")), service("a"), endpoint_slice("a", "10.0.0.1"))

    def broken(*_: object) -> None:
        raise InvariantError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(state, "resolve_service", broken)
        with pytest.raises(InvariantError):
            model.drain(now_s=0)
    changes = model.drain(now_s=0)

    assert set(changes.vhosts) == {host_key("a.example", ""), host_key("b.example", "")}
    assert set(changes.services) == {A}


def test_reset_remembers_what_may_be_published() -> None:
    model = model_of()
    put(model, ingress("web", ("a.example", "/", "a")), ingress("any", ("", "/", "b")))
    model.drain(now_s=0)
    delete(model, ingress("web"))
    model.drain(now_s=0)  # its commit fails: a.example may still be published
    model.reset()
    put(model, ingress("any", ("", "/", "b")))
    changes = model.drain(now_s=0)

    assert changes.vhosts[host_key("a.example", "")] is None
    assert changes.vhosts[NO_HOST] is not None
    assert changes.services[A] is None


def test_unknown_kind_and_wrong_type() -> None:
    model = model_of()
    with pytest.raises(InvariantError):
        model.put(KindOf("Pod"), ObjectKey("a", "b"), None)
    with pytest.raises(InvariantError):
        model.put(KindOf("Secret"), ObjectKey("a", "b"), service("a"))
    model.put(KindOf("Namespace"), ObjectKey("", "shop"), None)


def test_strict_wildcard_frees_its_hosts_when_it_goes() -> None:
    model = model_of(Settings(tenancy=Tenancy.STRICT))
    star = ingress("star", ("*.x.example", "/", "a"), created_s=1)
    put(model, star, ingress("late", ("h.x.example", "/", "a"), namespace="other", created_s=2))
    model.drain(now_s=0)
    host = host_key("h.x.example", "")
    assert host not in model.state().vhosts
    delete(model, star)
    model.drain(now_s=0)

    assert model.state().vhosts[host]
    assert model.verdicts()[ObjectRef(kind="Ingress", namespace="other", name="late")] != ()  # its Service is missing, no more
    assert not any(c.reason == Reason.CONFLICT for c in model.conditions())


def test_certificates_follow_the_owner_of_the_routes() -> None:
    """A route that comes or goes decides whose certificate is served, though no `tls` has changed."""
    model = model_of()
    host = host_key("a.example", "")
    put(model, ingress("old", ("x.example", "/", "s"), tls={"a.example": "c"}, created_s=1))
    put(model, ingress("young", ("y.example", "/", "s"), tls={"a.example": "c"}, namespace="other", created_s=2))
    model.drain(now_s=0)
    route = ingress("route", ("a.example", "/", "s"), namespace="other", created_s=3)

    def served() -> str:
        policy = model.state().tls[host]
        assert policy is not None
        return policy.certificates[0].namespace

    assert served() == "shop"
    put(model, route)
    model.drain(now_s=0)
    assert served() == "other"
    delete(model, route)
    model.drain(now_s=0)
    assert served() == "shop"


def test_slice_that_goes_takes_its_endpoints() -> None:
    model = model_of()
    pods = endpoint_slice("a", "10.0.0.1")
    put(model, ingress("web", ("a.example", "/", "a")), service("a"), pods)
    model.drain(now_s=0)
    delete(model, pods)
    [changed] = model.drain(now_s=0).services.values()

    assert changed is not None
    assert changed.endpoints == ()


def test_strict_wildcard_takes_hosts_when_it_is_older() -> None:
    """A wildcard that arrives late and is older takes what younger Ingresses of others have, and gives it back."""
    model = model_of(Settings(tenancy=Tenancy.STRICT))
    put(model, *(ingress(f"h{i}", (f"h{i}.x.example", "/", "a"), namespace="other", created_s=5) for i in range(3)))
    model.drain(now_s=0)
    star = ingress("star", ("*.x.example", "/", "a"), created_s=1)
    put(model, star)
    changes = model.drain(now_s=0)
    taken = {host_key(f"h{i}.x.example", ""): None for i in range(3)}

    assert {key: value for key, value in changes.vhosts.items() if value is None} == taken
    delete(model, star)
    assert set(model.drain(now_s=0).vhosts) == {*taken, host_key("*.x.example", "")}


def test_strict_refusal_names_who_stands_in_the_way_now() -> None:
    model = model_of(Settings(tenancy=Tenancy.STRICT))
    first, second = (
        ingress(name, (f"{name}.x.example", "/", "a"), namespace=name, created_s=age) for name, age in (("b", 1), ("c", 2))
    )
    put(model, first, second, ingress("star", ("*.x.example", "/", "a"), created_s=5))
    model.drain(now_s=0)

    def blocker() -> list[str]:
        return [c.message.rpartition(" ")[2] for c in model.conditions() if c.object.name == "star" and c.reason == Reason.CONFLICT]

    assert blocker() == ["b"]
    delete(model, first)
    model.drain(now_s=0)
    assert blocker() == ["c"]
