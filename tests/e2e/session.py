"""What every session over a real control plane begins with, for the conftest.py of this folder and of the faults."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.prerequisites import PrerequisiteError
from tests.harness import controlplane_build, podnet
from tests.harness.authority import Authority
from tests.harness.podnet import PodNet

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = (TESTS / "e2e", TESTS / "faults")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Have the control plane's programs before the first test's clock starts: building them takes minutes once.

    If that fails, the first fixture that wants them says why.
    """
    if any(item.path.is_relative_to(folder) for folder in FOLDERS):
        with contextlib.suppress(controlplane_build.BuildError, PrerequisiteError):
            controlplane_build.build()
    return (yield)


@pytest.fixture(scope="session")
def shared_net() -> Generator[PodNet]:
    """The pod network."""
    reason = podnet.unavailable_reason()
    if reason is not None:
        pytest.skip(reason)
    with PodNet() as made:
        yield made


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates that are served."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")
