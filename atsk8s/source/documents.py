r"""YAML text to plain values, one document at a time, as hostile input.

PyYAML's loaders do not serve: the C one recurses and crashes the process on 100,000 nested brackets, the Python one takes a second
for 50 KB, and both turn `2024-01-01` into a date and expand aliases without a bound.  So only the C parser's events are used (its
state is a heap stack; the Python one is the fall-back), and the values are built here without recursion, within named bounds.

Plain scalars are what they are to kubectl (YAML 1.1): `yes`, `no`, `on`, `off`, `true` and `false` are booleans and `0755` is
octal, so an annotation's value must be quoted or is rejected as no string, as the API server does.  Two differences: there are no
dates, and no sexagesimal numbers (`1:30` is a string).  A key given twice is an error, as with `kubectl --validate=strict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from atsk8s.errors import Reason, RejectError

MAX_DEPTH = 64  # of nesting; an Ingress needs 8
MAX_WEIGHT = 1_000_000  # of one document: a value and each 16 characters of it count one, an alias counts what it stands for
MAX_DOCUMENTS = 100_000  # of one file
MAX_NUMBER_CHARS = 40

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = object()  # the key `<<`, unquoted

# A line that starts with `---` always starts a document: inside a block scalar it would be indented, inside a quoted one it is
# forbidden (YAML 1.1, c-forbidden).  So text is cut there first, and a syntax error costs one document, not the rest of the file.
_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_NO_CONTENT = re.compile(r"(?:[ \t]*(?:#.*|%.*)?(?:\r?\n|\Z))*\Z")

_BOOLEANS = {
    text: value
    for words, value in ((("yes", "true", "on"), True), (("no", "false", "off"), False))
    for word in words
    for text in (word, word.capitalize(), word.upper())
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z")
_TAG = "tag:yaml.org,2002:"


class SyntaxFault(RejectError):
    """The text is no YAML: what it was meant to say is unknown, unlike with a document of the wrong shape."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MALFORMED, message)


@dataclass(slots=True)
class _Open:
    """A list or map that is being built."""

    value: list[Plain] | dict[str, Plain]
    anchor: str | None
    weight: int = 1
    key: object = None  # of a map, between a key and its value
    has_key: bool = False
    merged: list[dict[str, Plain]] = field(default_factory=list)


def split_documents(text: str) -> list[tuple[int, str]]:
    """The file's documents as text, each with the line (from 1) that it starts in.

    Raises:
        RejectError: more than `MAX_DOCUMENTS`.
    """
    starts = [match.start() for match in _SEPARATOR.finditer(text)]
    if len(starts) > MAX_DOCUMENTS:
        raise RejectError(Reason.TOO_LARGE, f"{len(starts)} documents, at most {MAX_DOCUMENTS} are taken")
    found: list[tuple[int, str]] = []
    line, pending = 1, ""  # directives (%YAML) belong to the document after the separator that follows them
    for start, end in zip([0, *starts], [*starts, len(text)], strict=True):
        chunk = pending + text[start:end]
        pending = ""
        if chunk.lstrip().startswith("%") and _NO_CONTENT.match(chunk):
            pending = chunk
        elif not _NO_CONTENT.match(chunk.removeprefix("---")):
            found.append((line, chunk))
        if not pending:
            line += chunk.count("\n")
    return found


def load(text: str, first_line: int = 1) -> Iterator[Plain]:
    """The values of the documents in `text`, usually one.

    Args:
        first_line: of `text` in its file, for messages.

    Raises:
        SyntaxFault: not YAML.
        RejectError: beyond a bound, or YAML that has no plain value (tags, recursive aliases, keys that are not scalars).
    """
    try:
        yield from _build(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {first_line + mark.line}, column {mark.column + 1}" if mark is not None else ""
        raise SyntaxFault(f"not YAML{where}: {error.problem or error.context or 'syntax error'}") from None
    except yaml.reader.ReaderError as error:
        raise SyntaxFault(f"not YAML: character {error.character!r} is not allowed") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SyntaxFault(f"not YAML: {type(error).__name__}") from None


def _build(events: Iterator[yaml.Event]) -> Iterator[Plain]:
    stack: list[_Open] = []
    anchors: dict[str, tuple[Plain, int]] = {}  # value and weight
    for event in events:
        value: Plain
        weight = 1
        match event:
            case yaml.DocumentStartEvent():
                anchors.clear()
                continue
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(stack) >= MAX_DEPTH:
                    raise RejectError(Reason.TOO_LARGE, f"nested deeper than {MAX_DEPTH} levels in {_line(event)}")
                is_map = isinstance(event, yaml.MappingStartEvent)
                _check_tag(event, "map" if is_map else "seq")
                if event.anchor:
                    anchors.pop(event.anchor, None)  # until it is complete, an alias to it would be recursive
                stack.append(_Open({} if is_map else [], event.anchor))
                continue
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                done = stack.pop()
                for merged in done.merged:
                    assert isinstance(done.value, dict)
                    for name, item in merged.items():
                        done.value.setdefault(name, item)
                value, weight = done.value, done.weight
                if done.anchor:
                    anchors[done.anchor] = value, weight
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    raise RejectError(
                        Reason.MALFORMED, f"alias *{event.anchor} stands for nothing, or for itself, in {_line(event)}"
                    )
                value, weight = anchors[event.anchor]
            case yaml.ScalarEvent():
                if stack and isinstance(stack[-1].value, dict) and not stack[-1].has_key:
                    _take_key(stack[-1], event)
                    continue
                value = _scalar(event)
                weight += len(event.value) // 16
                if event.anchor:
                    anchors[event.anchor] = value, weight
            case _:
                continue
        if not stack:
            yield value
            continue
        _take_value(stack[-1], value, weight, event)


def _take_key(parent: _Open, event: yaml.ScalarEvent) -> None:
    # Kubernetes' keys are strings; `1: x` means "1", as with kubectl.
    parent.key = _MERGE if event.value == "<<" and event.implicit[0] else event.value
    parent.has_key = True
    if parent.key is not _MERGE and isinstance(parent.value, dict) and event.value in parent.value:
        raise RejectError(Reason.MALFORMED, f"key {event.value[:80]!r} is given twice, again in {_line(event)}")


def _take_value(parent: _Open, value: Plain, weight: int, event: yaml.Event) -> None:
    parent.weight += weight
    if parent.weight > MAX_WEIGHT:
        raise RejectError(Reason.TOO_LARGE, f"more than {MAX_WEIGHT} values (an alias counts as all that it stands for)")
    if isinstance(parent.value, list):
        parent.value.append(value)
        return
    if not parent.has_key:
        raise RejectError(Reason.MALFORMED, f"a key is no string in {_line(event)}")
    parent.has_key = False
    if parent.key is _MERGE:
        merged = value if isinstance(value, list) else [value]
        for item in merged:
            if not isinstance(item, dict):
                raise RejectError(Reason.MALFORMED, f"`<<` needs a map in {_line(event)}")
            parent.merged.append(item)
    else:
        assert isinstance(parent.key, str)
        parent.value[parent.key] = value


def _line(event: yaml.Event) -> str:
    mark = event.start_mark
    return f"line {mark.line + 1} of the document" if mark is not None else "the document"


def _check_tag(event: yaml.CollectionStartEvent, expected: str) -> None:
    if event.tag not in (None, "!", _TAG + expected):
        raise RejectError(Reason.UNSUPPORTED, f"tag {str(event.tag)[:80]!r} in {_line(event)}: remove it")


def _scalar(event: yaml.ScalarEvent) -> Plain:
    text: str = event.value
    tag = event.tag
    if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
        return text
    if tag is not None and tag not in (_TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float"):
        raise RejectError(Reason.UNSUPPORTED, f"tag {str(tag)[:80]!r} in {_line(event)}: remove it")
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= MAX_NUMBER_CHARS:
        if _INT.match(text):
            return _integer(text.replace("_", ""))
        if _FLOAT.match(text):
            return float(text.replace("_", ""))
    return text


def _integer(text: str) -> int | str:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    try:
        if digits.startswith("0") and len(digits) > 1 and digits[1] not in "box":
            return sign * int(digits, 8)
        return sign * int(digits, 0)
    except ValueError:  # 0b and 0x without a digit that counts
        return text
