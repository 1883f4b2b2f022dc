"""clang-format, clang-tidy, and how headers and the files that include ts.h compile."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import compile as compiler

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGIN_C = compiler.PLUGIN_C
BIN = Path(sys.executable).parent


def name_of(path: Path) -> str:
    """Return a file of plugin_c/ as our includes name it: table/trie.h."""
    return str(path.relative_to(PLUGIN_C))


HEADERS = sorted(name_of(path) for path in PLUGIN_C.rglob("*.h") if path.name != "bridge_callbacks.h")  # cffi's, not C's
SOURCES = sorted(name_of(path) for path in PLUGIN_C.rglob("*.c"))
# ATS 10's ts.h is C++ alone: whatever includes it must be both.
HOST_FILES = sorted(
    name_of(path) for path in PLUGIN_C.rglob("*.[ch]") if any(name.startswith("ts/") for name in compiler.includes(path))
)
TEST_SOURCES = sorted(
    str(path.relative_to(CHECKOUT)) for folder in ("c", "torture", "fuzz") for path in (CHECKOUT / "tests" / folder).rglob("*.[ch]")
)
# bridge.h is written for cffi: its C reader includes these first, as the generated code does.
PRELUDE = "#include <stddef.h>\n#include <stdint.h>\n"


def run(command: Sequence[str], *, stdin: str = "") -> None:
    """Run a tool at the top of the checkout; fail with what it says."""
    done = subprocess.run(command, input=stdin, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def test_clang_format_would_change_nothing() -> None:
    files = [*(f"plugin_c/{name}" for name in (*SOURCES, *HEADERS)), *TEST_SOURCES]
    run([str(BIN / "clang-format"), "--dry-run", "-Werror", *files])


def test_clang_tidy_finds_nothing() -> None:
    # The wheel brings no compiler headers of its own (stddef.h, stdatomic.h), and gcc's stdatomic.h is not clang's.
    own = sorted(Path("/usr/lib/llvm-14/lib/clang").glob("14*/include/stddef.h"))
    if not own:
        pytest.skip("libclang-common-14-dev is not installed")
    flags = ["-std=c11", "-Wno-everything", *compiler.DEFINES, f"-I{PLUGIN_C}"]
    flags += ["-isystem", str(own[-1].parent), "-isystem", compiler.PYTHON_INCLUDE]

    def tidy(name: str) -> str:
        command = [str(BIN / "clang-tidy"), "--quiet", f"plugin_c/{name}", "--", *flags]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        # One finding and its notes a piece.  Those in headers of others (liburcu's inlined readers) are not ours to mend.
        pieces = re.split(r"^(?=/[^:\n]+:\d+:\d+: (?:warning|error): )", done.stdout, flags=re.MULTILINE)
        return "".join(piece for piece in pieces if piece.startswith(f"{CHECKOUT}/"))

    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = "".join(pool.map(tidy, SOURCES))
    if found:
        pytest.fail(found, pytrace=False)


@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone(header: str) -> None:
    prelude = PRELUDE if header == "controller/bridge.h" else ""
    flags = [flag for flag in compiler.compile_flags() if not flag.startswith("-D_FORTIFY")]
    run(["gcc", *flags, "-fsyntax-only", "-x", "c", "-"], stdin=f'{prelude}#include "{header}"\nextern int not_empty;\n')


@pytest.mark.parametrize("name", HOST_FILES)
def test_file_that_includes_ts_h_is_cplusplus_too(name: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    flags = ["-std=c++17", *compiler.DEFINES, "-Wall", "-Wextra", "-Werror", f"-I{PLUGIN_C}"]
    flags += ["-isystem", compiler.PYTHON_INCLUDE]
    run(["g++", *flags, "-fsyntax-only", "-x", "c++", "-"], stdin=f'#include "{PLUGIN_C / name}"\n')
