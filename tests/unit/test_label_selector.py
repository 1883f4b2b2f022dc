"""Label selectors, as kubectl takes them."""

from __future__ import annotations

import pytest

from atsk8s.label_selector import REQUIREMENTS_MAX, parse_label_selector

LABELS = {"env": "prod", "tier": "web", "example.com/team": "a", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("env=prod", True),
        ("env==prod", True),
        (" env = prod , tier", True),
        ("env=test", False),
        ("env!=test", True),
        ("absent!=x", True),
        ("env!=prod", False),
        ("tier in (web, api)", True),
        ("tier in (api)", False),
        ("tier notin (api,db),env", True),
        ("absent notin (a)", True),
        ("absent in (a)", False),
        ("example.com/team", True),
        ("!example.com/team", False),
        ("! absent", True),
        ("absent", False),
        ("empty=", True),
        ("empty in ()", True),
        ("empty", True),
    ],
)
def test_matches(text: str, matches: bool) -> None:
    selector = parse_label_selector(text)
    assert selector.matches(LABELS) is matches
    assert parse_label_selector(str(selector)) == selector


@pytest.mark.parametrize(
    "text",
    ["", ",", "env=prod,", "=prod", "env in (a", "env in a)", "env in ((a))", "env > 3", "en v", "-env", "env=-x", "é", "a/b/c",
     "x" * 64, "env=" + "x" * 64, "\0", ",".join(["a"] * (REQUIREMENTS_MAX + 1)), "a in (" + ",".join(map(str, range(300))) + ")"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^has "):
        parse_label_selector(text)
