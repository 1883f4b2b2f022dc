"""What the modules share that have a server `running` in front of `backends`, fixtures of their own."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.harness.ats import Ats
from tests.harness.backends import Backends


@pytest.fixture
def ats(running: Ats, backends: Backends) -> Generator[Ats]:
    """The server, with nothing counted; its logs are looked at after each test."""
    backends.clear()
    yield running
    running.check_logs()
