"""Every fuzz target replays its corpus; those in C under ASan and UBSan."""

from __future__ import annotations

import pytest

from atsk8s.compile import state_file
from tests.c import compiling
from tests.fuzz import fuzzing


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_corpus_is_harmless(build: object, target: str) -> None:
    files = fuzzing.corpus(target)
    assert files, f"tests/fuzz/corpus/{target} is empty"

    done = fuzzing.replay(target, files)

    assert done.returncode == 0, (
        f"{target}: {compiling.death_of(done.returncode)}; the last file named is the one\n{done.stderr[-6000:]}"
    )
    assert done.stdout == f"replayed {len(files)}\n"


def test_every_target_has_a_corpus() -> None:
    assert set(fuzzing.TARGETS) == {path.name for path in fuzzing.CORPUS.iterdir() if path.is_dir() and any(path.glob("*"))}


def test_states_are_of_the_version_that_is_read() -> None:
    """One of another is refused at its header, and what lies behind is not looked at."""
    versions = {state_file.STATE_HEADER.unpack_from(path.read_bytes())[1] for path in fuzzing.corpus("state")}
    assert versions == {state_file.VERSION}, "convert tests/fuzz/corpus/state"
