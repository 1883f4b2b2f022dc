"""Rows: what a measurement says, beside its reference and its target; and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound of the budgets on a row's value."""

    bound: float
    at_least: bool

    @classmethod
    def minimum(cls, bound: float) -> Self:
        """The value is to be `bound` or more."""
        return cls(bound=bound, at_least=True)

    @classmethod
    def maximum(cls, bound: float) -> Self:
        """The value is to be `bound` or less."""
        return cls(bound=bound, at_least=False)

    def is_met(self, value: float) -> bool:
        """Say whether `value` is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {number(self.bound)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        ours: the product's own figure, the median over runs, in `unit`; None when it could not be had (`note` says why).
        reference: the same figure of what it is compared with in the same run; None when nothing is.
        value: what the target bounds: the ratio when there is a reference (greater is better for us), else `ours`.
        low, high: least and greatest `value` over the interleaved runs.
        n_runs: how many runs, or changes measured.
        error: why the measurement failed; such a row has no figure.
    """

    group: str
    name: str
    unit: str = ""
    ours: float | None = None
    reference: float | None = None
    reference_name: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_runs: int = 0
    target: Target | None = None
    note: str = ""
    error: str = ""

    @property
    def verdict(self) -> str:
        """Return "met", "short", "failed" (the measurement itself) or "" (no target, or no figure)."""
        if self.error:
            return "failed"
        if self.target is None or self.value is None:
            return ""
        return "met" if self.target.is_met(self.value) else "short"

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        plain = asdict(self)
        plain["target"] = str(self.target) if self.target else None
        plain["verdict"] = self.verdict
        return plain


def absent(group: str, name: str, note: str, *, target: Target | None = None) -> Row:
    """Return a row without a figure; `note` says why there is none."""
    return Row(group=group, name=name, target=target, note=note)


def failed(group: str, name: str, error: BaseException) -> Row:
    """Return the row of a measurement that failed; the first line of the error stands in it."""
    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return Row(group=group, name=name, note=text, error=text)


def plain(group: str, name: str, unit: str, runs: Sequence[float], *, target: Target | None = None, note: str = "") -> Row:
    """Return a row of our own figure alone: the median over `runs`."""
    middle = statistics.median(runs)
    return Row(
        group=group,
        name=name,
        unit=unit,
        ours=middle,
        value=middle,
        low=min(runs),
        high=max(runs),
        n_runs=len(runs),
        target=target,
        note=note,
    )


def compared(
    group: str,
    name: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float],
    reference_name: str,
    *,
    less_is_better: bool,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """Return a row of two figures from the same rounds.

    The ratio is taken in each round, between neighbours in time, and is greater when we are better; its median and range are
    over the rounds, so that what the machine does from minute to minute cancels out.
    """
    pairs = zip(ours, reference, strict=True)
    ratios = [theirs / mine if less_is_better else mine / theirs for mine, theirs in pairs]
    return Row(
        group=group,
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        reference=statistics.median(reference),
        reference_name=reference_name,
        value=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        n_runs=len(ratios),
        target=target,
        note=note,
    )


def distribution(
    group: str, name: str, unit: str, samples: Sequence[float], *, targets: Mapping[float, Target] = {}, note: str = ""
) -> list[Row]:
    """Return the rows p50 and p99 over `samples`, each with the range of all; `targets` by share (0.5, 0.99)."""
    rows = []
    for share in (0.5, 0.99):
        value = quantile(samples, share)
        row = Row(
            group=group,
            name=f"{name}: p{share * 100:.0f}",
            unit=unit,
            ours=value,
            value=value,
            low=min(samples),
            high=max(samples),
            n_runs=len(samples),
            target=targets.get(share),
            note=note,
        )
        rows.append(row)
    return rows


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of `values` do not exceed: the nearest rank, no interpolation."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


_COLUMNS = ("figure", "ours", "reference", "value", "min..max", "runs", "target", "")


def header() -> str:
    """Return the head of the table."""
    return _line(_COLUMNS)


def line(row: Row) -> str:
    """Return the table's line of `row`."""
    unit = f" {row.unit}" if row.unit else ""
    reference = "" if row.reference is None else f"{number(row.reference)}{unit} {row.reference_name}"
    value = "" if row.value is None else number(row.value)
    return _line(
        (
            f"{row.group}: {row.name}",
            "-" if row.ours is None else f"{number(row.ours)}{unit}",
            reference,
            value,
            spread(row),
            str(row.n_runs or ""),
            str(row.target or ""),
            f"{row.verdict}{'; ' if row.verdict and row.note else ''}{row.note}",
        )
    ).rstrip()


def spread(row: Row) -> str:
    """Return the range of a row's value over its runs, "" if it has none."""
    return "" if row.low is None or row.high is None else f"{number(row.low)}..{number(row.high)}"


def _line(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, (64, 14, 34, 8, 16, 4, 10, 0), strict=True))


def number(value: float) -> str:
    """Return a figure as people read it: three digits, thousands apart."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
