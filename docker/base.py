"""A debian:bookworm-slim look-alike, made with debootstrap where a Debian mirror is in reach but no image registry.

Runs as root (debootstrap chroots into what it makes).  The result is a plain root file system tar for `podman import`
or `docker import`.  The trimming is what debuerreotype does for Debian's own -slim images: no man pages, no locales,
no documentation but copyright files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SUITE = "bookworm"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
DEFAULT_MIRROR = "http://deb.debian.org/debian"

_EMPTIED = ("man", "info", "groff", "lintian", "linda", "locale")
_DPKG_EXCLUDES = """path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/groff/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
"""
_RM_DEBS = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
_APT_CLEAN = f"""DPkg::Post-Invoke {{ "{_RM_DEBS}"; }};
APT::Update::Post-Invoke {{ "{_RM_DEBS}"; }};
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""


class BaseError(RuntimeError):
    """The base could not be made; the message says which step failed and what to do."""


def mirror_of(sources: str) -> str:
    """Return the first `URIs:` value of a deb822 sources text, or Debian's own address if it names none."""
    for line in sources.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "uris" and value.split():
            return value.split()[0]
    return DEFAULT_MIRROR


def make_base(out: Path, say: Callable[[str], None]) -> None:
    """Write the root file system tar `out`, replacing it only when the new one is complete.

    Takes about 40 s and 400 MB of scratch space beside `out`.

    Raises:
        BaseError: not root, no debootstrap, or a step of it failed.
    """
    if os.geteuid() != 0:
        raise BaseError("debootstrap needs root: run the image verb through sudo, or give --base=IMAGE")
    if shutil.which("debootstrap") is None:
        raise BaseError("debootstrap is not installed: apt-get install --no-install-recommends debootstrap")
    sources = SOURCES.read_text(encoding="utf-8") if SOURCES.is_file() else ""
    mirror = mirror_of(sources)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="base.", dir=out.parent))
    try:
        root = work / "rootfs"
        say(f"debootstrap {SUITE} from {mirror} (about 40 s)")
        _run(["debootstrap", "--variant=minbase", SUITE, str(root), mirror], work / "debootstrap.log")
        _trim(root)
        _settle(root, sources)
        tar = work / "base.tar"
        argv = ["tar", "--numeric-owner", "--xattrs", "--exclude=./dev/*", "-C", str(root), "-cf", str(tar), "."]
        _run(argv, work / "tar.log")
        tar.replace(out)
    finally:
        # One file system only: if a mount was left behind in the chroot, nothing behind it may be deleted.
        subprocess.run(["rm", "-rf", "--one-file-system", str(work)], check=False)


def _run(argv: list[str], log: Path) -> None:
    with log.open("wb") as sink:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise BaseError(f"{argv[0]} ended with {code}:\n  " + "\n  ".join(tail))


def _trim(root: Path) -> None:
    """Delete what Debian's -slim images leave out, and the caches that debootstrap filled."""
    for pattern in ("var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/log/*.log", "var/cache/ldconfig/aux-cache"):
        for path in root.glob(pattern):
            path.unlink()
    for tree in ("var/lib/apt/lists", "var/log/apt", *(f"usr/share/{name}" for name in _EMPTIED)):
        _empty(root / tree)
    doc = root / "usr/share/doc"
    for path in sorted(doc.rglob("*"), reverse=True):  # children before their directory
        if path.is_symlink() or path.is_file():
            if path.name != "copyright":
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _empty(directory: Path) -> None:
    for path in directory.glob("*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _settle(root: Path, sources: str) -> None:
    """Write the apt and dpkg settings of a container image, and the host's Debian sources."""
    policy = root / "usr/sbin/policy-rc.d"
    files = {
        root / "etc/dpkg/dpkg.cfg.d/docker": _DPKG_EXCLUDES,
        root / "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": "force-unsafe-io\n",
        policy: "#!/bin/sh\nexit 101\n",  # package scripts start no services
        root / "etc/apt/apt.conf.d/docker-clean": _APT_CLEAN,
        root / "etc/apt/apt.conf.d/docker-no-languages": 'Acquire::Languages "none";\n',
        root / "etc/apt/apt.conf.d/docker-gzip-indexes": 'Acquire::GzipIndexes "true";\n',
        root / "etc/apt/apt.conf.d/docker-autoremove-suggests": 'Apt::AutoRemove::SuggestsImportant "false";\n',
        root / "etc/machine-id": "",
    }
    if sources:
        (root / "etc/apt/sources.list").unlink(missing_ok=True)
        files[root / "etc/apt/sources.list.d/debian.sources"] = sources
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    policy.chmod(0o755)
    for name in ("etc/resolv.conf", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
