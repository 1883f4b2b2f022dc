"""The fuzz targets in C: what they are, how they replay their corpus, and how they run under libFuzzer.

A crash found by `run` is kept as a file; put it into tests/fuzz/corpus/TARGET/ with the fix, and every test run replays it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploy import prerequisites
from tests.c import compiling

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c")))
COMPILERS = ("clang-14", "clang")
_LONGEST_INPUT_BYTES = 4096


def corpus(target: str) -> list[Path]:
    """Return the files of a target's corpus, sorted."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


def replayer(target: str) -> Path:
    """Return the program that runs files through `target` once, with ASan and UBSan.  Raises CompileError."""
    return compiling.program(HERE / f"fuzz_{target}.c", flags=(*compiling.SANITIZE, "-DATSK_REPLAY"))


def fuzzer(target: str) -> Path:
    """Return the target linked with libFuzzer, ASan and UBSan.

    Raises:
        compiling.CompileError: no clang, or it refused.
    """
    compiler = next((name for name in COMPILERS if shutil.which(name)), None)
    if compiler is None:
        raise compiling.CompileError("no clang: install clang-14 and libclang-rt-14-dev")
    # gcc's name for what clang calls a feature: publish.c must not inline liburcu, whose alignment UBSan objects to.
    flags = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1", "-D__SANITIZE_ADDRESS__=1")
    return compiling.program(HERE / f"fuzz_{target}.c", flags=flags, compiler=compiler)


def run(minutes: float) -> int:
    """Fuzz every target for `minutes` each, starting from its corpus and from what earlier runs found.

    Returns:
        0 if nothing was found, 1 if something crashed; where its input lies was printed.

    Raises:
        compiling.CompileError: no clang, or it refused.
    """
    work = prerequisites.cache_dir() / "fuzz"
    status = 0
    for target in TARGETS:
        binary = fuzzer(target)
        found = work / target
        crashes = work / f"{target}-crashes"
        for directory in (found, crashes):
            directory.mkdir(parents=True, exist_ok=True)
        prerequisites.say(f"fuzzing {target} for {minutes:g} minutes")
        command = [
            "setarch",
            "--addr-no-randomize",
            str(binary),
            f"-max_total_time={max(1, int(minutes * 60))}",
            f"-max_len={_LONGEST_INPUT_BYTES}",
            f"-artifact_prefix={crashes}{os.sep}",
            "-print_final_stats=1",
            "-verbosity=0",
            str(found),
            str(CORPUS / target),
        ]
        if subprocess.call(command) != 0:
            prerequisites.say(f"{target}: FAILED; its input is in {crashes}")
            status = 1
    return status
