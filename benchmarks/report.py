"""The Results section of docs/benchmarks.md, made from the JSON of one run or several: no figure there is typed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import figures, native

DOCUMENT = native.HERE.parent / "docs/benchmarks.md"
_HEADING = "## Results\n"
_COLUMNS = ("figure", "ours", "reference", "ratio or value", "range", "n", "target", "", "note")
_ALWAYS = ("commit", "started", "command", "load average")  # what each group says of its own run

Plain: TypeAlias = Mapping[str, Any]  # a row, or all of a run, as results.Results.document has it


class ReportError(RuntimeError):
    """There is no place for results, or there are none; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one run found of one group."""

    facts: Mapping[str, str]
    minutes: float | None  # None: the group did not end
    rows: Sequence[Plain]

    def count(self, verdict: str) -> int:
        """Return how many rows have this verdict."""
        return sum(row["verdict"] == verdict for row in self.rows)


def newest(documents: Sequence[Plain]) -> dict[str, Measured]:
    """Return the groups of all `documents`; of one that several have, what the last of those has."""
    found: dict[str, Measured] = {}
    for document in documents:
        for group in dict.fromkeys(row["group"] for row in document["rows"]):
            rows = [row for row in document["rows"] if row["group"] == group]
            found[group] = Measured(facts=document["facts"], minutes=document["minutes"].get(group), rows=rows)
    return found


def write(groups: Mapping[str, Measured], path: Path, drawn: Sequence[Path]) -> None:
    """Replace everything below the heading "Results" of `path` by what was found.

    Args:
        groups: from newest().
        path: a Markdown file.
        drawn: plots, in its directory.

    Raises:
        ReportError: it has no such heading, or there are no groups.
    """
    head, heading, _ = path.read_text(encoding="utf-8").partition(_HEADING)
    if not heading:
        raise ReportError(f'{path}: no heading "## Results", below which the figures would go')
    if not groups:
        raise ReportError("no rows in any of the files: there is nothing to report")
    path.write_text(f"{head}{heading}\n" + "\n".join(_section(groups, path, drawn)).rstrip() + "\n", encoding="utf-8")


def _section(groups: Mapping[str, Measured], path: Path, drawn: Sequence[Path]) -> Iterator[str]:
    yield "Written by `build.py bench --report`, which replaces all below this heading. What is not here was not measured. A pull"
    yield "request that claims a gain shows the rows before and after, from the same machine on the same day."
    yield ""
    shared = _shared(groups)
    yield from (f"* {name}: {_cell(text)}" for name, text in shared.items())
    yield ""
    yield "| group | figures | targets met | short | failed | commit | started | minutes |"
    yield "|---|---|---|---|---|---|---|---|"
    for group, measured in groups.items():
        counts = " | ".join(str(measured.count(verdict)) for verdict in ("met", "short", "failed"))
        facts = f"{measured.facts.get('commit', 'unknown')} | {measured.facts.get('started', 'unknown')}"
        yield f"| [`{group}`](#group-{group}) | {len(measured.rows)} | {counts} | {facts} | {measured.minutes or ''} |"
    yield ""
    for plot in drawn:
        yield f"![{plot.stem.replace('-', ' ')}]({plot.resolve().relative_to(path.parent.resolve())})"
        yield ""
    for group, measured in groups.items():
        yield from _group(group, measured, shared)


def _shared(groups: Mapping[str, Measured]) -> dict[str, str]:
    """Return the facts that all groups have in common, less those that each says itself."""
    first, *others = (measured.facts for measured in groups.values())
    return {name: text for name, text in first.items() if name not in _ALWAYS and all(facts.get(name) == text for facts in others)}


def _group(group: str, measured: Measured, shared: Mapping[str, str]) -> Iterator[str]:
    yield f"### Group `{group}`"
    yield ""
    own = [f"{name} {text}" for name, text in measured.facts.items() if name not in shared and name not in _ALWAYS]
    facts = [f"{name} {measured.facts[name]}" for name in _ALWAYS[:2] if name in measured.facts]
    facts += [f"`{measured.facts['command']}`"] if "command" in measured.facts else []
    facts += [f"load average before it {measured.facts['load average']}"] if "load average" in measured.facts else []
    yield f"{_cell('; '.join([*facts, *own]))}."
    yield ""
    bounded = [row for row in measured.rows if row["target"]]
    if bounded:
        yield "**Against the targets:**"
        yield ""
        crossed, rest = _divided(bounded)
        yield from _crossed(crossed) if crossed else ()
        yield from _table(rest) if rest else ()
    yield from (f"* **failed**: {_cell(row['name'])}: {_cell(row['note'])}" for row in measured.rows if row["verdict"] == "failed")
    if measured.count("failed"):
        yield ""
    yield from _beside([row for row in measured.rows if row["reference_name"] and not row["target"]])
    yield f"<details><summary>All {len(measured.rows)} figures of {group}</summary>"
    yield ""
    yield from _table(measured.rows)
    yield "</details>"
    yield ""


# --- tables that say much in few lines --------------------------------------------------------------------------------------------


def _split(row: Plain) -> tuple[str, tuple[str, str]]:
    """Return what a row is of, and which figure of it."""
    subject, colon, figure = row["name"].rpartition(": ")
    return (subject if colon else row["name"]), (figure if colon else "", row["reference_name"])


def _divided(rows: Sequence[Plain]) -> tuple[list[Plain], list[Plain]]:
    """Return the rows of figures that come for most things, and the rest; no rows of the former if that is one figure."""
    n_subjects = len({_split(row)[0] for row in rows})
    n_rows = Counter(_split(row)[1] for row in rows)
    common = {column for column, n in n_rows.items() if n >= max(2, n_subjects / 2)}
    if len(common) < 2:
        return [], list(rows)
    divided: tuple[list[Plain], list[Plain]] = [], []
    for row in rows:
        divided[_split(row)[1] not in common].append(row)
    return divided


def _crossed(rows: Sequence[Plain]) -> Iterator[str]:
    """Yield a line for each thing, a column for each figure; what all rows of a column share stands once."""
    lines: dict[str, dict[tuple[str, str], Plain]] = defaultdict(dict)
    columns: dict[tuple[str, str], list[Plain]] = defaultdict(list)
    for row in rows:
        subject, column = _split(row)
        lines[subject][column] = row
        columns[column].append(row)
    shared = {column: found[0]["target"] if len({row["target"] for row in found}) == 1 else "" for column, found in columns.items()}
    yield f"| | {' | '.join(_cell(_heading(column, shared[column])) for column in columns)} |"
    yield f"|{'---|' * (len(columns) + 1)}"
    for subject, found in lines.items():
        cells = [_found(found[column], with_target=not shared[column]) if column in found else "" for column in columns]
        yield f"| {_cell(subject)} | {' | '.join(map(_cell, cells))} |"
    yield ""
    for (figure, reference), taken in columns.items():
        notes = {row["note"] for row in taken}
        if len(notes) == 1 and (note := notes.pop()):
            yield f"* {_cell(figure)}{f', of {_cell(reference)}' if reference else ''}: {_cell(note)}"
    if any(reference for _, reference in columns):
        yield "* each: ours, ratio to the reference (its range over the rounds); more than 1 is in our favour"
    else:
        yield "* each: the figure (least and greatest)"
    yield ""


def _heading(column: tuple[str, str], target: str) -> str:
    figure, reference = column
    text = f"{figure}, of {reference}" if reference else figure
    return f"{text} {_bound(target)}" if target else text


def _found(row: Plain, *, with_target: bool) -> str:
    if row["value"] is None:
        return row["note"] or "no figure"
    text = _quantity(row["ours"], row["unit"])
    if row["reference_name"]:
        text += f"; {figures.number(row['value'])}"
    text += f" ({_spread(row)})" if _spread(row) else ""
    bound = f" {_bound(row['target'])}" if with_target else ""
    return f"{text} {_verdict(row)}{bound}"


def _beside(rows: Sequence[Plain]) -> Iterator[str]:
    """Yield ours beside each reference that no target is for: a line for each figure, a table for references that go together."""
    lines: dict[str, dict[str, Plain]] = defaultdict(dict)
    for row in rows:
        lines[row["name"].replace(f", beside {row['reference_name']}", "")][row["reference_name"]] = row
    together = [tuple(found) for found in lines.values()]
    tables: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, found in lines.items():  # one that lacks a reference stands with those that have it
        tables[max((names for names in together if found.keys() <= set(names)), key=len)].append(name)
    for references, names in tables.items():
        yield f"**Beside {_cell(', '.join(references))}** (in brackets: the ratio; more than 1 is in our favour):"
        yield ""
        yield f"| | ours | {' | '.join(map(_cell, references))} |"
        yield f"|{'---|' * (len(references) + 2)}"
        for name in names:
            ours = next(iter(lines[name].values()))
            cells = [_quantity(ours["ours"], ours["unit"]), *(_theirs(lines[name].get(reference)) for reference in references)]
            yield f"| {_cell(name)} | {' | '.join(map(_cell, cells))} |"
        yield ""


def _theirs(row: Plain | None) -> str:
    if row is None:
        return ""
    ratio = "" if row["value"] is None else f" ({figures.number(row['value'])})"
    return f"{_quantity(row['reference'], row['unit'])}{ratio}"


# --- the table of everything ------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Plain]) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    for row in rows:
        reference = _quantity(row["reference"], row["unit"])
        cells = (
            row["name"],
            _quantity(row["ours"], row["unit"]),
            f"{reference} ({row['reference_name']})" if reference else "",
            "" if row["value"] is None else figures.number(row["value"]),
            _spread(row),
            str(row["n_runs"] or ""),
            _bound(row["target"]),
            _verdict(row),
            row["note"],
        )
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""


def _quantity(value: float | None, unit: str) -> str:
    return "" if value is None else f"{figures.number(value)}{f' {unit}' if unit else ''}"


def _spread(row: Plain) -> str:
    return "" if row["low"] is None or row["low"] == row["high"] else f"{figures.number(row['low'])}–{figures.number(row['high'])}"


def _bound(target: str | None) -> str:
    return (target or "").replace("<=", "≤").replace(">=", "≥")


def _verdict(row: Plain) -> str:
    return f"**{row['verdict']}**" if row["verdict"] in ("short", "failed") else str(row["verdict"])


def _cell(text: str) -> str:
    """Return text that stays in its cell, and means nothing to Markdown but what **verdict** does."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
