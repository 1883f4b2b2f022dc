"""The fuzz targets, in C and in Python: where they are, how they replay their corpus, and how they run under libFuzzer.

A target is a file here, fuzz_NAME.c or fuzz_NAME.py, and a corpus in corpus/NAME.  A crash found by `run` is kept as a file; put it
into corpus/NAME/ with the fix, and every test run replays it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy import compile as compiler
from deploy import prerequisites
from tests.c import compiling

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
C_TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c")))
PYTHON_TARGETS = tuple(sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py")))
TARGETS = (*C_TARGETS, *PYTHON_TARGETS)
COMPILERS = ("clang-14", "clang")
_LONGEST_INPUT_BYTES = 4096  # of a target in C; those in Python name theirs
_SLOWEST_INPUT_S = 25  # of wall clock: one that takes longer is a finding


class UnknownTargetError(RuntimeError):
    """There is no such target; the message names those that there are."""


def corpus(target: str) -> list[Path]:
    """Return the files of a target's corpus, sorted."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())


def replay(target: str, files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Run `files` through `target` once each, in a process of their own; a target in C has ASan and UBSan.

    It ends with status 0 and prints "replayed N" if all is well.

    Raises:
        compiling.CompileError: of a target in C.
    """
    program, *arguments = (
        _python("replay", target)
        if target in PYTHON_TARGETS
        else [str(compiling.program(HERE / f"fuzz_{target}.c", flags=(*compiling.SANITIZE, "-DATSK_REPLAY")))]
    )
    environment = _environment() if target in PYTHON_TARGETS else None
    return compiling.run(Path(program), *arguments, *map(str, files), environment=environment)


def _python(what: str, target: str) -> list[str]:
    return [str(prerequisites.ensure_venv("dev") / "bin/python"), "-m", "tests.fuzz.python_targets", what, target]


def _environment() -> dict[str, str]:
    """Of a target in Python.  The build is named once, as sources may change meanwhile."""
    build = os.environ.get("ATSK8S_BUILD") or str(compiler.build().directory)
    return {"ATSK8S_BUILD": build, "PYTHONPATH": str(prerequisites.CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}


def fuzzer(target: str) -> list[str]:
    """Return the command that fuzzes `target` with libFuzzer, and takes libFuzzer's arguments; one in C has ASan and UBSan.

    Raises:
        compiling.CompileError: no clang, or it refused.
    """
    if target in PYTHON_TARGETS:
        return _python("run", target)
    clang = next((name for name in COMPILERS if shutil.which(name)), None)
    if clang is None:
        raise compiling.CompileError("no clang: install clang-14 and libclang-rt-14-dev")
    # gcc's name for what clang calls a feature: publish.c must not inline liburcu, whose alignment UBSan objects to.
    flags = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1", "-D__SANITIZE_ADDRESS__=1")
    binary = compiling.program(HERE / f"fuzz_{target}.c", flags=flags, compiler=clang)
    return ["setarch", "--addr-no-randomize", str(binary), f"-max_len={_LONGEST_INPUT_BYTES}"]


def run(minutes: float, targets: Sequence[str] = ()) -> int:
    """Fuzz `targets`, by default every one, for `minutes` each, starting from its corpus and from what earlier runs found.

    Returns:
        0 if nothing was found, 1 if something crashed; where its input lies and how to repeat it was printed.

    Raises:
        UnknownTargetError: one of `targets` is none.
        compiling.CompileError: no clang, or it refused.
    """
    _check_known(targets)
    work = prerequisites.cache_dir() / "fuzz"
    environment = {**os.environ, **_environment()}
    failed: list[str] = []
    for target in targets or TARGETS:
        command = fuzzer(target)
        found = work / target
        crashes = work / f"{target}-crashes"
        for directory in (found, crashes):
            directory.mkdir(parents=True, exist_ok=True)
        known = set(crashes.iterdir())
        prerequisites.say(f"fuzzing {target} for {minutes:g} minutes")
        command += [
            f"-max_total_time={max(1, int(minutes * 60))}",
            f"-timeout={_SLOWEST_INPUT_S}",
            f"-artifact_prefix={crashes}{os.sep}",
            "-print_final_stats=1",
            "-verbosity=0",
            str(found),
            str(CORPUS / target),
        ]
        status = subprocess.call(command, env=environment)
        if status != 0:
            prerequisites.say(f"{target}: FAILED with status {status}")
            failed.append(target)
            for path in sorted(set(crashes.iterdir()) - known):
                prerequisites.say(f"its input: {path}")
                prerequisites.say(f"to repeat: python3 build.py fuzz --replay {target} {path}")
    if failed:
        prerequisites.say(f"fuzzing found something in: {', '.join(failed)}")
    return 1 if failed else 0


def repeat(target: str, files: Sequence[Path]) -> int:
    """Run `files` through `target` and print what it says; 0 if nothing is wrong.

    Raises:
        UnknownTargetError: there is no such target.
    """
    _check_known([target])
    done = replay(target, [file.absolute() for file in files])
    print(done.stdout + done.stderr, end="")
    return 0 if done.returncode == 0 else 1


def _check_known(targets: Sequence[str]) -> None:
    for target in targets:
        if target not in TARGETS:
            raise UnknownTargetError(f"{target!r} is no fuzz target; there are {', '.join(TARGETS)}")
