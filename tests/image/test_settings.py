"""Settings that cannot work: the container ends in one line that says why."""

from __future__ import annotations

import pytest

from tests.image.containers import HARDENED, RUNS_CONTAINERS, run_to_its_end

pytestmark = RUNS_CONTAINERS


BAD_SETTINGS = {
    "size is no number": (["--env=TS_CACHE_SIZE=abc"], ["--manifests=/etc"], ["TS_CACHE_SIZE='abc'", "whole number"]),
    "size is negative": (["--env=TS_CACHE_SIZE=-1"], ["--manifests=/etc"], ["TS_CACHE_SIZE='-1'"]),
    "size crashes Traffic Server": (["--env=TS_CACHE_SIZE=1"], ["--manifests=/etc"], ["TS_CACHE_SIZE=1", "16 to"]),
    "size exceeds the volume": (
        ["--env=TS_CACHE_SIZE=64", "--tmpfs=/var/lib/trafficserver:mode=1777,size=8m"],
        ["--manifests=/etc"],
        ["TS_CACHE_SIZE=64", "room for 8 MB"],
    ),
    "volume is not writable": (["--volume=/proc/sys:/var/lib/trafficserver:ro"], ["--manifests=/etc"], ["cannot write"]),
    "manifests are missing": ([], ["--manifests=/absent"], ["--manifests=/absent", "no such directory"]),
    "manifests are a file": ([], ["--manifests=/etc/passwd"], ["--manifests=/etc/passwd", "not a directory"]),
    "manifests are private": ([], ["--manifests=/root"], ["--manifests=/root", "may not read it"]),
    "kubeconfig is missing": (["--env=ATSK8S_KUBECONFIG=/absent"], [], ["--kubeconfig=/absent", "no such file"]),
    "kubeconfig is private": ([], ["--kubeconfig=/etc/shadow"], ["--kubeconfig=/etc/shadow", "may not read it"]),
    "two sources": (["--env=ATSK8S_KUBECONFIG=/etc/passwd"], ["--manifests=/etc"], ["exclude each other"]),
    "no source": ([], [], ["no cluster and no manifests"]),
    "unknown option": ([], ["--manifest=/etc"], ["unknown option '--manifest'"]),
    "a secret as a flag": ([], ["--token=s3cret"], ["ATSK8S_TOKEN"]),
    "value over two lines": ([], ["--manifests=/a\nb"], ["--manifests=/a?b"]),
}


@pytest.mark.parametrize(("options", "arguments", "fragments"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_end_in_one_line_and_2(
    podman: list[str], image: str, options: list[str], arguments: list[str], fragments: list[str]
) -> None:
    done = run_to_its_end(podman, image, *arguments, options=(*HARDENED, *options))

    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "level=" not in line]  # podman's own
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("atsk8s: ")
    for fragment in fragments:
        assert fragment in lines[0]
    assert "s3cret" not in done.stderr


def test_missing_run_directory_is_named(podman: list[str], image: str) -> None:
    done = run_to_its_end(podman, image, "--manifests=/etc", options=("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"))

    assert done.returncode == 2
    assert "--tmpfs /run/ats:mode=1777" in done.stderr
