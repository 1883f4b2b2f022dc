"""Group `lookup`: a routing decision and a commit in C alone: bench_lookup.c, several times, and once under callgrind."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import figures, native, packages
from benchmarks.figures import Row, Target
from benchmarks.run import Effort, Run, part
from deploy.prerequisites import say

GROUP = "lookup"
_IDENTITY = ("figure", "hosts", "drawn", "readers", "writer")
_UNITS = {
    "median_ns": ("median", "ns"),
    "p99_ns": ("p99", "ns"),
    "median_us": ("median", "µs"),
    "p99_us": ("p99", "µs"),
    "us_per_host": ("per host", "µs"),
    "bytes": ("", "B"),
    "growth_bytes": ("growth", "B"),
    "cpu_ns_per_decision": ("CPU per decision", "ns"),
    "decisions_per_s": ("decisions", "/s"),
    "commits_per_s": ("commits", "/s"),
}
_SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
_TRIGGER = re.compile(r"^desc: Trigger: Client Request: (.+)/(.+)/(\d+)/([\d.]+)$", re.MULTILINE)
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_HOT_SMALL, _HOT_LARGE = ("hit", 1_000, "hot 1000"), ("hit", 100_000, "hot 1000")
_UNIFORM_LARGE = ("hit", 100_000, "uniform")
_TARGETS = {_HOT_LARGE: Target.maximum(150), _UNIFORM_LARGE: Target.maximum(800)}
_HOT_RATIO = Target.maximum(1.5)


class ProgramError(RuntimeError):
    """bench_lookup failed; the message is what it said."""


def run(settings: Run) -> Iterator[Row]:
    """Yield a row for each figure that the program prints, the ratio of hot hosts among many to those alone, and instructions."""
    yield from part(GROUP, "decisions and commits", _timed(settings), limit_s=900)
    yield from part(GROUP, "picks of an endpoint", _picks(settings), limit_s=300)
    yield from part(GROUP, "instructions per decision", _counted(settings), limit_s=600)


def _timed(settings: Run) -> Iterator[Row]:
    program = native.program("bench_lookup", with_core=True, includes=_valgrind_includes())
    n_runs = 5 if settings.effort is Effort.FULL else 1
    found: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for number in range(n_runs):
        say(f"bench: lookup: run {number + 1} of {n_runs}")
        for said in _figures_of(program, settings):
            if said.get("found", 1) not in (0, 1):
                raise ProgramError(f"bench_lookup found some of what it asked for, and not the rest: {said}")
            fields = found.setdefault(tuple(said.get(name) for name in _IDENTITY), {})
            for name in _UNITS.keys() & said.keys():
                fields.setdefault(name, []).append(said[name])
    for identity, fields in found.items():
        for name, (what, unit) in _UNITS.items():
            if name in fields:
                target = _TARGETS.get(identity[:3]) if name == "median_ns" else None
                yield figures.plain(GROUP, f"{_title(identity)}{': ' if what else ''}{what}", unit, fields[name], target=target)
    yield from _hot_ratio(found)


def _picks(settings: Run) -> Iterator[Row]:
    """Yield what choosing an endpoint costs, by algorithm, and what a set of them costs to build and to keep."""
    program = native.program("bench_pick", with_core=True)
    n_runs = 5 if settings.effort is Effort.FULL else 1
    found: dict[tuple[int, str, str], list[float]] = {}
    for _ in range(n_runs):
        for said in _figures_of(program, settings):
            for name in _UNITS.keys() & said.keys():
                found.setdefault((said["endpoints"], said["figure"], name), []).append(said[name])
    for (n_endpoints, figure, name), values in found.items():
        what, unit = _UNITS[name]
        yield figures.plain(GROUP, f"{n_endpoints:,} endpoints: {figure}{': ' if what else ''}{what}", unit, values)


def _figures_of(program: Path, settings: Run) -> Iterator[dict[str, Any]]:
    """What one run of a program prints, a figure a line.  Raises ProgramError."""
    command = [str(program), *(["--quick"] if settings.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProgramError(f"{program.name} ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    yield from map(json.loads, done.stdout.splitlines())


def _title(identity: tuple[Any, ...]) -> str:
    figure, hosts, drawn, readers, writer = identity
    parts = [f"{hosts:,} hosts: {figure}"]
    parts += [f"drawn {drawn}"] if drawn else []
    parts += [f"{readers} readers, {'a writer' if writer else 'no writer'}"] if readers else []
    return ", ".join(parts)


def _hot_ratio(found: dict[tuple[Any, ...], dict[str, list[float]]]) -> Iterator[Row]:
    by_figure = {identity[:3]: fields["median_ns"] for identity, fields in found.items() if "median_ns" in fields}
    small, large = by_figure.get(_HOT_SMALL), by_figure.get(_HOT_LARGE)
    if small is None or large is None:
        return
    ratios = [many / alone for many, alone in zip(large, small, strict=True)]
    yield Row(
        group=GROUP,
        name="1,000 hot hosts of 100,000, against 1,000 alone",
        unit="ns",
        ours=statistics.median(large),
        reference=statistics.median(small),
        reference_name="1,000 alone",
        value=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        n_runs=len(ratios),
        target=_HOT_RATIO,
        note="here less is better",
    )


def _valgrind_includes() -> tuple[Path, ...]:
    try:
        return packages.program("valgrind", "valgrind").includes
    except packages.PackageError:
        return ()  # the requests to callgrind are left out; what counts by it says that it is not to be had


def _counted(settings: Run) -> Iterator[Row]:
    """Yield instructions per decision, by callgrind: a machine without hardware counters has no other way to count them."""
    valgrind = packages.program("valgrind", "valgrind")
    program = native.program("bench_lookup", with_core=True, includes=valgrind.includes)
    for n_hosts in _SIZES[:4] if settings.quick else _SIZES:
        say(f"bench: lookup: instructions per decision at {n_hosts:,} hosts")
        out = settings.scratch / f"callgrind.{n_hosts}"
        command = [str(valgrind.path), "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        done = subprocess.run(
            [*command, str(program), "--count", str(n_hosts)], capture_output=True, text=True, check=False, env=valgrind.environment
        )
        if done.returncode != 0:
            raise ProgramError(f"bench_lookup under callgrind ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
        dumps = sorted(settings.scratch.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:]))
        for text in (path.read_text(encoding="utf-8", errors="replace") for path in dumps):
            what, total = _TRIGGER.search(text), _TOTAL.search(text)
            if what is None or total is None:
                raise ProgramError(f"{out.name}: a dump of callgrind says neither what it is of nor a total")
            name = f"{n_hosts:,} hosts: {what[1]}, drawn {what[2]}: instructions"
            note = f"{float(what[4]):.0%} found; callgrind, {int(what[3]):,} decisions"
            yield figures.plain(GROUP, name, "", [int(total[1]) / int(what[3])], note=note)
        if not dumps:
            raise ProgramError(f"callgrind wrote nothing at {n_hosts:,} hosts")
