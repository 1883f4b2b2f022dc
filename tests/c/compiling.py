"""Small C programs over the core's sources: built once per content, with or without sanitizers, and run.

A binary's name in the cache is a hash of everything it is made of (sources, headers, flags, compiler), so an unchanged program
is not built twice, and two runs at a time cannot disturb each other.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import prerequisites

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGIN_C = CHECKOUT / "plugin_c"
CORE = tuple(
    PLUGIN_C / f"{name}.c"
    for name in (
        "table/request",
        "blob/policies",
        "blob/vhost",
        "table/trie_nodes",
        "table/trie",
        "endpoints/affinity",
        "endpoints/affinity_key",
        "endpoints/health",
        "endpoints/balance",
        "endpoints/endpoint_set",
        "endpoints/endpoints",
        "table/certificates",
        "table/records",
        "table/places",
        "table/publish",
        "table/match",
        "controller/stats",
        "policy/retry_budget",
        "policy/client_limits",
        "policy/timeouts",
        "policy/grpc",
        "policy/treatment",
        "policy/defaults",
        "process/options",
        "controller/ats_records",
        "controller/controller",
        "controller/state",
        "controller/state_save",
    )
)
FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
    "-fvisibility=hidden",
    "-O2",
    "-g",
    "-pthread",
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
LIBRARIES = ("-lurcu-bp", "-lurcu-common", "-lssl", "-lcrypto", "-lpthread")

# No leak, no overflow and no undefined behaviour passes; addresses in reports are worth their lines.
_SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=66:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=66",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:second_deadlock_stack=1",
}
_KEPT_S = 7 * 86400.0


class CompileError(RuntimeError):
    """The compiler refused; the message is its own."""


@functools.cache
def compiler_version(compiler: str) -> str:
    """Return the first line that `compiler --version` prints.  Raises CompileError when there is no such compiler."""
    try:
        shown = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(f"{compiler} does not run: {error}") from error
    return shown.stdout.splitlines()[0]


def _headers(directories: Sequence[Path]) -> list[Path]:
    return sorted(header for directory in directories for header in directory.rglob("*.[ch]"))


def program(
    source: Path,
    *,
    core: Sequence[Path] = CORE,
    flags: Sequence[str] = (),
    libraries: Sequence[str] = LIBRARIES,
    compiler: str = "cc",
    includes: Sequence[Path] = (),
) -> Path:
    """Return the built program of `source` and `core`, from the cache if nothing it is made of has changed.

    Args:
        source: the file with main(); its folder and tests/c are on the include path.
        flags: after FLAGS, so that they win.
        includes: system include directories, searched before the system's own.

    Raises:
        CompileError: the compiler refused.
    """
    places = list(dict.fromkeys((PLUGIN_C, source.parent, CHECKOUT / "tests/c")))
    compile_flags = [*FLAGS, *(f"-I{place}" for place in places), *(f"-isystem{place}" for place in includes)]
    compile_flags += [flag for flag in flags if not flag.startswith("-Wl,")]
    objects = [_object(path, compiler, compile_flags, _headers(places)) for path in (*core, source)]
    digest = hashlib.sha256(repr((compiler_version(compiler), flags, libraries, [path.name for path in objects])).encode())
    for library in libraries:
        if library.startswith("/"):
            digest.update(Path(library).read_bytes())
    arguments = [compiler, "-pthread", *flags, *map(str, objects)]
    return _made(f"{source.stem}-{digest.hexdigest()[:24]}", arguments, libraries, f"{source.name} does not link")


def _object(path: Path, compiler: str, flags: Sequence[str], headers: Sequence[Path]) -> Path:
    digest = hashlib.sha256(repr((compiler_version(compiler), flags, str(path))).encode())
    for part in (path, *headers):
        digest.update(part.read_bytes())
    arguments = [compiler, *flags, "-c", str(path)]
    return _made(f"{path.stem}-{digest.hexdigest()[:24]}.o", arguments, (), f"{path.name} does not compile")


def _made(name: str, arguments: Sequence[str], libraries: Sequence[str], failure: str) -> Path:
    """Return the cached file `name`, made by the compiler if it is not there; a file appears whole or not at all."""
    cache = prerequisites.cache_dir() / "c"
    cache.mkdir(exist_ok=True)
    target = cache / name
    if not target.exists():
        aside = target.with_name(f"{os.getpid()}.{target.name}")
        done = subprocess.run([*arguments, "-o", str(aside), *libraries], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            aside.unlink(missing_ok=True)
            raise CompileError(f"{failure}:\n{done.stderr[:8000]}")
        aside.replace(target)
        _forget_old(cache)
    os.utime(target)
    return target


def _forget_old(cache: Path) -> None:
    """Remove what no run has used for a week."""
    for path in cache.iterdir():
        try:
            if time.time() - path.stat().st_mtime > _KEPT_S and path.is_file():
                path.unlink()
        except FileNotFoundError:
            pass  # another run was faster


def run(
    binary: Path, *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with its output captured; the sanitizers' options are set.

    Raises:
        subprocess.TimeoutExpired: it took longer; it is killed.
    """
    settings = {**os.environ, **_SANITIZER_ENVIRONMENT, **(environment or {})}
    # Some kernels place memory where older sanitizers cannot map their shadow: without randomisation they always can.
    command = ["setarch", "--addr-no-randomize", str(binary), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=settings, timeout=timeout_s, check=False)


def death_of(returncode: int) -> str:
    """Return how a program ended, in words."""
    return f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"status {returncode}"
