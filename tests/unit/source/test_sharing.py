"""What objects share: equal values become one, and nothing else changes."""

from __future__ import annotations

import pytest

from atsk8s.api.networking import Ingress
from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, SERVICE, AnyKind
from atsk8s.source.kube import sharing
from atsk8s.source.kube.objects import ObjectReader

ING = (
    b'{"metadata":{"namespace":"ns","name":"%d"},"spec":{"ingressClassName":"some-class","rules":[{"host":"h%d.example",'
    b'"http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":80}}}}]}}]}}'
)
SVC = b'{"metadata":{"namespace":"ns","name":"%d"},"spec":{"type":"ClusterIP","ports":[{"name":"http","port":80}]}}'
SLICE = (
    b'{"metadata":{"namespace":"ns","name":"%d"},"addressType":"IPv4","ports":[{"name":"http","port":8080}],'
    b'"endpoints":[{"addresses":["192.0.2.1"]}]}'
)


def reader(kind: AnyKind) -> ObjectReader[Ingress]:
    return ObjectReader(kind, lambda _: False)


def test_two_ingresses_share_what_is_equal() -> None:
    read = reader(INGRESS).read
    found = [read(ING % (i, i))[2] for i in range(2)]
    a, b = found
    assert isinstance(a, Ingress)
    assert isinstance(b, Ingress)

    assert [rule.host for rule in (*a.spec.rules, *b.spec.rules)] == ["h0.example", "h1.example"]
    assert a.spec.rules[0].http is b.spec.rules[0].http
    assert a.spec.ingress_class_name is b.spec.ingress_class_name
    assert a.metadata.namespace is b.metadata.namespace


@pytest.mark.parametrize(("kind", "raw"), [(INGRESS, ING % (1, 1)), (SERVICE, SVC % 1), (ENDPOINT_SLICE, SLICE % 1)])
def test_sharing_changes_no_value(kind: AnyKind, raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    one = reader(kind)
    shared = [one.read(raw)[2] for _ in range(3)]
    monkeypatch.setattr(sharing.Sharing, "share", lambda _, obj: obj)
    assert shared == [reader(kind).read(raw)[2]] * 3


def test_long_lists_of_paths_are_not_kept() -> None:
    path = b'{"path":"/%d","pathType":"Prefix","backend":{"service":{"name":"s","port":{"number":80}}}}'
    paths = b",".join(path % i for i in range(sharing.SHARED_PATHS_MAX + 1))
    raw = b'{"metadata":{"namespace":"ns","name":"x"},"spec":{"rules":[{"http":{"paths":[%b]}}]}}' % paths
    read = reader(INGRESS).read
    a, b = (read(raw)[2] for _ in range(2))
    assert isinstance(a, Ingress)
    assert isinstance(b, Ingress)

    assert a.spec.rules[0].http == b.spec.rules[0].http
    assert a.spec.rules[0].http is not b.spec.rules[0].http


def test_a_pool_is_bounded() -> None:
    pool: sharing._Pool[int] = sharing._Pool()
    for i in range(3 * sharing.KEPT_MAX):
        assert pool.get(i) == i
    assert len(pool._kept) <= sharing.KEPT_MAX
