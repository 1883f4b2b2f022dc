"""The Ingress v1 examples, one by one (Kubernetes documentation, Ingress, "Examples"), and the conformance suite's path rules."""

from __future__ import annotations

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.model.ir import PathMatchKind, Rule, VirtualHost
from atsk8s.model.matching import match_rule
from atsk8s.model.names import NO_HOST
from atsk8s.model.paths import match_path
from atsk8s.model.precedence import rule_order

EXACT, PREFIX = PathMatchKind.EXACT, PathMatchKind.PREFIX


def rule(kind: PathMatchKind, path: str) -> Rule:
    return Rule(object=ObjectKey("a", "x"), kind=kind, path=match_path(kind, path, "p"), path_as_written=path, backends=())


@pytest.mark.parametrize(
    ("rules", "request_path", "wins"),
    [
        ([(PREFIX, "/")], "/anything", "/"),
        ([(EXACT, "/foo")], "/foo", "/foo"),
        ([(EXACT, "/foo")], "/bar", None),
        ([(EXACT, "/foo")], "/foo/", None),
        ([(EXACT, "/foo")], "/FOO", None),
        ([(EXACT, "/foo/")], "/foo", None),
        ([(PREFIX, "/foo")], "/foo", "/foo"),
        ([(PREFIX, "/foo")], "/foo/", "/foo"),
        ([(PREFIX, "/foo/")], "/foo", "/foo/"),
        ([(PREFIX, "/foo/")], "/foo/", "/foo/"),
        ([(PREFIX, "/aaa/bb")], "/aaa/bbb", None),
        ([(PREFIX, "/aaa/bbb")], "/aaa/bbb", "/aaa/bbb"),
        ([(PREFIX, "/aaa/bbb/")], "/aaa/bbb", "/aaa/bbb/"),
        ([(PREFIX, "/aaa/bbb")], "/aaa/bbb/", "/aaa/bbb"),
        ([(PREFIX, "/aaa/bbb")], "/aaa/bbb/ccc", "/aaa/bbb"),
        ([(PREFIX, "/aaa/bbb")], "/aaa/bbbxyz", None),
        ([(PREFIX, "/"), (PREFIX, "/aaa")], "/aaa/ccc", "/aaa"),
        ([(PREFIX, "/"), (PREFIX, "/aaa"), (PREFIX, "/aaa/bbb")], "/aaa/bbb", "/aaa/bbb"),
        ([(PREFIX, "/"), (PREFIX, "/aaa"), (PREFIX, "/aaa/bbb")], "/ccc", "/"),
        ([(PREFIX, "/aaa")], "/ccc", None),
        ([(PREFIX, "/aaa")], "/aaaccc", None),
        ([(PREFIX, "/foo"), (EXACT, "/foo/bar")], "/foo/bar", "/foo/bar"),
        ([(PREFIX, "/foo"), (EXACT, "/foo/bar")], "/foo/bar/", "/foo"),
        ([(EXACT, "/")], "/", "/"),
        ([(EXACT, "/")], "/a", None),
    ],
)
def test_documented_examples(rules: list[tuple[PathMatchKind, str]], request_path: str, wins: str | None) -> None:
    vhost = VirtualHost(key=NO_HOST, rules=tuple(sorted((rule(*r) for r in rules), key=rule_order)))
    found = match_rule(vhost, request_path)

    assert (found.path_as_written if found else None) == wins


def test_exact_wins_at_equal_length() -> None:
    vhost = VirtualHost(key=NO_HOST, rules=(rule(EXACT, "/foo"), rule(PREFIX, "/foo")))

    assert match_rule(vhost, "/foo") == rule(EXACT, "/foo")
    assert match_rule(vhost, "/foo/bar") == rule(PREFIX, "/foo")


def test_default_is_for_what_nothing_matches() -> None:
    default = rule(PREFIX, "/")
    vhost = VirtualHost(key=NO_HOST, rules=(rule(EXACT, "/foo"),), default=default)

    assert match_rule(vhost, "/bar") is default
