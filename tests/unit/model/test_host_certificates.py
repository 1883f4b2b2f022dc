"""Certificates of `tls-certificates`: which hosts get one, and when they lose it again."""

from __future__ import annotations

from atsk8s.api.meta import ObjectKey
from atsk8s.model.host_certificates import HostCertificate, parse_tls_certificates
from atsk8s.model.ir import TlsPolicy
from atsk8s.model.names import host_key
from atsk8s.model.state import Model
from atsk8s.settings import Settings, Tenancy
from tests.unit.model.objects import delete, ingress, put, service

LISTED = parse_tls_certificates("*.a.example:certs/wild b.example:certs/b")


def policies(model: Model) -> dict[str, str | None]:
    """What drain says of TLS: host to its Secrets."""
    found = model.drain(now_s=0).tls
    return {f"{key.place.name} {key.host}": ",".join(map(str, tls.certificates)) if tls else None for key, tls in found.items()}


def model_of(*, tenancy: Tenancy = Tenancy.SHARED, listed: tuple[HostCertificate, ...] = LISTED) -> Model:
    model = Model(Settings(tenancy=tenancy))
    model.drain(now_s=0)
    model.set_host_certificates(listed)
    return model


def test_a_host_with_routes_gets_the_first_that_matches() -> None:
    for tenancy in Tenancy:
        model = model_of(tenancy=tenancy)
        put(model, ingress("web", *((host, "/", "s") for host in ("www.a.example", "*.a.example", "a.example", "")), tls={}))
        assert policies(model) == {"EXACT www.a.example": "certs/wild", "WILDCARD a.example": "certs/wild"}


def test_an_ingress_s_own_comes_before_it_and_after_it() -> None:
    model = model_of()
    put(model, ingress("web", ("b.example", "/", "s"), tls={"b.example": "own"}), service("s"))
    assert policies(model) == {"EXACT b.example": "shop/own"}
    put(model, ingress("web", ("b.example", "/", "s")))
    assert policies(model) == {"EXACT b.example": "certs/b"}
    put(model, ingress("web", ("b.example", "/", "s"), tls={"b.example": "own"}))
    assert policies(model) == {"EXACT b.example": "shop/own"}
    delete(model, ingress("web"))
    assert policies(model) == {"EXACT b.example": None}


def test_a_list_that_changes_reaches_hosts_that_are_there() -> None:
    model = model_of(listed=())
    put(model, ingress("web", ("b.example", "/", "s"), ("c.example", "/", "s")))
    assert policies(model) == {}
    model.set_host_certificates(LISTED)
    assert policies(model) == {"EXACT b.example": "certs/b"}
    model.set_host_certificates(parse_tls_certificates("*:certs/all"))
    assert policies(model) == {"EXACT b.example": "certs/all", "EXACT c.example": "certs/all"}
    model.set_host_certificates(())
    assert policies(model) == {"EXACT b.example": None, "EXACT c.example": None}


def test_a_rebuild_gives_the_same() -> None:
    model = model_of()
    put(model, ingress("web", ("b.example", "/", "s")))
    before = model.drain(now_s=0).tls
    model.reset()
    put(model, ingress("web", ("b.example", "/", "s")))
    assert model.drain(now_s=0).tls == before
    b = host_key("b.example", "")
    assert before == {b: TlsPolicy(key=b, certificates=(ObjectKey("certs", "b"),))}


def test_routes_of_another_class_get_none() -> None:
    model = model_of()
    put(model, ingress("web", ("b.example", "/", "s"), class_name="other"))
    assert policies(model) == {}
