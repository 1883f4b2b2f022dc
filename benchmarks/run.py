"""What the command line asks of every group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the benchmark."""

    scratch: Path  # empty, readable to Traffic Server's user; goes when the group ends
    quick: bool
    peers: bool

    @property
    def n_runs(self) -> int:
        """Return how many interleaved runs each figure gets."""
        return 3 if self.quick else 7

    @property
    def shot_s(self) -> float:
        """Return how long one turn under load is [s]."""
        return 1 if self.quick else 3

    @property
    def n_changes(self) -> int:
        """Return over how many changes a propagation figure is taken."""
        return 30 if self.quick else 120
