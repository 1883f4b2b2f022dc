"""Paths of rules."""

from __future__ import annotations

import pytest

from atsk8s.errors import Reason, RejectError
from atsk8s.model.ir import PathMatchKind
from atsk8s.model.normalise import normalise_path
from atsk8s.model.paths import RULE_PATH_BYTES_MAX, match_kind, match_path

EXACT, PREFIX = PathMatchKind.EXACT, PathMatchKind.PREFIX


@pytest.mark.parametrize(
    ("kind", "written", "normal"),
    [
        (EXACT, "/foo", "/foo"),
        (EXACT, "/foo/", "/foo/"),
        (PREFIX, "/foo/", "/foo"),
        (PREFIX, "/", "/"),
        (PREFIX, "", "/"),
        (PREFIX, "//", "/"),
        (EXACT, "/", "/"),
        (PREFIX, "/a/./b/../c", "/a/c"),
        (EXACT, "/a/..", "/"),
        (PREFIX, "/%41%2f%7e", "/A%2F~"),
        (EXACT, "/é", "/%C3%A9"),
        (EXACT, "/a b", "/a%20b"),
        (EXACT, "/.well-known/acme-challenge/x_-Y", "/.well-known/acme-challenge/x_-Y"),
        (PREFIX, "/(a|b)*", "/(a|b)*"),
        (EXACT, "/" + "x" * 2999, "/" + "x" * 2999),
    ],
)
def test_normal_form(kind: PathMatchKind, written: str, normal: str) -> None:
    assert match_path(kind, written, "path") == normal
    assert normalise_path(normal.encode()) == normal.encode()


@pytest.mark.parametrize(
    "written",
    ["foo", "*", "/%", "/%4", "/%zz", "/%00", "/\0", "/\n", "/..", "/a/../..", "/a?b", "/a#b", "/" + "x" * RULE_PATH_BYTES_MAX,
     "/" + "é" * 2050],
)  # fmt: skip
def test_no_paths(written: str) -> None:
    with pytest.raises(RejectError) as caught:
        match_path(PREFIX, written, "spec.rules[0].http.paths[1]")

    assert caught.value.reason is Reason.INVALID_PATH
    assert caught.value.message.startswith("spec.rules[0].http.paths[1].path ")
    assert len(caught.value.message) < 500


def test_escaping_may_exceed_what_a_request_can_have() -> None:
    with pytest.raises(RejectError, match="too long when escaped"):
        match_path(EXACT, "/" + "é" * 2000, "p")


def test_relative_exact() -> None:
    with pytest.raises(RejectError):
        match_path(EXACT, "", "p")


@pytest.mark.parametrize("path_type", ["", "Regex", "exact", "Prefix ", "x" * 10_000])
def test_unknown_types(path_type: str) -> None:
    with pytest.raises(RejectError, match="set it to Exact, Prefix or ImplementationSpecific"):
        match_kind(path_type, "p")
