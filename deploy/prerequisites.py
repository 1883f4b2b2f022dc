"""What a verb needs on a fresh Debian 12: packages from apt, and private virtual environments in the cache directory.

Runs under any python3 >= 3.9 with the standard library alone: build.py comes here first.  Says what it installs; never asks
apt when dpkg already has everything.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3.11"  # Debian's: traffic_server embeds this one's library, so no other will do

PYTHON_PACKAGES = ("python3.11", "python3.11-venv")
BUILD = (*PYTHON_PACKAGES, "gcc", "libc6-dev", "libpython3.11-dev", "libssl-dev", "liburcu-dev", "trafficserver-dev")
RUN = ("ca-certificates", "libpython3.11", "liburcu8", "trafficserver")
DEMO = (*BUILD, *RUN, "curl")
BENCH = (*BUILD, *RUN, "curl", "iproute2", "nftables", "nghttp2-client", "procps", "util-linux")
FUZZ = (*BUILD, "clang-14", "libclang-rt-14-dev")

# What tests/harness makes pod networks with.
_NETWORK = ("iproute2", "iptables", "mount", "nftables", "util-linux")
# What the kinds of tests need beyond BUILD and RUN.  The image kind takes what docker/image.py names.
TEST_KINDS: Dict[str, Tuple[str, ...]] = {
    "unit": (),
    "property": (),
    "golden": (),
    "c": ("clang-14", "libclang-rt-14-dev"),
    "torture": (),  # gcc brings its sanitizers
    "fuzz": ("clang-14", "libclang-rt-14-dev"),
    "integration": (*_NETWORK, "curl", "git", "nghttp2-client", "openssl", "procps"),
    "e2e": (*_NETWORK, "curl", "openssl", "procps"),
    "faults": (*_NETWORK, "libfaketime", "openssl", "procps"),
    # clang-tidy itself comes from requirements-dev.lock, without the compiler's own headers.
    "lint": ("g++", "git", "libclang-common-14-dev"),
}


def image_packages() -> Tuple[str, ...]:
    """Return what docker/image.py says it needs; read, not imported: that file wants a newer Python than this one."""
    path = CHECKOUT / "docker/image.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["PACKAGES"]:
            return tuple(ast.literal_eval(node.value))
    raise PrerequisiteError(f"{path} names no PACKAGES")


class PrerequisiteError(RuntimeError):
    """Something that the verb needs is not there and could not be installed; the message says what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"atsk8s: {text}", flush=True)


def cache_dir() -> Path:
    """Return the directory of everything that is built or downloaded, and make it.

    ATSK8S_BUILD_CACHE, else /var/cache/atsk8s for root, else $XDG_CACHE_HOME/atsk8s or ~/.cache/atsk8s.
    """
    named = os.environ.get("ATSK8S_BUILD_CACHE")
    if named:
        path = Path(named).absolute()
    elif os.geteuid() == 0:
        path = Path("/var/cache/atsk8s")
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atsk8s"
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise PrerequisiteError(f"cache directory {path}: {error.strerror}; name another by ATSK8S_BUILD_CACHE") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise PrerequisiteError(f"cache directory {path}: not writable; set ATSK8S_BUILD_CACHE to a directory of yours")
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; waits for whoever holds it, says so, and survives their death."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another build ({path})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing_packages(packages: Iterable[str]) -> List[str]:
    """Return those Debian packages that are not installed, sorted."""
    wanted = sorted(set(packages))
    if not wanted:
        return []
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\n", *wanted],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
            check=False,  # 1 when one is unknown; what is known is printed all the same
        )
    except FileNotFoundError:
        raise PrerequisiteError(
            "no dpkg here: atsk8s builds on Debian 12; elsewhere use the container image (docker/Dockerfile)"
        ) from None
    installed = {line.split("\t")[0] for line in done.stdout.splitlines() if line.endswith("\tinstalled")}
    return [name for name in wanted if name not in installed]


def ensure_packages(packages: Iterable[str], *, purpose: str) -> None:
    """Install what is missing of `packages`, as root or through sudo.

    Raises:
        PrerequisiteError: neither is possible, or apt failed; names the packages.
    """
    missing = missing_packages(packages)
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() == 0:
        prefix: List[str] = []
    elif shutil.which("sudo") and (sys.stdin.isatty() or _run(["sudo", "-n", "true"]) == 0):
        prefix = ["sudo"]
    else:
        raise PrerequisiteError(f"{purpose} needs Debian packages that are not installed; as root:\n  {command}")
    log = cache_dir() / "apt.log"
    say(f"{purpose}: installing {len(missing)} Debian packages (log: {log}): {' '.join(missing)}")
    log.write_bytes(b"")
    with _service_kept_still(prefix, missing):
        install = [*prefix, *_APT, "install", "-q", "-y", "--no-install-recommends", *missing]
        code = _run(install, log=log)
        if code != 0:
            say("apt-get update, as the package lists seem absent or old")
            _run([*prefix, *_APT, "update", "-q"], log=log)
            code = _run(install, log=log)
    still = missing_packages(missing)
    if code != 0 or still:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise PrerequisiteError(
            f"apt-get could not install {' '.join(still or missing)} (exit status {code}):\n{last}\n"
            f"atsk8s builds on Debian 12; elsewhere use the container image. By hand:\n  {command}"
        )


# The lock is waited for: somebody else may be installing.
_APT = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "PREVLEVEL=N", "apt-get", "-o", "DPkg::Lock::Timeout=600"]


@contextlib.contextmanager
def _service_kept_still(prefix: Sequence[str], packages: Sequence[str]) -> Iterator[None]:
    """Keep Debian's trafficserver package from starting a server on port 8080 when it is installed for the first time.

    systemd: a run-time mask while apt runs, then the service is left disabled.  Without systemd RUNLEVEL=1 (see _APT) tells
    invoke-rc.d that this is no time to start services, and whatever started all the same is stopped.  A policy-rc.d would do
    too, but it would rule over every other package that apt touches meanwhile.
    """
    if "trafficserver" not in packages:
        yield
        return
    systemd = os.path.isdir("/run/systemd/system")
    if systemd:
        _run([*prefix, "systemctl", "mask", "--runtime", "trafficserver.service"])
    try:
        yield
    finally:
        if systemd:
            _run([*prefix, "systemctl", "unmask", "--runtime", "trafficserver.service"])
            _run([*prefix, "systemctl", "disable", "trafficserver.service"])
            say("Debian's own trafficserver service stays off; to use it: systemctl enable --now trafficserver")
        elif os.path.exists("/etc/init.d/trafficserver"):
            _run([*prefix, "/etc/init.d/trafficserver", "stop"])


def _run(command: Sequence[str], *, log: Path = Path(os.devnull)) -> int:
    """Run a command with its output appended to `log`; sudo asks for a password on the terminal itself."""
    try:
        with log.open("ab") as sink:
            return subprocess.run(command, stdout=sink, stderr=sink, check=False).returncode
    except FileNotFoundError:
        return 127


def ensure_venv(name: str) -> Path:
    """Return the virtual environment `name` ("run": what is embedded; "dev": that and the tools), made if need be.

    It holds exactly what its lock file names and is keyed by that file, so that it never changes once made.  Everybody may
    read it: Traffic Server gives up root before it loads plugins.

    Raises:
        PrerequisiteError: Python is missing or pip failed.
    """
    lock = CHECKOUT / {"run": "requirements.lock", "dev": "requirements-dev.lock"}[name]
    version = subprocess.run([PYTHON, "-V"], stdout=subprocess.PIPE, check=True).stdout
    digest = hashlib.sha256(lock.read_bytes() + version).hexdigest()[:12]
    cache = cache_dir()
    path = cache / f"venv-{name}-{digest}"
    complete = path / ".complete"
    if complete.exists():
        return path
    with locked(cache / f"venv-{name}.lock"):
        if complete.exists():
            return path
        if path.exists():
            shutil.rmtree(path)
        packages = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        say(f"installing {len(packages)} Python packages ({lock.name}) into {path}")
        # Not made aside and renamed: a virtual environment knows its own path.
        _checked([PYTHON, "-m", "venv", str(path)], f"cannot make {path}: is python3.11-venv installed?")
        pip = [str(path / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        hint = f"pip could not install {lock.name}; its lines above say why (pip's own settings and PIP_* apply)"
        _checked([*pip, "-r", str(lock)], hint)
        complete.touch()
    return path


def _checked(command: Sequence[str], failure: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    done = subprocess.run(command, env=environment, check=False, umask=0o022)
    if done.returncode != 0:
        raise PrerequisiteError(failure)
