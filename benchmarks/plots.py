"""Two plots of a run: how soon a change shows, and what a request costs, both by the number of Ingresses, beside the peers.

matplotlib draws them, in a virtual environment of the benchmark's own in the cache directory: neither the product nor its tests
need it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import native
from deploy import prerequisites
from deploy.prerequisites import say

MATPLOTLIB = "matplotlib==3.10.9"
PROPAGATION, REQUEST = "benchmark-propagation.svg", "benchmark-request.svg"
OURS = "atsk8s"
_ENDED = re.compile(r"^([\d,]+) loaded, quiet: new Ingress: (p50|p99)$")
_OURS_CPU = re.compile(r"^uncached, 32 connections: atsk8s, ([\d,]+) hosts?: CPU$")
_PEER_CPU = re.compile(r"^([\d,]+) Ingress(?:es, [\d,]+ hosts asked for|), beside .+: CPU$")
_RULES = re.compile(r"^bare, ([\d,]+) rules$")

Series: TypeAlias = dict[str, dict[float, float]]  # by label: y by x
Chart: TypeAlias = dict[str, Any]  # what draw_plots.py draws


def draw(document: Mapping[str, Any], directory: Path) -> list[Path]:
    """Draw what the run of `document` (results.Results.document) allows into `directory`, and return the files.

    Where matplotlib is not to be had, or a plot has nothing to show, there is none: it says so.
    """
    charts = [chart for chart in (_propagation(document["rows"]), _request(document["rows"])) if chart["series"]]
    if not charts:
        return []
    python = _python()
    if python is None:
        return []
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    command = [str(python), str(native.HERE / "draw_plots.py"), str(directory.absolute())]
    done = subprocess.run(command, input=json.dumps(charts), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(f"bench: no plots: {done.stderr.strip()[-500:]}")
        return []
    return [directory / chart["file"] for chart in charts]


def _python() -> Path | None:
    """Return the interpreter of an environment with matplotlib, made if need be; None if that fails."""
    home = native.cache_dir() / f"plots-{MATPLOTLIB.replace('==', '-')}"
    python, complete = home / "bin/python", home / ".complete"
    with prerequisites.locked(native.cache_dir() / "plots.lock"):
        if complete.exists():
            return python
        say(f"bench: installing {MATPLOTLIB} into {home}")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", MATPLOTLIB]
        for command in ([prerequisites.PYTHON, "-m", "venv", "--clear", str(home)], install):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                say(f"bench: no plots: {done.stderr.strip()[-300:] or done.stdout.strip()[-300:]}")
                return None
        complete.touch()
    return python


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _put(series: Series, label: str, x: float, y: float | None) -> None:
    if y is not None:
        series.setdefault(label, {})[x] = y


def _propagation(rows: list[dict[str, Any]]) -> Chart:
    series: Series = {}
    for row in rows:
        if row["group"] == "propagation" and (found := _ENDED.match(row["name"])):
            if row["reference_name"]:
                _put(series, f"{row['reference_name']} {found[2]}", _number(found[1]), row["reference"])
            else:
                _put(series, f"{OURS} {found[2]}", _number(found[1]), row["ours"])
    return {
        "file": PROPAGATION,
        "title": "A new Ingress, from the API server's reply to its first answer",
        "x": "Ingresses loaded",
        "y": "milliseconds",
        "logarithmic_y": True,
        "series": _listed(series),
    }


def _request(rows: list[dict[str, Any]]) -> Chart:
    series: Series = {}
    for row in rows:
        if row["group"] != "request":
            continue
        if found := _OURS_CPU.match(row["name"]):
            n = _number(found[1])
            _put(series, OURS, n, row["ours"])
            if n == 1 and row["reference_name"] == "bare":
                _put(series, "bare Traffic Server, static rules", 1, row["reference"])
            elif rules := _RULES.match(row["reference_name"]):
                _put(series, "bare Traffic Server, static rules", _number(rules[1]), row["reference"])
        elif found := _PEER_CPU.match(row["name"]):
            _put(series, row["reference_name"], _number(found[1]), row["reference"])
            _put(series, f"{OURS}, in the peers' rounds", _number(found[1]), row["ours"])
    return {
        "file": REQUEST,
        "title": "CPU of the proxy for one uncached request",
        "x": "hosts (1,000 of them asked for)",
        "y": "microseconds",
        "logarithmic_y": True,
        "series": _listed(series),
    }


def _listed(series: Series) -> list[dict[str, Any]]:
    return [{"label": label, "x": sorted(points), "y": [points[x] for x in sorted(points)]} for label, points in series.items()]
