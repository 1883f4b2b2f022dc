"""The `test` verb: set-up for the kinds of tests asked for, then one pytest run over them."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import compile as compiler
from deploy import prerequisites, server
from deploy.prerequisites import CHECKOUT, PrerequisiteError, say

TESTS = CHECKOUT / "tests"
# Cheap and near the cause first, so that what fails first says most.
ORDER = ("unit", "property", "golden", "c", "fuzz", "torture", "lint", "integration", "e2e", "faults", "image")
CONTROL_PLANE = {"e2e", "faults"}  # the kinds that need a real API server


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for."""

    kinds: tuple[str, ...]
    require_all: bool
    soak: float  # minutes of everything at once (faults); 0: the suite's own two
    starts: int  # further starts and stops under load (integration); 0: none
    document: bool  # write docs/reliability.md from what the faults cost
    pytest_arguments: tuple[str, ...]


class UsageError(RuntimeError):
    """The command line is wrong; the message says where."""


def kinds_present() -> list[str]:
    """Return the kinds that have tests, in the order in which they run."""
    return [kind for kind in ORDER if any((TESTS / kind).glob("**/test_*.py"))]


def parse(arguments: Sequence[str]) -> Request:
    """Parse the verb's arguments; what follows `--` is pytest's.

    Raises:
        UsageError: an unknown kind or option.
    """
    split = arguments.index("--") if "--" in arguments else len(arguments)
    ours, pytest_arguments = list(arguments[:split]), tuple(arguments[split + 1 :])
    present = kinds_present()
    kinds: list[str] = []
    require_all, document, soak, starts = False, False, 0.0, 0
    while ours:
        argument = ours.pop(0)
        name, _, value = argument.partition("=")
        if argument == "--require-all":
            require_all = True
        elif argument == "--document":
            document = True
        elif name in ("--soak", "--starts"):
            number = value or (ours.pop(0) if ours else "")
            if name == "--soak":
                soak = _positive(name, number, "minutes")
            else:
                starts = int(_positive(name, number, "starts, a whole number"))
        elif argument in present:
            kinds.append(argument)
        else:
            raise UsageError(
                f"{argument!r} is neither a kind of test ({', '.join(present)}) nor --require-all, --soak MINUTES, --starts N "
                "or --document; arguments for pytest follow --"
            )
    ordered = tuple(kind for kind in present if kind in kinds or not kinds)
    if (soak or document) and "faults" not in ordered:
        raise UsageError("--soak MINUTES and --document are for the kind faults: build.py test faults --soak 30")
    if starts and "integration" not in ordered:
        raise UsageError("--starts N is for the kind integration: build.py test integration --starts 1000")
    return Request(
        kinds=ordered, require_all=require_all, soak=soak, starts=starts, document=document, pytest_arguments=pytest_arguments
    )


def _positive(name: str, number: str, what: str) -> float:
    try:
        found = float(number) if name == "--soak" else float(int(number))
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise UsageError(f"{name}={number}: expected a number of {what}, above 0")
    return found


def main(arguments: Sequence[str]) -> int:
    """Set up, run, and return pytest's exit status: 0 when every test passed."""
    request = parse(arguments)
    started_s = time.monotonic()
    _install_packages(request)
    if {"integration", *CONTROL_PLANE} & set(request.kinds):
        server.check_reachable(prerequisites.cache_dir())
    python = prerequisites.ensure_venv("dev") / "bin/python"
    built = compiler.build()
    environment = _environment(built)
    environment["ATSK8S_COMMAND"] = shlex.join(["python3", "build.py", "test", *arguments])
    seed = environment["ATSK8S_SEED"]
    say(f"kinds: {' '.join(request.kinds)}; seed {seed} (ATSK8S_SEED={seed} repeats it)")
    ahead = _build_control_plane(python, environment) if CONTROL_PLANE & set(request.kinds) else None
    try:
        code = subprocess.call(_command(python, request), env=environment, cwd=CHECKOUT)
    finally:
        if ahead is not None and ahead.poll() is None:
            os.killpg(ahead.pid, signal.SIGTERM)
            ahead.wait()
    if code == 0 and request.document:
        code = subprocess.call([str(python), "-m", "tests.faults.report"], env=environment, cwd=CHECKOUT)
    say(f"tests ended with {code} after {time.monotonic() - started_s:.0f} s; seed {seed}")
    return code


def _command(python: Path, request: Request) -> list[str]:
    command = [str(python), "-m", "pytest", "-o", f"cache_dir={prerequisites.cache_dir() / 'pytest'}"]
    if request.require_all:
        command.append("--require-all")
    if request.soak:
        command += ["--soak", str(request.soak)]
    if request.starts:
        command += ["--starts", str(request.starts)]
    return [*command, *(str(TESTS / kind) for kind in request.kinds), *request.pytest_arguments]


def _environment(built: compiler.Build) -> dict[str, str]:
    """Return the environment for pytest: nothing of the caller's Python, nothing that the plugins would take for options."""
    kept: Mapping[str, str] = os.environ
    foreign = ("PYTHON", "ATSK8S_", "INGRESS_", "TS_", "PROXY_CONFIG_", "KUBE", "PYTEST_")
    found = {name: value for name, value in kept.items() if not name.startswith(foreign)}
    cache = prerequisites.cache_dir()
    found.update(
        ATSK8S_BUILD_CACHE=str(cache),
        ATSK8S_BUILD=str(built.directory),
        ATSK8S_SEED=kept.get("ATSK8S_SEED") or str(secrets.randbelow(2**32)),
        HYPOTHESIS_STORAGE_DIRECTORY=str(cache / "hypothesis"),
        PYTHONDONTWRITEBYTECODE="1",  # the checkout may be read-only, or another user's
        PYTHONFAULTHANDLER="1",
    )
    return found


def _install_packages(request: Request) -> None:
    prerequisites.ensure_packages((*prerequisites.BUILD, *prerequisites.RUN), purpose="test")
    for kind in request.kinds:
        packages = prerequisites.image_packages() if kind == "image" else prerequisites.TEST_KINDS.get(kind, ())
        try:
            prerequisites.ensure_packages(packages, purpose=f"test {kind}")
        except PrerequisiteError as error:
            if request.require_all:
                raise
            say(f"{error}\n  Going on: tests that need them are skipped.")


def _build_control_plane(python: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Build kube-apiserver and the others while cheaper tests run; the e2e tests wait for it, or report why it failed."""
    log_path = prerequisites.cache_dir() / "controlplane-build.log"
    say(f"building the Kubernetes control plane beside the tests, minutes the first time (log: {log_path})")
    with log_path.open("wb") as log:
        return subprocess.Popen(
            ["nice", str(python), "-m", "tests.harness.controlplane", "build"],
            cwd=CHECKOUT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
