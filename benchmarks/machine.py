"""What a figure depends on: machine, versions, commit; and CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
_PACKAGES = ("trafficserver", "libssl3", "liburcu8", "libpython3.11", "libc6", "wrk")


def facts() -> dict[str, str]:
    """Return what identifies machine and software, for the report."""
    memory_kib = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), "0")
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory_kib) / 1024 / 1024:.0f} GiB",
        "kernel": platform.release(),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "commit": _commit(),
        "packages": _said(["dpkg-query", "-W", "-f", "${Package}=${Version} ", *_PACKAGES]),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _said(command: list[str]) -> str:
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip()


def _commit() -> str:
    commit = _said(["git", "rev-parse", "--short=12", "HEAD"])
    changed = bool(_said(["git", "status", "--porcelain", "--", "atsk8s", "plugin_c", "deploy", "benchmarks"]))
    return f"{commit or 'unknown'}{' and uncommitted changes' if changed else ''}"


def process_tree(pid: int) -> list[int]:
    """Return `pid` and its children, and theirs; those that ended meanwhile are left out."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time, user and system, that these processes have used so far [s].

    By /proc/PID/task/TID/schedstat, which counts nanoseconds where /proc/PID/stat counts ticks of 10 ms of the same time.
    """
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total_ns += int(task.read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total_ns / 1e9


def rss_kib(pid: int) -> int:
    """Return the resident memory of one process [KiB]."""
    return next(int(line.split()[1]) for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS:"))
