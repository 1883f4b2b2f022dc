"""`python3 build.py bench [GROUP...] [--quick] [--json FILE] [--peers]`: measure, and print one row a figure.

A group, or a part of one, that fails is a row that says so; the rest goes on.  `--report FILE...` makes documentation of runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from benchmarks import figures, machine, packages, plots, report
from benchmarks.figures import Row
from benchmarks.results import Results
from benchmarks.run import Effort, Run
from deploy import server
from deploy.prerequisites import say

GROUPS = ("request", "lookup", "propagation", "scale", "tls")


def main() -> int:
    """Run the groups asked for.  0 unless a measurement itself failed; a target that is missed is a figure, not a failure."""
    arguments = _parser().parse_args()
    if arguments.report is not None:
        return _documented(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # every server is ended on the way out
    facts = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": shlex.join(["build.py", "bench", *sys.argv[1:]])}
    facts.update(machine.facts())
    for name, text in facts.items():
        print(f"{name}: {text}")
    results = Results(arguments.json, facts)
    effort = Effort.TRIAL if arguments.trial else Effort.QUICK if arguments.quick else Effort.FULL
    for group in [group for group in GROUPS if group in arguments.groups or not arguments.groups]:
        print(f"\n{figures.header()}", flush=True)
        began_s = time.monotonic()
        for row in _measured(group, effort=effort, peers=arguments.peers):
            results.add(row)
            print(figures.line(row), flush=True)
        results.end(group, time.monotonic() - began_s, packages.versions())
        say(f"bench: {group}: {(time.monotonic() - began_s) / 60:.1f} min")
    if arguments.json is not None and arguments.plots is not None:
        plots.draw(results.document(), arguments.plots)
    met, short, failed = (results.count(verdict) for verdict in ("met", "short", "failed"))
    say(f"bench: {len(results.rows)} figures; targets: {met} met, {short} short; {failed} failed")
    return 1 if failed else 0


def _measured(group: str, *, effort: Effort, peers: bool) -> Iterator[Row]:
    try:
        module = importlib.import_module(f"benchmarks.{group}")
        with server.scratch_directory(f"atsk8s-bench-{group}-") as scratch:
            yield from module.run(Run(scratch=scratch, effort=effort, peers=peers))
    except Exception as error:  # one group's failure costs that group; its traceback is the diagnosis
        traceback.print_exc()
        yield figures.failed(group, "all of it", error)


def _documented(arguments: argparse.Namespace) -> int:
    """Write what one run or several found into the documentation, with plots."""
    groups = report.newest([json.loads(path.read_text(encoding="utf-8")) for path in arguments.report])
    rows = [row for measured in groups.values() for row in measured.rows]
    drawn = plots.draw({"rows": rows}, arguments.plots or report.DOCUMENT.parent)
    report.write(groups, report.DOCUMENT, drawn)
    say(f"bench: {report.DOCUMENT}: {len(rows)} figures, {len(drawn)} plots")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build.py bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", type=_group, help=f"of {', '.join(GROUPS)}; none: all")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="fewer and shorter runs, fewer variants")
    effort.add_argument("--trial", action="store_true", help="all variants, each for a moment: to see that they work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there, after every figure")
    parser.add_argument("--peers", action="store_true", help="also build Contour with Envoy, and Traefik, and measure them alike")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="with --json or --report: where the plots go; else docs/")
    parser.add_argument(
        "--report",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: write FILE of --json into docs/benchmarks.md; of several, the last that has a group counts for it",
    )
    return parser


def _group(name: str) -> str:
    if name not in GROUPS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(GROUPS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
