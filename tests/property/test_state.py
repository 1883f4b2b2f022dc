"""However changes come and are drained, the sum is what one drain of the final objects gives: values, bytes, verdicts, commits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atsk8s.api.meta import KubeObject, ObjectKey
from atsk8s.compile.decode import decode, decode_endpoints
from atsk8s.compile.diff import (
    Call,
    DropCertificate,
    DropService,
    DropTls,
    DropVhost,
    EmptyCertificate,
    NameService,
    Published,
    PutCertificate,
    PutService,
    PutTls,
    PutVhost,
)
from atsk8s.compile.encode import Blob, encode
from atsk8s.model.changes import Changes
from atsk8s.model.ir import HostKey, Place
from atsk8s.model.names import wildcard_over
from atsk8s.model.state import Model
from atsk8s.settings import Settings, Tenancy
from tests.property.strategies import options
from tests.property.strategies import steps as histories
from tests.property.strategies.steps import Delete, Drain, KindOf, Put, Step

NOW_S = 1_780_000_000  # one of the certificates has expired, the others have not

Objects = dict[tuple[str, ObjectKey], KubeObject]


class Core:
    """The C core as far as ids go: refuses what it would refuse."""

    def __init__(self) -> None:
        self.services: dict[int, object] = {}
        self.certificates: dict[int, object] = {}
        self.vhosts: dict[HostKey, PutVhost] = {}
        self.tls: dict[HostKey, PutTls] = {}
        self.gone: set[int] = set()

    def commit(self, calls: tuple[Call, ...]) -> None:
        for call in calls:
            match call:
                case PutService() | NameService():
                    assert call.id not in self.gone, "an id is used again"
                    what = decode_endpoints(call.records) if isinstance(call, PutService) else (call.name, call.port)
                    self.services[call.id] = (what, call.max_failures)
                case PutCertificate() | EmptyCertificate():
                    assert call.id not in self.gone, "an id is used again"
                    self.certificates[call.id] = call.certificate if isinstance(call, PutCertificate) else None
                case PutVhost():
                    assert all(place in self.services for place in call.services)
                    self.vhosts[call.key] = call
                case PutTls():
                    assert all(place in self.certificates for place in call.certificates)
                    self.tls[call.key] = call
                case DropVhost():
                    del self.vhosts[call.key]
                case DropTls():
                    del self.tls[call.key]
                case DropService():
                    assert not any(call.id in vhost.services for vhost in self.vhosts.values()), "dropped a service in use"
                    del self.services[call.id]
                    self.gone.add(call.id)
                case DropCertificate():
                    assert not any(call.id in policy.certificates for policy in self.tls.values())
                    del self.certificates[call.id]
                    self.gone.add(call.id)
        routes = [place for vhost in self.vhosts.values() for place in vhost.routes]
        assert len(routes) == len(set(routes)), "two routes share their state"

    def assert_holds(self, state: Changes) -> None:
        assert self.vhosts.keys() == state.vhosts.keys()
        assert self.tls.keys() == state.tls.keys()
        assert len(self.services) == len(state.services)
        assert len(self.certificates) == len(state.certificates) + len(state.empty_certificates)
        for key, vhost in state.vhosts.items():
            assert vhost is not None
            published, blob = self.vhosts[key], encode(vhost)
            assert published.blob == blob.data
            assert decode(Blob(data=published.blob, services=blob.services, routes=blob.routes), key) == vhost
            for place, service_key in zip(published.services, blob.services, strict=True):
                service = state.services[service_key]
                assert service is not None
                named = (service.external_name, service.external_port)
                what = named if service.external_name else service.endpoints
                assert self.services[place] == (what, service.max_failures)
        for key, policy in state.tls.items():
            assert policy is not None
            found = [self.certificates[place] for place in self.tls[key].certificates]
            assert found == [state.certificates.get(secret) for secret in policy.certificates]


def apply(mirror: Changes, changes: Changes) -> Changes:
    def merged(old: object, new: object) -> dict[object, object]:
        assert isinstance(old, dict)
        assert isinstance(new, dict)
        return {key: value for key, value in {**old, **new}.items() if value is not None}

    certificates = {k: v for k, v in mirror.certificates.items() if k not in changes.empty_certificates}
    empty = (mirror.empty_certificates - changes.certificates.keys()) | changes.empty_certificates
    return Changes(
        vhosts=merged(mirror.vhosts, changes.vhosts),  # type: ignore[arg-type]
        tls=merged(mirror.tls, changes.tls),  # type: ignore[arg-type]
        services=merged(mirror.services, changes.services),  # type: ignore[arg-type]
        certificates=merged(certificates, changes.certificates),  # type: ignore[arg-type]
        empty_certificates=empty,
    )


def load(model: Model, objects: Objects) -> None:
    for (kind, key), obj in objects.items():
        model.put(KindOf(kind), key, obj)


def take(model: Model, objects: Objects, step: Put | Delete) -> None:
    key = step.obj.key if isinstance(step, Put) else step.key
    if isinstance(step, Put):
        objects[step.kind, key] = step.obj
    else:
        objects.pop((step.kind, key), None)
    model.put(KindOf(step.kind), key, objects.get((step.kind, key)))


@given(settings=options.settings, steps=histories.steps)
def test_increments_equal_a_rebuild(settings: Settings, steps: list[Step]) -> None:
    """After any sequence of changes, drains and failed commits: the state, what the drains add up to, what the core holds, and the
    verdicts are those of a model that saw the final objects alone."""
    model, published, core, objects, mirror = Model(settings), Published(), Core(), Objects(), Changes()
    for step in [*steps, Drain(fails=False)]:
        if not isinstance(step, Drain):
            take(model, objects, step)
            continue
        changes = model.drain(now_s=NOW_S)
        plan = published.plan(changes)
        if step.fails:
            model.reset()
            load(model, objects)
        else:
            mirror = apply(mirror, changes)
            core.commit(plan.calls)
            published.accept(plan)
    rebuilt = Model(settings)
    load(rebuilt, objects)
    first = rebuilt.drain(now_s=NOW_S)

    assert model.state() == rebuilt.state() == apply(Changes(), first)
    assert mirror == model.state()
    assert model.verdicts() == rebuilt.verdicts()
    core.assert_holds(model.state())
    assert not model.drain(now_s=NOW_S)


@given(tenancy=st.sampled_from(Tenancy), steps=histories.contests)
def test_ownership_is_stateless(tenancy: Tenancy, steps: list[Step]) -> None:
    """Hosts and certificates go back and forth between namespaces as Ingresses come and go; whose they are in the end depends on
    what is there, and not on how it came about."""
    settings = Settings(tenancy=tenancy)
    model, objects = Model(settings), Objects()
    for step in steps:
        if isinstance(step, Drain):
            model.drain(now_s=NOW_S)
        else:
            take(model, objects, step)
    model.drain(now_s=NOW_S)
    rebuilt = Model(settings)
    load(rebuilt, objects)
    rebuilt.drain(now_s=NOW_S)

    assert model.state() == rebuilt.state()
    assert model.verdicts() == rebuilt.verdicts()
    if tenancy is Tenancy.STRICT:
        vhosts = [vhost for vhost in model.state().vhosts.values() if vhost is not None]
        owners = {vhost.key: {rule.object.namespace for rule in vhost.rules} for vhost in vhosts}
        assert all(len(namespaces) == 1 for namespaces in owners.values())
        star = HostKey(place=Place.WILDCARD, host="w.example")
        under = [owners[key] for key in owners if wildcard_over(key) == star]
        assert star not in owners or all(namespaces == owners[star] for namespaces in under)


@given(settings=options.settings, steps=histories.steps, data=st.data())
def test_order_of_arrival_changes_nothing(settings: Settings, steps: list[Step], data: st.DataObject) -> None:
    """A permutation of the objects changes no value, no byte and no verdict."""
    objects = Objects()
    for step in steps:
        if isinstance(step, Put):
            objects[step.kind, step.obj.key] = step.obj
    one, other = Model(settings), Model(settings)
    load(one, objects)
    load(other, dict(data.draw(st.permutations(list(objects.items())))))
    one.drain(now_s=NOW_S)
    other.drain(now_s=NOW_S)

    assert one.state() == other.state()
    assert one.verdicts() == other.verdicts()
    for key, vhost in one.state().vhosts.items():
        mirrored = other.state().vhosts[key]
        assert vhost is not None
        assert mirrored is not None
        assert encode(vhost) == encode(mirrored)


@given(settings=options.settings, steps=histories.steps)
def test_explain_and_dump_take_any_state(settings: Settings, steps: list[Step]) -> None:
    """Neither fails, whatever there is; nothing secret is in them."""
    model = Model(settings)
    for step in steps:
        if isinstance(step, Put):
            model.put(KindOf(step.kind), step.obj.key, step.obj)
    model.drain(now_s=NOW_S)

    shown = repr(model.dump()) + repr(
        [model.explain(host, "/p/q") for host in ("w.example", "v.w.example:80", "?", "none.example")]
    )
    assert "PRIVATE" not in shown
    assert "key_der" not in shown
