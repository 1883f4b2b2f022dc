"""Every test_*.c here: compiled with the core's sources, plain and under ASan and UBSan, run, and its TAP output checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.c import compiling

HERE = Path(__file__).resolve().parent
PROGRAMS = sorted(HERE.glob("test_*.c"))
_WRAP = ("-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc",)
_FLAGS_LINE = re.compile(r"^/\* flags: (.*)$", re.MULTILINE)


def own_flags(source: Path) -> tuple[str, ...]:
    """Return the flags that the first comment of a test asks for."""
    found = _FLAGS_LINE.search(source.read_text(encoding="utf-8"))
    return tuple(found.group(1).split()) if found else ()


def tap_failures(output: str) -> list[str]:
    """Return what is wrong with a TAP stream: failed points, and a plan that is missing or not kept."""
    wrong = [line for line in output.splitlines() if line.startswith(("not ok", "Bail out"))]
    plan = re.search(r"^1\.\.(\d+)$", output, re.MULTILINE)
    points = len(re.findall(r"^(?:not )?ok \d+ - ", output, re.MULTILINE))
    if plan is None:
        wrong.append("no plan: the program did not reach its end")
    elif int(plan.group(1)) != points or points == 0:
        wrong.append(f"{points} points, planned {plan.group(1)}")
    return wrong


@pytest.mark.parametrize("is_sanitized", [False, True], ids=["plain", "sanitized"])
@pytest.mark.parametrize("source", PROGRAMS, ids=lambda source: source.stem)
def test_program(source: Path, is_sanitized: bool) -> None:
    flags = (*own_flags(source), *(compiling.SANITIZE if is_sanitized else ()), *_WRAP)
    done = compiling.run(compiling.program(source, flags=flags))

    failures = tap_failures(done.stdout)
    assert not failures and done.returncode == 0, "\n".join(
        [f"{source.name}: {compiling.death_of(done.returncode)}", *failures, done.stdout[-3000:], done.stderr[-6000:]]
    )


def test_allocations_that_fail_are_noticed() -> None:
    """The wrapping works at all: a program that were linked without it would pass every allocation test."""
    binary = compiling.program(HERE / "test_endpoints.c", flags=_WRAP)
    assert "7 allocations failed in turn" in compiling.run(binary).stdout
