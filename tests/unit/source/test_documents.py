"""YAML as hostile input."""

from __future__ import annotations

import pytest
import yaml

from atsk8s.errors import RejectError
from atsk8s.source import documents
from atsk8s.source.documents import Plain, SyntaxFault, load, split_documents


def one(text: str) -> Plain:
    (value,) = load(text)
    return value


def complaint(text: str) -> str:
    with pytest.raises(RejectError) as caught:
        _ = [list(load(chunk, line)) for line, chunk in split_documents(text)]
    return caught.value.message


def test_scalars_are_kubectls() -> None:
    text = "{a: yes, b: 'yes', c: OFF, d: 0755, e: 0x1F, f: 1e3, g: 1.5, h: ~, i: , j: !!str 5, k: +12, l: 1_000, m: -7, n: 0o17, "
    text += "o: y}"
    assert one(text) == {
        "a": True, "b": "yes", "c": False, "d": 493, "e": 31, "f": 1000.0, "g": 1.5, "h": None, "i": None, "j": "5", "k": 12,
        "l": 1000, "m": -7, "n": 15, "o": "y",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["2024-01-01", "2024-01-01T00:00:00Z", "1:30", "09", "1.2.3.4", "=", "<<", "9" * 5000, "0x", "1e", "-"]
)
def test_strings_that_loaders_make_something_else_of(text: str) -> None:
    assert one(f"a: {text if text != '-' else '- '}".replace("- ", "'-'")) == {"a": text}


def test_anchors_aliases_and_merges() -> None:
    assert one("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [*x, {c: 1}]}\nw: &w v\nu: *w") == {
        "x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2, "c": 1}, "w": "v", "u": "v",
    }  # fmt: skip


def test_keys_are_strings() -> None:
    assert one("{1: a, true: b, ~: c}") == {"1": "a", "true": "b", "~": "c"}


def test_documents_and_their_lines() -> None:
    text = "# only a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: |\n  ---\n  x\n--- {c: 1}\n...\n"
    assert [(line, *load(chunk)) for line, chunk in split_documents(text)] == [
        (2, {"a": 1}),
        (7, {"b": "---\nx\n"}),
        (11, {"c": 1}),
    ]
    assert split_documents("") == []
    assert [list(load(chunk)) for _, chunk in split_documents("%YAML 1.1\n---\na: 1\n")] == [[{"a": 1}]]
    assert [list(load(chunk)) for _, chunk in split_documents("a: 1\r\n---\r\nb: 2\r\n")] == [[{"a": 1}], [{"b": 2}]]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "\n".join(" " * i + "a:" for i in range(200))])
def test_nesting_is_bounded(text: str) -> None:
    assert "nested deeper than 64" in complaint(text)


def bomb(leaf: str) -> str:
    return f"a0: &a0 {leaf}\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize("leaf", ["x", "[x,x,x,x]", "x" * 1_000_000])
def test_alias_bomb(leaf: str) -> None:
    assert "an alias counts as all" in complaint(bomb(leaf))


def test_merge_bomb() -> None:
    text = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))
    assert "an alias counts as all" in complaint(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "stands for nothing, or for itself"),
        ("a: *b", "stands for nothing"),
        ("a: &x 1\n---\nb: *x", "stands for nothing"),
        ("a: 1\na: 2", "given twice"),
        ("? [a]\n: b", "a key is no string"),
        ("? {a: b}\n: b", "a key is no string"),
        ("<<: 1", "needs a map"),
        ("a: !!python/object/apply:os.system [id]", "remove it"),
        ("a: !!binary aGk=", "remove it"),
        ("!foo [1]", "remove it"),
    ],
)
def test_yaml_that_has_no_plain_value(text: str, says: str) -> None:
    assert says in complaint(text)


@pytest.mark.parametrize("text", ["a: b: c", "\t- x", "a: [", "a: 'x", "- a\nb: c", "a: \x00", "a: \x1b", "%FOO", "@", "a: `"])
def test_syntax_faults(text: str) -> None:
    with pytest.raises(SyntaxFault):
        list(load(text))


def test_line_of_a_fault_is_the_files() -> None:
    assert "in line 4" in complaint("a: 1\n---\nb: 2\nc: d: e\n")


def test_too_many_documents() -> None:
    assert "documents" in complaint("---\n" * 100_001)


def test_without_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_Loader", yaml.SafeLoader)
    assert one("{a: [1, {b: c}]}") == {"a": [1, {"b": "c"}]}
    assert "nested deeper" in complaint("[" * 100_000)
    with pytest.raises(SyntaxFault):
        list(load("a: \x00"))
