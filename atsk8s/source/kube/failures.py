"""Why a list or a watch did not go on, by what a reflector does about it.  Any other KubeError is a connection that was lost."""

from __future__ import annotations

from atsk8s.errors import KubeError


class RetryError(KubeError):
    """Wait, then go on from where we were; `is_outage`: the server may be another one then, or have another past."""

    def __init__(self, message: str, retry_after_s: float | None = None, *, is_outage: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_outage = is_outage


class ExpiredError(KubeError):
    """List again; `is_quorum`: from etcd, because the version we know is of no use."""

    def __init__(self, message: str, *, is_quorum: bool = False) -> None:
        super().__init__(message)
        self.is_quorum = is_quorum


class NotStreamedError(KubeError):
    """The server does not stream lists: fetch pages."""
