"""What a run of the fault suite has measured: kept as JSON, said in one line a fault, written as docs/reliability.md.

`python -m tests.faults.report` writes the document from the last whole run; `build.py test faults --document` runs and writes.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from deploy import prerequisites
from tests.harness.patience import stretched

DOCUMENT = prerequisites.CHECKOUT / "docs/reliability.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


@dataclasses.dataclass(slots=True, kw_only=True)
class Fault:
    """One fault as a test measures it; `n_failed` counts requests whose answer was not the right one."""

    name: str
    group: str
    right: str  # what a request must get; where a failure cannot be avoided, the answer that says so
    n_failed_max: int = 0
    recovered_max_s: float = 0.0
    n_sent: int = 0
    n_failed: int = 0
    recovered_s: float = 0.0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    is_whole: bool = False  # the test came to its end

    @property
    def line(self) -> str:
        """The line of the report."""
        said = f"fault {self.name}: sent {self.n_sent}, failed {self.n_failed}, recovered in {self.recovered_s:.1f} s"
        return said if self.is_whole else f"{said} (NOT ENDED: the test failed)"

    def count(self, n_ok: int, failures: Mapping[str, int]) -> None:
        """Add requests: those with the right answer, and the others by what became of them."""
        n_failed = sum(failures.values())
        self.n_sent += n_ok + n_failed
        self.n_failed += n_failed
        for what, n in failures.items():
            self.failures[what] = self.failures.get(what, 0) + n

    def check(self, *, at_least: int) -> None:
        """Fail unless every bar holds, that of the time stretched on a busy machine, and `at_least` requests were sent."""
        assert self.n_sent >= at_least, f"{self.line}: fewer than {at_least} requests: the load did not run"
        assert self.n_failed <= self.n_failed_max, f"{self.line}: at most {self.n_failed_max} may fail: {self.failures}"
        recovered_max_s = stretched(self.recovered_max_s)
        assert self.recovered_s <= recovered_max_s, f"{self.line}: it must recover within {recovered_max_s:g} s"


FaultFactory: TypeAlias = Callable[..., Fault]


def results_path() -> Path:
    """Where the last run's results are."""
    return prerequisites.cache_dir() / "faults.json"


def write_results(faults: Sequence[Fault], *, is_whole: bool, elapsed_s: float) -> Path:
    """Keep what was measured; `is_whole`: every test of the kind ran and passed."""
    made = {
        "command": os.environ.get("ATSK8S_COMMAND", "pytest tests/faults"),
        "commit": commit(),
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "elapsed_s": round(elapsed_s),
        "is_whole": is_whole,
        "faults": [dataclasses.asdict(fault) for fault in faults],
    }
    path = results_path()
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(made, indent=1), encoding="utf-8")
    aside.replace(path)
    return path


def commit() -> str:
    """The checkout's commit, and whether it has changes of its own; "unknown" without git."""
    git = ["git", "-c", f"safe.directory={prerequisites.CHECKOUT}", "-C", str(prerequisites.CHECKOUT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with changes" if status.strip() else head


def machine() -> str:
    """Processor, cores, memory and kernel."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gb:.0f} GiB, Linux {platform.release()}"


def table(results: Mapping[str, Any]) -> str:
    """The generated part of the document."""
    lines = [
        f"`{results['command']}`, {results['date']}, commit {results['commit']}, {results['elapsed_s']} s; {results['machine']}.",
        "",
    ]
    faults = [Fault(**one) for one in results["faults"]]
    for group in dict.fromkeys(fault.group for fault in faults):
        lines += [
            f"### {group}",
            "",
            "| fault | sent | failed | recovered in | bar | the right answer |",
            "|---|---|---|---|---|---|",
        ]
        for fault in faults:
            if fault.group == group:
                failed = f"{fault.n_failed}" + (f" (at most {fault.n_failed_max})" if fault.n_failed_max else "")
                right = "; ".join([fault.right, *fault.notes]).replace("|", "\\|")
                recovered = f"{fault.recovered_s:.1f} s | {fault.recovered_max_s:g} s"
                lines.append(f"| {fault.name} | {fault.n_sent} | {failed} | {recovered} | {right} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def write_document(results: Mapping[str, Any]) -> None:
    """Put the table into docs/reliability.md.

    Raises:
        ValueError: the run was not whole, or the machine was so busy that a bar was stretched, or the document has no place for it.
    """
    if not results["is_whole"]:
        raise ValueError("the last run left tests out or failed: only a whole run is documented")
    late = [one["name"] for one in results["faults"] if one["recovered_s"] > one["recovered_max_s"]]
    if late:
        raise ValueError(f"the machine was busy, and {late} took longer than the bar: run it again with the cores to itself")
    text = DOCUMENT.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} has no {BEGIN} and {END}")
    DOCUMENT.write_text(f"{before}{begin}\n{table(results)}\n{end}{after}", encoding="utf-8")


def main(arguments: Iterable[str]) -> int:
    """Write the document from the last run."""
    if list(arguments):
        print("usage: python -m tests.faults.report", file=sys.stderr)
        return 2
    try:
        write_document(json.loads(results_path().read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        print(f"{DOCUMENT}: {error}", file=sys.stderr)
        return 1
    print(f"written: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
