"""What the controller does about endpoints' health in each of its rounds: hands verdicts to the core, and looks who is left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from atsk8s.model.ir import Service, ServiceKey
from atsk8s.probes.prober import Prober, ProbeReport
from atsk8s.probes.targets import Verdict

_log = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # between two looks at who is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejected:
    """Of a service's endpoints that get new requests, so many are left out just now, after failures or by checks."""

    service: ServiceKey
    n_eligible: int
    n_ejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectedReport:
    """The services that have some left out: `n_services` of them, of which `first` are named.  A value."""

    n_services: int = 0
    first: tuple[Ejected, ...] = ()


class HealthTable(Protocol):
    """What this asks of the core (bridge/publish.py); the controller's thread."""

    def probed(self, verdict: Verdict) -> None:
        """Leave an endpoint out, or no longer; nothing, if it is not published."""
        ...

    def ejected(self) -> EjectedReport:
        """Who is left out just now."""
        ...

    def service_keys(self) -> Mapping[int, ServiceKey]:
        """Published services by the id that the core knows them by.  Any thread."""
        ...


class EndpointHealth:
    """`take`, `round` and `stop` are for the controller's thread."""

    def __init__(self, table: HealthTable, prober: Prober, clock: Callable[[], float]) -> None:
        self._table = table
        self._prober = prober
        self._clock = clock
        self._looked_at = float("-inf")
        self._is_failing = False
        self.ejected = EjectedReport()

    @property
    def probes(self) -> ProbeReport:
        return self._prober.report

    def described(self, endpoints: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
        """What the core says of endpoints, with their service's name in place of its id, and what checks found out.  Any thread."""
        keys = self._table.service_keys()
        found: list[dict[str, object]] = []
        for endpoint in endpoints:
            plain = dict(endpoint)
            key = keys.get(plain.pop("service_id")) if isinstance(plain.get("service_id"), int) else None  # type: ignore[call-overload]
            if key is not None:
                plain["service"] = str(key)
                probe = self._prober.says(key).get(str(plain.get("address")))
                if probe is not None:
                    plain["probe"] = probe
            found.append(plain)
        return found

    def take(self, services: Mapping[ServiceKey, Service | None]) -> None:
        """These are published now; None: gone.  Raises nothing, as `round`: what is published is, whatever becomes of checks."""
        try:
            self._prober.take(services)
        except Exception:
            _log.exception("health checks could not be begun; they will be tried again")

    def round(self) -> None:
        """Raises nothing: a fault here is no reason to stop committing."""
        try:
            verdicts: Sequence[Verdict] = self._prober.verdicts()
            for verdict in verdicts:
                self._table.probed(verdict)
            now = self._clock()
            if verdicts or now - self._looked_at >= LOOK_S:
                self._looked_at = now
                self.ejected = self._table.ejected()
            self._is_failing = False
        except Exception:
            if not self._is_failing:  # each round would say the same
                _log.exception("the endpoints' health cannot be kept")
            self._is_failing = True

    def stop(self) -> None:
        self._prober.stop()
