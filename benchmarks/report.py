"""The Results section of docs/benchmarks.md, made from the JSON of a run: no figure there is typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, native

DOCUMENT = native.HERE.parent / "docs/benchmarks.md"
_HEADING = "## Results\n"
_COLUMNS = ("figure", "ours", "reference", "ratio or value", "range", "n", "target", "", "note")

Plain = Mapping[str, Any]  # a row as results.Results.document has it


class ReportError(RuntimeError):
    """The documentation has no place for results; the message says what is missing."""


def write(document: Plain, path: Path, drawn: Sequence[Path]) -> None:
    """Replace everything below the heading "Results" of `path` by what the run of `document` found.

    Args:
        document: from results.Results.document.
        path: a Markdown file.
        drawn: plots, in its directory.

    Raises:
        ReportError: it has no such heading.
    """
    head, heading, _ = path.read_text(encoding="utf-8").partition(_HEADING)
    if not heading:
        raise ReportError(f'{path}: no heading "## Results", below which the figures would go')
    path.write_text(f"{head}{heading}\n" + "\n".join(_section(document, path, drawn)).rstrip() + "\n", encoding="utf-8")


def _section(document: Plain, path: Path, drawn: Sequence[Path]) -> Iterator[str]:
    rows: list[Plain] = document["rows"]
    verdicts = [row["verdict"] for row in rows]
    yield "Written by `build.py bench --report` from one run; what is not here was not measured in it. A pull request that claims a"
    yield "gain shows the rows before and after, from the same machine on the same day."
    yield ""
    yield from (f"* {name}: {_cell(text)}" for name, text in document["facts"].items())
    yield f"* minutes: {', '.join(f'{group} {minutes}' for group, minutes in document['minutes'].items())}"
    met, short, failed = (verdicts.count(verdict) for verdict in ("met", "short", "failed"))
    yield f"* {len(rows)} figures; targets: {met} met, {short} short; {failed} failed"
    yield ""
    for plot in drawn:
        yield f"![{_alternative(plot)}]({plot.resolve().relative_to(path.parent.resolve())})"
        yield ""
    yield "### Against the targets"
    yield ""
    yield from _table([row for row in rows if row["target"] or row["verdict"] == "failed"], with_group=True)
    for group in dict.fromkeys(row["group"] for row in rows):
        yield f"### All of {group}"
        yield ""
        yield from _table([row for row in rows if row["group"] == group], with_group=False)


def _alternative(plot: Path) -> str:
    return plot.stem.replace("-", " ")


def _table(rows: Iterable[Plain], *, with_group: bool) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    for row in rows:
        unit = f" {row['unit']}" if row["unit"] else ""
        cells = (
            f"{row['group']}: {row['name']}" if with_group else row["name"],
            "" if row["ours"] is None else f"{figures.number(row['ours'])}{unit}",
            "" if row["reference"] is None else f"{figures.number(row['reference'])}{unit} ({row['reference_name']})",
            "" if row["value"] is None else figures.number(row["value"]),
            "" if row["low"] is None else f"{figures.number(row['low'])}–{figures.number(row['high'])}",
            str(row["n_runs"] or ""),
            (row["target"] or "").replace("<=", "≤").replace(">=", "≥"),
            f"**{row['verdict']}**" if row["verdict"] in ("short", "failed") else row["verdict"],
            row["note"],
        )
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""


def _cell(text: str) -> str:
    """Return text that stays in its cell, and means nothing to Markdown but what **verdict** does."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
