"""`python3 build.py bench [GROUP...] [--quick] [--json FILE] [--peers]`: measure, and print one row a figure."""

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

from benchmarks import figures, machine
from benchmarks.figures import Row
from benchmarks.run import Run
from deploy import server
from deploy.prerequisites import say

GROUPS = ("request", "lookup", "propagation", "scale", "tls")


def main() -> int:
    """Run the groups asked for.  0 unless a measurement itself failed; a target that is missed is a figure, not a failure."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended by SIGTERM"))  # every server is ended on the way out
    groups = [group for group in GROUPS if group in arguments.groups or not arguments.groups]
    report = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": shlex.join(["build.py", "bench", *sys.argv[1:]])}
    report.update(machine.facts())
    for name, text in report.items():
        print(f"{name}: {text}")
    rows: list[Row] = []
    failures: list[str] = []
    for group in groups:
        print(f"\n{figures.header()}", flush=True)
        try:
            for row in _measured(group, quick=arguments.quick, peers=arguments.peers):
                rows.append(row)
                print(figures.line(row), flush=True)
        except Exception as error:  # one group's failure costs that group; its traceback is the diagnosis
            traceback.print_exc()
            failures.append(f"{group}: {type(error).__name__}: {error}")
    if arguments.json is not None:
        report["ended"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        document = {**report, "rows": [row.as_json() for row in rows], "failures": failures}
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    short = sum(row.verdict == "short" for row in rows)
    met = sum(row.verdict == "met" for row in rows)
    say(f"bench: {len(rows)} figures; targets: {met} met, {short} short; {len(failures)} groups failed")
    for failure in failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _measured(group: str, *, quick: bool, peers: bool) -> Iterator[Row]:
    module = importlib.import_module(f"benchmarks.{group}")
    with server.scratch_directory(f"atsk8s-bench-{group}-") as scratch:
        yield from module.run(Run(scratch=scratch, quick=quick, peers=peers))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build.py bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", type=_group, help=f"of {', '.join(GROUPS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, fewer variants")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--peers", action="store_true", help="also build Contour with Envoy, and Traefik, and measure them alike")
    return parser


def _group(name: str) -> str:
    if name not in GROUPS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(GROUPS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
