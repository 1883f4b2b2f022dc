"""What one drain of the model returns: the unit of a commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atsk8s.api.meta import ObjectKey
from atsk8s.model.ir import Certificate, HostKey, ObjectRef, Service, ServiceKey, TlsPolicy, VirtualHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs from what was drained before; the value None means gone.

    Services and certificates exist while something here or before refers to them: whoever applies this brings in the new
    ones first and drops the gone ones last.  After `Model.reset`, things that may be known to be equal, or gone already, are
    here, too.
    """

    vhosts: Mapping[HostKey, VirtualHost | None] = field(default_factory=dict)
    tls: Mapping[HostKey, TlsPolicy | None] = field(default_factory=dict)
    services: Mapping[ServiceKey, Service | None] = field(default_factory=dict)
    certificates: Mapping[ObjectKey, Certificate | None] = field(default_factory=dict)
    # Referred to, but the Secret is missing or broken: known, without material.  None of these is in `certificates`.
    empty_certificates: frozenset[ObjectKey] = frozenset()
    verdicts: tuple[ObjectRef, ...] = ()  # objects whose conditions may have changed

    def __bool__(self) -> bool:
        """Whether there is anything to publish."""
        return bool(self.vhosts or self.tls or self.services or self.certificates or self.empty_certificates)
