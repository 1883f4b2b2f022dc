"""The fuzz targets in Python: how they replay files, and how they run under Atheris.

Atheris (Google, Apache-2.0) is libFuzzer for CPython: it counts the edges of our modules' bytecode and the outcomes of their
comparisons, has a wheel for Debian's Python, and its corpora, dictionaries and crash files are those of the targets in C.  HypoFuzz
was the other candidate: it drives Hypothesis tests, keeps no corpus of plain files, and sees lines rather than comparisons.

    python -m tests.fuzz.python_targets replay TARGET FILE...
    python -m tests.fuzz.python_targets run TARGET [libFuzzer's arguments]
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import compile as compiler
from tests.fuzz.target import MutateBytes as MutateBytes
from tests.fuzz.target import Target

_COUNTED = ("atsk8s", "kubernetes.config")  # packages whose edges count
_BLIND_SHARE = 1 / 3  # of mutations that know nothing of the input's shape


def load(name: str) -> Target:
    """The target `name`.  Raises ModuleNotFoundError for one that there is not."""
    found = importlib.import_module(f"tests.fuzz.fuzz_{name}").TARGET
    assert isinstance(found, Target)
    return found


def replay(name: str, files: Sequence[str]) -> int:
    """Run each file once and say how many; 1 at the first that shows a defect, which is named."""
    target = load(name)
    for file in files:
        try:
            target.check(Path(file).read_bytes())
        except Exception:
            traceback.print_exc()
            print(f"{file}: FAILED", file=sys.stderr)
            return 1
    print(f"replayed {len(files)}")
    return 0


def run(name: str, arguments: Sequence[str]) -> None:
    """Hand over to libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=list(_COUNTED)):
        target = load(name)

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if target.mutate is None or rng.random() < _BLIND_SHARE:
            return _bytes(atheris.Mutate(data, size_max))
        return target.mutate(data, rng, _bounded(atheris, target.size_max))[:size_max]

    with tempfile.NamedTemporaryFile("w", prefix="atsk8s-words-", suffix=".dict", encoding="ascii") as words:
        words.writelines(f'"{_escaped(word)}"\n' for word in target.words if word)
        words.flush()
        own = [f"-max_len={target.size_max}", f"-dict={words.name}"]
        atheris.Setup([sys.argv[0], *own, *arguments], target.check, custom_mutator=mutate, internal_libfuzzer=True)
        atheris.Fuzz()


def _escaped(word: str) -> str:
    """As libFuzzer's dictionaries want it: every byte by number, which is never wrong."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def _bytes(data: Any) -> bytes:
    assert isinstance(data, bytes)
    return data


def _bounded(atheris: Any, size_max: int) -> MutateBytes:
    return lambda data, size: _bytes(atheris.Mutate(data[:size_max], max(1, min(size, size_max))))


def main(arguments: Sequence[str]) -> int:
    """Parse the command line of the module's description; ATSK8S_BUILD names the build whose core takes the commits."""
    named = os.environ.get("ATSK8S_BUILD")
    built = compiler.Build(directory=Path(named)) if named else compiler.build()
    sys.path.insert(0, str(built.core))
    match arguments:
        case ["replay", name, *files]:
            return replay(name, files)
        case ["run", name, *rest]:
            run(name, rest)
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
