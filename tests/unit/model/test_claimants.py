"""Whose Ingresses take part: grants, limits and labels as they change, and what that costs."""

from __future__ import annotations

import pytest

from atsk8s.api.core import Namespace
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.config import parse_settings
from atsk8s.errors import Reason, SettingsError
from atsk8s.label_selector import parse_label_selector
from atsk8s.model import ingress as ingress_module
from atsk8s.model.grants import parse_domain_access_list
from atsk8s.model.ir import ObjectRef
from atsk8s.model.names import host_key
from atsk8s.model.quotas import NamespaceQuota
from atsk8s.model.state import Model
from atsk8s.settings import Settings, Tenancy
from tests.unit.model.objects import delete, ingress, put


def hosts(model: Model) -> set[str]:
    model.drain(now_s=0)
    return {key.host for key in model.state().vhosts}


def reasons(model: Model, name: str, namespace: str = "shop") -> list[str]:
    return [str(one.reason) for one in model.verdict(ObjectRef(kind="Ingress", namespace=namespace, name=name))]


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(metadata=ObjectMeta(name=name, labels=labels))


def test_a_namespace_gains_and_loses_its_label() -> None:
    model = Model(Settings(namespace_selector=parse_label_selector("team")))
    one, other = namespace("shop"), namespace("shop", team="x")
    put(model, ingress("a", ("a.example", "/", "a")), one)
    assert hosts(model) == set()
    put(model, other)
    assert hosts(model) == {"a.example"}
    put(model, ingress("b", ("b.example", "/", "a")))
    assert hosts(model) == {"a.example", "b.example"}
    put(model, one)
    assert hosts(model) == set()
    put(model, other)
    delete(model, other)
    assert hosts(model) == set()


def test_grants_come_change_and_go() -> None:
    model = Model(Settings())
    put(model, ingress("a", ("a.example", "/", "a"), ("b.example", "/", "a"), tls={"b.example": "pair"}))
    assert hosts(model) == {"a.example", "b.example"}
    model.set_grants(parse_domain_access_list("a.example:shop b.example:other"))
    assert hosts(model) == {"a.example"}
    assert not model.state().tls
    assert reasons(model, "a").count(Reason.FORBIDDEN) == 2
    model.set_grants(())
    assert hosts(model) == set()
    model.set_grants(None)
    assert hosts(model) == {"a.example", "b.example"}
    assert Reason.FORBIDDEN not in reasons(model, "a")


def test_the_option_holds_and_configmaps_add_to_it() -> None:
    settings = parse_settings(["--manifests=/m", "--domain-access-list=a.example:shop;*:infra"], {})
    model = Model(settings)
    put(model, ingress("a", ("a.example", "/", "a"), ("b.example", "/", "a")))
    assert hosts(model) == {"a.example"}
    model.set_grants(parse_domain_access_list("b.example:shop"))
    assert hosts(model) == {"a.example", "b.example"}
    model.set_grants(None)
    assert hosts(model) == {"a.example"}
    model.reset()
    put(model, ingress("b", ("b.example", "/", "a")))
    assert hosts(model) == set()


def test_a_bad_option_is_named() -> None:
    with pytest.raises(SettingsError, match="option --domain-access-list entry 'shop' has no ':'"):
        Model(parse_settings(["--manifests=/m", "--domain-access-list=a.example:shop;shop"], {}))
    with pytest.raises(SettingsError, match="is empty"):
        parse_settings(["--manifests=/m", "--domain-access-list= ; "], {})
    with pytest.raises(SettingsError, match="which is no namespace's name"):
        parse_settings(["--manifests=/m", "--watch-namespaces=a/b"], {})
    assert parse_settings([], {"INGRESS_NS": "Shop,b", "INGRESS_IGNORE_NS": "Kube-System"}).watch_namespaces == ("b", "shop")


def test_hosts_beyond_the_named_ones_are_counted() -> None:
    model = Model(Settings(domain_access_list="x.example:nobody"))
    put(model, ingress("a", *((f"h{i}.example", "/", "a") for i in range(30))))
    model.drain(now_s=0)
    found = model.verdict(ObjectRef(kind="Ingress", namespace="shop", name="a"))
    assert len([one for one in found if one.reason == Reason.FORBIDDEN]) == 9
    assert any("22 more hosts" in one.message for one in found)


def test_an_older_one_pushes_the_youngest_out_and_lets_it_in_again() -> None:
    model = Model(Settings(max_hosts_per_namespace=2))
    young, middle = ingress("y", ("y.example", "/", "a"), created_s=3), ingress("m", ("m.example", "/", "a"), created_s=2)
    put(model, young, middle)
    assert hosts(model) == {"m.example", "y.example"}
    old = ingress("o", ("o.example", "/", "a"), created_s=1)
    put(model, old)
    assert hosts(model) == {"m.example", "o.example"}
    assert reasons(model, "y") == [Reason.LIMIT_EXCEEDED]
    put(model, ingress("o", ("o.example", "/", "a"), ("p.example", "/", "a"), created_s=1))
    assert hosts(model) == {"o.example", "p.example"}
    delete(model, old)
    assert hosts(model) == {"m.example", "y.example"}
    put(model, ingress("other", ("z.example", "/", "a"), namespace="elsewhere"))
    assert "z.example" in hosts(model)


def test_what_grants_refuse_counts_for_nothing() -> None:
    model = Model(Settings(max_hosts_per_namespace=1, domain_access_list="a.example:shop"))
    put(model, ingress("old", ("b.example", "/", "a"), created_s=1), ingress("young", ("a.example", "/", "a"), created_s=2))
    assert hosts(model) == {"a.example"}


def test_a_change_beyond_the_limit_looks_at_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many Ingresses a namespace makes, only what moves in or out is looked at."""
    model = Model(Settings(max_routes_per_namespace=10))
    put(model, *(ingress(f"i{i}", (f"h{i}.example", "/", "a"), created_s=i) for i in range(2000)))
    model.drain(now_s=0)
    looked_at = 0
    real = NamespaceQuota._has_room

    def count(self: NamespaceQuota, claims: ingress_module.Claims) -> bool:
        nonlocal looked_at
        looked_at += 1
        return real(self, claims)

    monkeypatch.setattr(NamespaceQuota, "_has_room", count)
    put(model, ingress("i0", ("h0.example", "/", "a"), ("g0.example", "/", "a"), created_s=0))
    put(model, ingress("i1999", ("x.example", "/", "a"), created_s=1999))
    assert looked_at <= 4
    assert hosts(model) == {"g0.example", *(f"h{i}.example" for i in range(9))}


def test_every_host_is_nobodys_under_strict_tenancy() -> None:
    model = Model(Settings(tenancy=Tenancy.STRICT))
    put(model, ingress("any", ("", "/", "a")), ingress("default", default="a"))
    assert hosts(model) == set()
    assert Reason.FORBIDDEN in reasons(model, "any")
    assert Reason.FORBIDDEN in reasons(model, "default")
    model.set_grants(parse_domain_access_list("*:shop"))
    model.drain(now_s=0)
    assert len(model.state().vhosts) == 2


def test_a_younger_wildcard_takes_no_certificate_away() -> None:
    """Neither a route nor a certificate that comes later changes what an older wildcard certificate is shown for."""
    model = Model(Settings(tenancy=Tenancy.STRICT))
    put(model, ingress("v", ("shop.a.example", "/", "a"), tls={"*.a.example": "pair"}, created_s=1))
    model.drain(now_s=0)
    policy = model.state().tls[host_key("*.a.example", "")]
    put(
        model,
        ingress("m", ("*.a.example", "/", "m"), namespace="mallory", created_s=2),
        ingress("n", ("m.a.example", "/", "m"), tls={"*.a.example": "mine"}, namespace="mallory", created_s=2),
    )
    model.drain(now_s=0)
    assert model.state().tls == {host_key("*.a.example", ""): policy}
    assert policy == model.state().tls[host_key("*.a.example", "")]
    assert policy is not None
    assert policy.certificates == (ObjectKey("shop", "pair"),)


def test_huge_objects_cost_themselves() -> None:
    model = Model(Settings())
    put(model, ingress("rules", *((f"h{i}.example", "/", "a") for i in range(ingress_module.HOSTS_MAX + 1))))
    put(model, ingress("tls", ("a.example", "/", "a"), tls={f"h{i}.example": "pair" for i in range(ingress_module.HOSTS_MAX + 1)}))
    put(model, ingress("bad", *(("b.example", f"no-slash-{i}", "a") for i in range(500))))
    assert hosts(model) == {"b.example"}
    assert reasons(model, "rules") == reasons(model, "tls") == [Reason.TOO_LARGE]
    assert len(reasons(model, "bad")) <= ingress_module.CONDITIONS_MAX + 1
