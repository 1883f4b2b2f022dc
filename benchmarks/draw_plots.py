"""Draws charts, under an interpreter that has matplotlib: python draw_plots.py DIRECTORY, and charts of plots.py on stdin."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

_COLOURS = ("#1f6feb", "#d1570f", "#2e8540", "#8250df", "#57606a")


def main() -> int:
    """Draw each chart into its file."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # The same figures give the same bytes: no random ids, no date.
    matplotlib.rcParams.update({"svg.hashsalt": "atsk8s", "svg.fonttype": "none", "font.size": 10, "axes.grid": True})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    for chart in json.load(sys.stdin):
        _draw(pyplot, chart, Path(sys.argv[1]) / chart["file"])
    return 0


def _draw(pyplot: Any, chart: dict[str, Any], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(9, 4.2))
    colours: dict[str, str] = {}
    ranges = [(min(series["y"]), max(series["y"])) for series in chart["series"]]
    for series in chart["series"]:
        product = series["label"].removesuffix(" p50").removesuffix(" p99")
        colour = colours.setdefault(product, _COLOURS[len(colours) % len(_COLOURS)])
        is_tail = series["label"].endswith(" p99")
        style, fill = ("--", "white") if is_tail else ("-", colour)
        axes.plot(series["x"], series["y"], style, marker="o", color=colour, markerfacecolor=fill, label=series["label"])
    ticks = sorted({x for series in chart["series"] for x in series["x"]})
    if ticks[0] > 0:
        axes.set_xscale("log")
    else:  # 0 has a place on it, a decade before the next
        axes.set_xscale("symlog", linthresh=min((tick for tick in ticks if tick > 0), default=1))
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    if chart["logarithmic_y"]:
        axes.set_yscale("log")
        axes.set_yticks([step * 10**decade for decade in range(-3, 7) for step in (1, 2, 5)])
        axes.set_ylim(0.8 * min(low for low, _ in ranges), 1.3 * max(high for _, high in ranges))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.minorticks_off()
    axes.set(title=chart["title"], xlabel=chart["x"], ylabel=chart["y"])
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3, frameon=False)  # beside the lines
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
