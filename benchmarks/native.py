"""The benchmark's own C programs, compiled into the cache directory when they are first needed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy import compile as compiler
from deploy import prerequisites

HERE = Path(__file__).resolve().parent
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra")


class NativeError(RuntimeError):
    """A program did not compile; the message holds what the compiler said."""


def cache_dir() -> Path:
    """Return the directory for what the benchmark makes or downloads."""
    path = prerequisites.cache_dir() / "bench"
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def program(name: str, *, libraries: Sequence[str] = (), with_core: bool = False, includes: Sequence[Path] = ()) -> Path:
    """Return the program made from benchmarks/NAME.c.

    Args:
        name: without ".c".
        libraries: linker arguments.
        includes: further directories of headers.
        with_core: also compile in the parts of plugin_c/ that need neither Traffic Server nor Python.

    Raises:
        NativeError: it does not compile.
    """
    sources = [HERE / f"{name}.c"]
    flags = [*_FLAGS, *(f"-I{path}" for path in includes)]
    digest = hashlib.sha256(repr((flags, libraries)).encode())
    if with_core:
        sources += [source for source in compiler.sources() if compiler.is_host_independent(source)]
        flags += ["-iquote", str(compiler.PLUGIN_C)]  # not -I: a header there may be named as one of the system is
        libraries = [*libraries, *compiler.LIBRARIES]
        for header in sorted(compiler.PLUGIN_C.rglob("*.h")):
            digest.update(header.read_bytes())
    for source in sources:
        digest.update(source.read_bytes())
    path = cache_dir() / f"{name}-{digest.hexdigest()[:16]}"
    if not path.exists():
        aside = path.with_name(f".{path.name}.new")
        command = ["gcc", *flags, "-o", str(aside), *map(str, sources), "-pthread", *libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NativeError(f"benchmarks/{name}.c does not compile:\n{done.stderr}")
        aside.replace(path)
    return path
