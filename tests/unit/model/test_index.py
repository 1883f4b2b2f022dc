"""Claims and references."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import InvariantError
from atsk8s.model.index import ClaimIndex, References
from atsk8s.model.ingress import TlsClaim
from atsk8s.model.names import host_key

A, B = host_key("a.example", ""), host_key("b.example", "")


def claim(name: str, age: int, secret: str = "s") -> TlsClaim:
    return TlsClaim(object=ObjectKey("n", name), created_s=age, secrets=(ObjectKey("n", secret),))


def test_claims_are_kept_by_precedence() -> None:
    index: ClaimIndex[TlsClaim] = ClaimIndex()
    for name, age in (("y", 2), ("x", 1), ("z", 1)):
        assert index.replace((), [(A, claim(name, age))]) == [A]

    assert [c.object.name for c in index.get(A)] == ["x", "z", "y"]
    assert index.get(B) == ()


def test_only_what_differs_is_touched() -> None:
    index: ClaimIndex[TlsClaim] = ClaimIndex()
    old = [(A, claim("x", 1)), (B, claim("x", 1))]
    index.replace((), old)

    assert index.replace(old, [(A, claim("x", 1)), (B, claim("x", 1, "t"))]) == [B]
    assert index.replace([(A, claim("x", 1)), (B, claim("x", 1, "t"))], [(B, claim("x", 1, "t"))]) == [A]
    assert A not in index
    assert list(index) == [B]


def test_what_is_not_there_cannot_go() -> None:
    index: ClaimIndex[TlsClaim] = ClaimIndex()
    index.replace((), [(A, claim("x", 1))])
    with pytest.raises(InvariantError):
        index.replace([(A, claim("y", 1))], ())


def test_references() -> None:
    uses: References[str] = References()

    assert uses.add("a")
    assert not uses.add("a")
    assert not uses.remove("a")
    assert "a" in uses
    assert uses.remove("a")
    assert "a" not in uses
    assert len(uses) == 0
