"""Whose snippets are run: the options, and what the others are told."""

from __future__ import annotations

import pytest

from atsk8s.config import parse_settings
from atsk8s.errors import Reason, SettingsError
from atsk8s.model.annotated import NO_INGRESS_ANNOTATIONS, ingress_annotations, policies_of
from atsk8s.model.annotations import OURS
from atsk8s.model.policies import SNIPPET_MAX, Snippet, plain
from atsk8s.model.snippets import NO_SNIPPETS, SnippetRules

NAME = OURS + "server-snippet"
LUA = "ts.debug('x')\n"


def applied(rules: SnippetRules, text: str = LUA, *, namespace: str = "shop") -> tuple[str | None, list[tuple[Reason, str]]]:
    said, faults = ingress_annotations({NAME: text})
    assert not faults
    said, refused = rules.applied(namespace, said)
    return said.server_snippet, [(fault.reason, fault.message) for fault in refused]


def test_off_unless_said() -> None:
    snippet, ((reason, message),) = applied(NO_SNIPPETS)

    assert (snippet, reason) == (None, Reason.FORBIDDEN)
    assert "--snippets is off" in message


def test_an_ingress_without_one_is_told_nothing() -> None:
    assert NO_SNIPPETS.applied("shop", NO_INGRESS_ANNOTATIONS) == (NO_INGRESS_ANNOTATIONS, ())


@pytest.mark.parametrize(
    ("rules", "is_run"),
    [
        (SnippetRules(is_on=True), True),
        (SnippetRules(is_on=True, namespaces=("shop",)), True),
        (SnippetRules(is_on=True, namespaces=("blog",)), False),
        (SnippetRules(is_on=True, is_strict=True), False),
        (SnippetRules(is_on=True, is_strict=True, namespaces=("shop",)), True),
        (SnippetRules(is_on=True, bytes_max=len(LUA)), True),
        (SnippetRules(is_on=True, bytes_max=len(LUA) - 1), False),
        (SnippetRules(is_on=False, namespaces=("shop",)), False),
    ],
)
def test_rules(rules: SnippetRules, is_run: bool) -> None:
    snippet, faults = applied(rules)

    assert (snippet, len(faults)) == ((LUA, 0) if is_run else (None, 1))


def test_size_is_bytes_and_never_beyond_the_formats() -> None:
    assert applied(SnippetRules(is_on=True, bytes_max=8), "--äää")[0] == "--äää"
    assert applied(SnippetRules(is_on=True, bytes_max=7), "--äää")[1][0][0] is Reason.LIMIT_EXCEEDED
    assert applied(SnippetRules(is_on=True, bytes_max=2 * SNIPPET_MAX), "ä" * SNIPPET_MAX)[0] is None


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "x" * (SNIPPET_MAX + 1)])
def test_texts_that_cannot_be(text: str) -> None:
    said, (fault,) = ingress_annotations({NAME: text})

    assert said.server_snippet is None
    assert fault.reason is Reason.INVALID_ANNOTATION
    assert "no snippet is run" in fault.message


def test_policy() -> None:
    policies, faults = policies_of(ingress_annotations({NAME: LUA})[0])

    assert (policies, faults) == ((Snippet(text=LUA),), [])
    assert plain(policies[0]) == ("snippet", "14 bytes of Lua, 2 lines")


@pytest.mark.parametrize(
    ("environ", "is_on"),
    [({"SNIPPET": "1"}, True), ({"SNIPPET": ""}, False), ({}, False), ({"SNIPPET": "1", "ATSK8S_SNIPPETS": "off"}, False)],
)
def test_the_ancestors_variable(environ: dict[str, str], is_on: bool) -> None:
    """SNIPPET that is set and empty turned nothing on there."""
    assert parse_settings([], environ).snippets is is_on


def test_options() -> None:
    assert parse_settings(["--snippets", "--snippet-namespaces=b,a"], {}).snippet_namespaces == ("a", "b")
    with pytest.raises(SettingsError, match="snippet-namespaces"):
        parse_settings(["--snippet-namespaces=A_B"], {})
