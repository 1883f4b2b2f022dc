"""How a reflector is doing: what health output, metrics and `wait_synced` read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """What the reflector's thread tells others.  One writer; each field is read by itself."""

    synced: bool = False
    settled: bool = False  # synced, or refused with 403 or 404
    reason: str = "not listed yet"
    moved_at: float | None = None  # clock, when the thread last did anything; None: it has not started
    contact_at: float | None = None  # clock, when the server last spoke
    n_relists: int = 0  # complete lists taken in after the first
    n_events: int = 0  # without bookmarks
    n_requests: int = 0
