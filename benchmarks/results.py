"""What a run has found so far, in memory and on disk: a run that is cut short keeps what it had."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Row


class Results:
    """The rows of one run, written to a file after every one of them.

    Args:
        path: of the file; None: nowhere.
        facts: what identifies run, machine and software.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, str]) -> None:
        self._path, self._facts = path, dict(facts)
        self._minutes: dict[str, float] = {}
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self._write()

    def end(self, group: str, took_s: float, versions: Mapping[str, str]) -> None:
        """Note that a group is done, after so many seconds, and the versions of the references that are here by now."""
        self._minutes[group] = round(took_s / 60, 1)
        self._facts["references"] = " ".join(f"{name}={version}" for name, version in versions.items())
        self._write()

    def count(self, verdict: str) -> int:
        """Return how many rows have this verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def document(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "facts": self._facts,
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "minutes": self._minutes,
            "rows": [row.as_json() for row in self.rows],
        }

    def _write(self) -> None:
        if self._path is None:
            return
        aside = self._path.with_name(f".{self._path.name}.new")
        aside.write_text(json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        aside.replace(self._path)
