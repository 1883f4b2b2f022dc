"""The commands that a newcomer types, in the places where checkouts live."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import compile as compiler
from deploy import server
from tests.harness.processes import LOOPBACK, free_ports

CHECKOUT = Path(__file__).resolve().parents[2]
DEMO_TIMEOUT_S = 280.0  # a user's first demo makes a virtual environment of its own
NOBODY = "nobody"
_ANSWER = re.compile(r"^    200 (app[12]) ", re.MULTILINE)


def copy_checkout(to: Path) -> Path:
    """What a clone would hold, without history and without what was built."""
    listed = subprocess.run(
        ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to it is unknown")
    for name in listed.stdout.decode().split("\0"):
        if name and (CHECKOUT / name).is_file():
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target)
    return to


def run_demo(checkout: Path, *prefix: str, **environment: str) -> str:
    """`build.py demo --once`, which must end with 0; what it printed."""
    done = subprocess.run(
        [*prefix, sys.executable, str(checkout / "build.py"), "demo", "--once"],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def private() -> Iterator[Path]:
    """A directory that only its owner can enter, where other users can have one, too: not below pytest's own."""
    with server.scratch_directory("atsk8s-home-") as scratch:
        home = scratch / "home"
        home.mkdir(mode=0o700)
        yield home


def test_the_demo_shows_the_walk_through_and_one_live_change() -> None:
    apps = _ANSWER.findall(run_demo(CHECKOUT))

    assert apps == ["app1", "app2", "app1", "app2", "app2", "app2"]


def test_the_demo_runs_from_a_checkout_that_only_its_owner_can_read(private: Path) -> None:
    checkout = copy_checkout(private / "atsk8s")
    for directory, _, files in os.walk(checkout):
        os.chmod(directory, 0o700)
        for name in files:
            os.chmod(Path(directory, name), 0o600)

    assert len(_ANSWER.findall(run_demo(checkout))) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.timeout(DEMO_TIMEOUT_S + 20)
def test_the_demo_runs_for_a_user_under_a_home_of_theirs(private: Path) -> None:
    checkout = copy_checkout(private / "atsk8s")
    user = pwd.getpwnam(NOBODY)
    for directory, _, files in os.walk(private):
        os.chown(directory, user.pw_uid, user.pw_gid)
        for name in files:
            os.chown(Path(directory, name), user.pw_uid, user.pw_gid)
    become = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    text = run_demo(
        checkout, *become, HOME=str(private), ATSK8S_BUILD_CACHE=str(private / "cache"), TMPDIR="/tmp", XDG_CACHE_HOME=""
    )

    assert len(_ANSWER.findall(text)) == 6


def test_an_installed_prefix_serves(build: compiler.Build, tmp_path: Path) -> None:
    """The two lines that `install` prints, pasted, make a server that is ready."""
    assert build
    with server.scratch_directory("atsk8s-install-") as scratch:
        prefix = scratch / "prefix"
        done = subprocess.run(
            [sys.executable, str(CHECKOUT / "build.py"), "install", "--prefix", str(prefix)],
            capture_output=True,
            text=True,
            timeout=DEMO_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [
            line.strip().replace("--kubeconfig=/path/to/kubeconfig", f"--manifests={prefix}/etc")
            for line in done.stdout.splitlines()
        ]
        (remap,) = [line for line in lines if line.startswith("map ")]
        (plugin,) = [line for line in lines if line.startswith(str(prefix)) and ".so" in line]
        (http,) = free_ports(LOOPBACK, "127.0.0.1", 1)
        tree = server.make_tree(
            scratch / "tree",
            server_ports=f"{http}:ip-in=127.0.0.1",
            remap=[f"{remap} @pparam=--admin=off"],
            plugins=[f"{plugin} --admin=off"],
            samples=prefix / "etc",
        )
        with server.running(server.Server(tree)) as running:
            running.await_listening([("127.0.0.1", http)])
        assert running.status == 0, running.log_tail()
