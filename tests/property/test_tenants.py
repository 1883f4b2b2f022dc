"""Many teams on one proxy: what two hostile namespaces do changes nothing of what a third one's hosts serve."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atsk8s.api.meta import KubeObject, ObjectKey
from atsk8s.compile.encode import encode
from atsk8s.model.access import Access
from atsk8s.model.grants import Grant, is_granted
from atsk8s.model.ir import HostKey, ObjectRef, Place
from atsk8s.model.names import host_text
from atsk8s.model.state import Model
from atsk8s.settings import Settings, Tenancy
from tests.property.strategies import options, tenants
from tests.property.strategies.steps import Delete, Drain, KindOf, Put, Step
from tests.property.strategies.tenants import Regrant

NOW_S = 1_780_000_000
VICTIM, HOSTILE = "third", ("m", "n")
PATHS = ("/", "/p", "/p/q", "/none", "/.well-known/acme-challenge/token")
Objects = dict[tuple[str, ObjectKey], KubeObject]


def do(model: Model, steps: list[Step]) -> Model:
    for step in steps:
        match step:
            case Drain():
                model.drain(now_s=NOW_S)
            case Put():
                model.put(KindOf(step.kind), step.obj.key, step.obj)
            case Delete():
                model.put(KindOf(step.kind), step.key, None)
    return model


def served(model: Model, host: str) -> list[object]:
    """What becomes of requests for a host, and of handshakes."""
    found: list[object] = []
    for path in PATHS:
        answer = model.explain(host, path)
        found.append({what: answer.get(what) for what in ("virtual_host", "matched", "rule", "services", "tls")})
    return found


def names_under(key: HostKey) -> str:
    return key.host if key.place is Place.EXACT else f"some.{key.host}"


def assert_unharmed(alone: Model, among: Model) -> None:
    """Bytes, certificates, endpoints and answers of the hosts that the third namespace has are what they are without the others."""
    mine, all_there_is = alone.state(), among.state()
    for key, vhost in mine.vhosts.items():
        there = all_there_is.vhosts[key]
        assert vhost is not None
        assert there is not None
        assert encode(there) == encode(vhost)
        if key.place in (Place.EXACT, Place.WILDCARD):
            assert served(among, names_under(key)) == served(alone, names_under(key))
        # Of a host that it has a certificate for and no route, the certificate is the router's business.
        assert all_there_is.tls.get(key) == mine.tls.get(key)
        policy = mine.tls.get(key)
        for secret in policy.certificates if policy is not None else ():
            assert all_there_is.certificates.get(secret) == mine.certificates.get(secret)
    assert {key: all_there_is.services.get(key) for key in mine.services} == mine.services


LIMITS = st.sampled_from((0, 0, 2, 5))
limited = st.builds(
    Settings, max_hosts_per_namespace=LIMITS, max_routes_per_namespace=LIMITS, max_certificates_per_namespace=LIMITS
)


@given(
    settings=limited,
    own=tenants.tenant_steps((VICTIM,), 0, 2),
    hostile=tenants.tenant_steps(HOSTILE, 3, 9),
    data=st.data(),
)
def test_strict_protects_who_was_there_before(
    settings: Settings, own: list[Step], hostile: list[Step], data: st.DataObject
) -> None:
    settings = replace(settings, tenancy=Tenancy.STRICT)
    among = do(Model(settings), _mixed(data, own, hostile))
    alone = do(Model(settings), own)
    among.drain(now_s=NOW_S)
    alone.drain(now_s=NOW_S)

    assert_unharmed(alone, among)


@given(
    settings=limited,
    tenancy=st.sampled_from(Tenancy),
    grants=tenants.grants_for(VICTIM, HOSTILE),
    own=tenants.tenant_steps((VICTIM,), 0, 9),
    hostile=tenants.tenant_steps(HOSTILE, 0, 9),
    data=st.data(),
)
def test_grants_protect_whatever_is_older(
    settings: Settings,
    tenancy: Tenancy,
    grants: tuple[Grant, ...],
    own: list[Step],
    hostile: list[Step],
    data: st.DataObject,
) -> None:
    settings = replace(settings, tenancy=tenancy)
    among, alone = Model(settings), Model(settings)
    among.set_grants(grants)
    alone.set_grants(grants)
    do(among, _mixed(data, own, hostile)).drain(now_s=NOW_S)
    do(alone, own).drain(now_s=NOW_S)

    assert_unharmed(alone, among)
    for key, vhost in among.state().vhosts.items():
        assert vhost is not None
        rules = [*vhost.rules, *((vhost.default,) if vhost.default else ())]
        name = host_text(key) if key.place in (Place.EXACT, Place.WILDCARD) else ""
        assert all(is_granted(grants, name, rule.object.namespace) for rule in rules)


def _mixed(data: st.DataObject, own: list[Step], hostile: list[Step]) -> list[Step]:
    """Both, each in its own order."""
    turns = data.draw(st.permutations([True] * len(own) + [False] * len(hostile)))
    one, other = iter(own), iter(hostile)
    return [next(one if mine else other) for mine in turns]


@given(settings=options.settings, steps=tenants.granted_steps)
def test_increments_equal_a_rebuild_under_grants_and_limits(settings: Settings, steps: list[Step | Regrant]) -> None:
    """As test_state's, while the list of grants changes."""
    model, objects = Model(settings), Objects()
    grants: tuple[Grant, ...] | None = None
    for step in steps:
        match step:
            case Regrant():
                grants = step.grants
                model.set_grants(grants)
            case Drain():
                if step.fails:
                    model.reset()
                    for (kind, key), obj in objects.items():
                        model.put(KindOf(kind), key, obj)
                model.drain(now_s=NOW_S)
            case Put():
                objects[step.kind, step.obj.key] = step.obj
                model.put(KindOf(step.kind), step.obj.key, step.obj)
            case Delete():
                objects.pop((step.kind, step.key), None)
                model.put(KindOf(step.kind), step.key, None)
    model.drain(now_s=NOW_S)
    rebuilt = Model(settings)
    rebuilt.set_grants(grants)
    for (kind, key), obj in objects.items():
        rebuilt.put(KindOf(kind), key, obj)
    first = rebuilt.drain(now_s=NOW_S)

    assert model.state() == rebuilt.state()
    assert first.vhosts == rebuilt.state().vhosts
    assert model.verdicts() == rebuilt.verdicts()
    assert {ref: model.verdict(ref) for ref in _refs(objects)} == {ref: rebuilt.verdict(ref) for ref in _refs(objects)}


def _refs(objects: Objects) -> list[ObjectRef]:
    return [ObjectRef(kind=kind, namespace=key.namespace, name=key.name) for kind, key in objects]


HOST_TEXTS = st.sampled_from(
    ("w.example", "v.w.example", "*.w.example", "example", "*.example", "a.v.w.example", "a.b", "ab", "x", "xw.example")
)


@given(grants=tenants.grants, host=HOST_TEXTS, namespace=st.sampled_from(("a", "b", "c")))
def test_the_look_up_says_what_the_list_says(grants: tuple[Grant, ...] | None, host: str, namespace: str) -> None:
    """`Access` finds entries by name, grants.is_granted asks each."""
    key = HostKey(place=Place.WILDCARD, host=host[2:]) if host.startswith("*.") else HostKey(place=Place.EXACT, host=host)
    access = Access(grants, is_strict=False)
    expected = grants is None or (bool(grants) and is_granted(grants, host, namespace))
    assert (access.refusal(key, namespace) == "") is expected
    every = HostKey(place=Place.NO_HOST)
    assert (access.refusal(every, namespace) == "") is (grants is None or (bool(grants) and is_granted(grants, "", namespace)))
