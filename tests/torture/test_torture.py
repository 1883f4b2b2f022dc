"""Torture of publish.c: readers and a writer without pause.  Nothing torn, stale or poisoned may be seen; a build that is broken
on purpose must be caught, or the clean runs would prove nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.c import compiling

SOURCE = Path(__file__).resolve().parent / "torture.c"
SECONDS = float(os.environ.get("ATSK8S_TORTURE_S", "3"))
READERS = max(2, os.cpu_count() or 2)
POISON = ("-DATSK_POISON",)
TSAN = ("-fsanitize=thread", "-DATSK_POISON")
TSAN_ENVIRONMENT = {
    "TSAN_OPTIONS": f"halt_on_error=1:exitcode=66:second_deadlock_stack=1:suppressions={Path(__file__).with_name('tsan.supp')}"
}
RELAXED = "-DATSK_BREAK_PUBLISH=1"
EARLY_FREE = "-DATSK_BREAK_PUBLISH=2"
_FIGURES = re.compile(r"^reads (\d+) generations (\d+) torn (\d+) stale (\d+) poisoned (\d+)$", re.MULTILINE)


def torture(binary: Path, seconds: float = SECONDS) -> tuple[int, str]:
    """Run for `seconds`, and return the exit status and all that was printed."""
    done = compiling.run(binary, f"{seconds:g}", str(READERS), environment=TSAN_ENVIRONMENT, timeout_s=seconds * 10 + 120)
    return done.returncode, done.stdout + done.stderr


def assert_clean(status: int, output: str) -> None:
    """Fail unless the run ended well, readers read, the writer committed, and all three counts are 0."""
    figures = _FIGURES.search(output)
    assert figures is not None and status == 0, f"{compiling.death_of(status)}\n{output[-6000:]}"
    reads, generations, *wrong = map(int, figures.groups())
    assert reads > 1000 and generations > 10, f"hardly anything happened: {figures.group()}"
    assert wrong == [0, 0, 0], figures.group()


@pytest.mark.parametrize("flags", [POISON, (*POISON, *compiling.SANITIZE)], ids=["plain", "sanitized"])
def test_readers_see_published_generations_only(flags: tuple[str, ...]) -> None:
    assert_clean(*torture(compiling.program(SOURCE, flags=flags)))


def test_memory_freed_without_a_grace_period_is_caught() -> None:
    status, output = torture(compiling.program(SOURCE, flags=(EARLY_FREE, *compiling.SANITIZE)))

    assert status != 0 and "heap-use-after-free" in output, f"not caught: {compiling.death_of(status)}\n{output[-3000:]}"


def test_no_data_race() -> None:
    """publish.c tells ThreadSanitizer what a grace period orders; Debian's liburcu is not instrumented."""
    assert_clean(*torture(compiling.program(SOURCE, flags=TSAN)))


@pytest.mark.parametrize("broken", [RELAXED, EARLY_FREE], ids=["relaxed", "early-free"])
def test_broken_publication_is_caught_by_tsan(broken: str) -> None:
    status, output = torture(compiling.program(SOURCE, flags=(*TSAN, broken)))

    assert status != 0 and "WARNING: ThreadSanitizer" in output, f"not caught: {compiling.death_of(status)}\n{output[-3000:]}"
    assert "atsk_" in output, f"not in code of ours:\n{output[-3000:]}"
