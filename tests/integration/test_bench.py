"""The benchmark's own parts, where a mistake would be a figure."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from benchmarks.request import UNCACHED, origin


def test_a_second_origin_in_the_same_place_is_found_at_its_own_port(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            origin(tmp_path) as port,
            urllib.request.urlopen(f"http://127.0.0.1:{port}{UNCACHED}", timeout=10) as answer,
        ):
            assert answer.status == 200
